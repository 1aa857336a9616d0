"""K-tree reductions (WaferLLM section 5; two-phase reduce of arXiv 2404.15888): who adds whose sum, stage by stage.

A phase cuts the cores that still hold a sum into groups of neighbours. Inside a group two chains run from both
ends to a root, each core adding its own sum to what it receives and sending the result on. The roots go into the
next phase until one is left. One phase is the pipeline reduction, K phases the K-tree.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np

from lapidist.hardware.wafer.line import Flows

Root = Literal["middle", "first"]


@dataclass(frozen=True)
class Move:
    """Cores ``source[i]`` send what they hold to ``target[i]``, all at once; no core appears twice in a move."""

    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class Phase:
    """One phase on a line of ``cores``: its stages in order, each one or two moves, and who holds sums after it.

    A core that is the target of both moves of a stage adds them in their order: from below, then from above.
    """

    cores: int
    stages: tuple[tuple[Move, ...], ...]
    roots: tuple[int, ...]

    @cached_property
    def hops(self) -> int:
        """Links on the critical path: the longest move of each stage, one stage after the other."""
        return sum(
            max(
                abs(source - target)
                for move in stage
                for source, target in zip(move.source, move.target, strict=True)
            )
            for stage in self.stages
        )

    @cached_property
    def flows(self) -> Flows:
        """All messages of the phase."""
        moves = [move for stage in self.stages for move in stage]
        source = np.array([core for move in moves for core in move.source], dtype=np.int64)
        target = np.array([core for move in moves for core in move.target], dtype=np.int64)
        return Flows(source, target, self.cores)


@lru_cache(maxsize=256)
def reduction_phases(cores: int, group_sizes: tuple[int, ...], root: Root = "middle") -> tuple[Phase, ...]:
    """Phases that leave the sum of a line on one core, the only root of the last phase.

    Parameters
    ----------
    cores : of the line.
    group_sizes : members of a group in each phase; the last group of a phase may be smaller.
    root : where in its group a chain ends; ``middle`` is member ``size // 2``.

    Raises
    ------
    ValueError : a group is empty, or more than one sum is left.
    """
    if any(size < 1 for size in group_sizes):
        raise ValueError(f"groups of a reduction have at least one core, got sizes {group_sizes}")
    phases = []
    holders = tuple(range(cores))
    for size in group_sizes:
        groups = [holders[start : start + size] for start in range(0, len(holders), size)]
        phase = _phase(cores, groups, root)
        phases.append(phase)
        holders = phase.roots
    if len(holders) != 1:
        raise ValueError(
            f"groups of {' x '.join(map(str, group_sizes))} leave {len(holders)} sums of {cores} cores; "
            "make the groups larger or add a phase"
        )
    return tuple(phases)


def _phase(cores: int, groups: list[tuple[int, ...]], root: Root) -> Phase:
    root_index = [len(group) // 2 if root == "middle" else 0 for group in groups]
    roots = tuple(group[index] for group, index in zip(groups, root_index, strict=True))
    below = [list(pairwise(group[: index + 1])) for group, index in zip(groups, root_index, strict=True)]
    above = [list(pairwise(group[index:][::-1])) for group, index in zip(groups, root_index, strict=True)]
    depth = max(len(chain) for chain in below + above)
    stages = []
    for stage in range(depth):
        moves = (_move(below, depth, stage), _move(above, depth, stage))
        stages.append(tuple(move for move in moves if move.source))
    return Phase(cores, tuple(stages), roots)


def _move(chains: list[list[tuple[int, int]]], depth: int, stage: int) -> Move:
    """The messages of ``stage`` when all chains end together at stage ``depth - 1``."""
    pairs = [
        chain[stage - depth + len(chain)] for chain in chains if 0 <= stage - depth + len(chain) < len(chain)
    ]
    return Move(tuple(source for source, _ in pairs), tuple(target for _, target in pairs))


@lru_cache(maxsize=256)
def tree_group_sizes(cores: int, phases: int) -> tuple[int, ...]:
    """Group sizes of a K-tree, each near ``cores ** (1 / phases)``, with the fewest stages for the first phase.

    Raises
    ------
    ValueError : ``phases`` is below one.
    """
    if phases < 1:
        raise ValueError(f"a reduction tree has at least one phase, got {phases}")
    if phases == 1:
        return (cores,)
    ideal = cores ** (1 / phases)
    candidates = range(max(1, int(ideal * 0.5)), int(ideal * 2) + 2)
    plans = [(size, *tree_group_sizes(-(-cores // size), phases - 1)) for size in candidates]
    return min(plans, key=lambda sizes: (sum(size // 2 for size in sizes), sizes))
