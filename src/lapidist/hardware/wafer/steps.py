"""The steps of a mesh algorithm: work of every core on its own, communications, and how they are put together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lapidist.hardware.wafer.communications import COMMUNICATIONS, Communication
from lapidist.hardware.wafer.line import Line


@dataclass(frozen=True)
class Multiply:
    """``out += a @ b``: each core multiplies ``products`` pairs of ``[m, k]`` and ``[k, n]`` tiles.

    With ``transpose_b``, ``b`` lies as ``[n, k]``. Without ``accumulate`` the old ``out`` is forgotten. If ``across``
    is given, ``a`` lies in all slots of that line along x, ``b`` and ``out`` in its used ones.
    """

    a: str
    b: str
    out: str
    m: int
    k: int
    n: int
    products: int = 1
    transpose_b: bool = False
    accumulate: bool = True
    across: Line | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.a, self.b, self.out) if self.accumulate else (self.a, self.b)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)

    @property
    def scratch(self) -> int:
        return 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one core."""
        return self.products * self.m * self.k * self.n


@dataclass(frozen=True)
class Pointwise:
    """Work on a core's own tiles that is no matrix product.

    Attributes
    ----------
    operation : its kind, by which it is costed: ``add``, ``rope``, ``softmax``, ...
    elements : that a core computes.
    function : what exactly, for the simulator; the operation if empty.
    """

    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    elements: int
    function: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        return self.inputs

    @property
    def writes(self) -> tuple[str, ...]:
        return self.outputs

    @property
    def scratch(self) -> int:
        return 0


@dataclass(frozen=True)
class Reconfigure:
    """Routers are programmed anew: the routes of the steps before make room for those of the steps behind."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    scratch: int = 0


Leaf = Multiply | Pointwise | Communication


@dataclass(frozen=True)
class Together:
    """Steps that start at the same time: transfers go on behind the work on the tiles that are already there."""

    steps: tuple[Leaf, ...]

    @property
    def communications(self) -> tuple[Communication, ...]:
        return tuple(step for step in self.steps if isinstance(step, COMMUNICATIONS))

    @property
    def hops(self) -> int:
        return max((step.hops for step in self.communications), default=0)

    @property
    def stages(self) -> int:
        return max((step.stages for step in self.communications), default=0)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for step in self.steps for name in step.reads)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(name for step in self.steps for name in step.writes)

    @property
    def scratch(self) -> int:
        return sum(step.scratch for step in self.steps)


@dataclass(frozen=True)
class Repeat:
    """``body`` ``count`` times; steps in it know the repetition ``t``, from 0."""

    count: int
    body: tuple[Leaf | Together, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for step in self.body for name in step.reads)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(name for step in self.body for name in step.writes)

    @property
    def scratch(self) -> int:
        return max((step.scratch for step in self.body), default=0) if self.count else 0


Step = Leaf | Together | Repeat | Reconfigure


def unrolled(program: Iterable[Step]) -> Iterator[tuple[Leaf, int]]:
    """Leaves in an order in which one core after the other could run them, each with the repetition of its loop.

    Steps that are :class:`Together` come in the order in which they are listed, which is always a valid one.
    """
    for step in program:
        if isinstance(step, Repeat):
            for turn in range(step.count):
                yield from ((leaf, turn) for inner in step.body for leaf in leaves(inner))
        elif not isinstance(step, Reconfigure):
            yield from ((leaf, 0) for leaf in leaves(step))


def leaves(step: Leaf | Together) -> tuple[Leaf, ...]:
    """The steps that overlap, or the one."""
    return step.steps if isinstance(step, Together) else (step,)
