"""Runs a :class:`Description` for real numbers on one machine: all cores at once, as NumPy arrays.

A tensor on the mesh is an array ``[y slots, x slots, *tile]``. A step touches it along its axis only, so a turn of all
rings is one gather, and the products of all cores are one batched matrix product. Sums are taken in the order in which
the cores would take them, and in the type that is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from lapidist.hardware.wafer.communications import (
    AllGather,
    Broadcast,
    Reduce,
    ReduceToRing,
    RingExchange,
    Shift,
    Wave,
)
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.line import Line, ring_flows
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.ring import (
    Indices,
    alignment_turns,
    receive_from,
    ring_order,
    ring_position,
)
from lapidist.hardware.wafer.steps import Leaf, Multiply, Pointwise

Operation = Callable[..., Array | tuple[Array, ...]]


@dataclass
class Traffic:
    """Bytes that each core has sent into the network and received from it; two of ``[rows, cols]``.

    A multicast counts once for each direction it leaves its root in, and once at each core that reads it.
    """

    sent: Indices
    received: Indices


class Simulator:
    """The state of a mesh of ``rows`` x ``cols`` cores, and how steps change it.

    Parameters
    ----------
    tiles : tensors by name, ``[y slots, x slots, *tile]``. The simulator owns the arrays: it writes into them, also
        into one that has left its place in ``tiles``.
    operations : what :class:`Pointwise` steps mean, by their name; each takes and returns such arrays.
    accumulator : type in which products are summed; None for that of the factors. With ``float16`` every
        multiply-add is rounded, as in the kernels of WaferLLM.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        tiles: dict[str, Array],
        operations: Mapping[str, Operation] | None = None,
        accumulator: DTypeLike | None = None,
    ) -> None:
        self.rows, self.cols = rows, cols
        self.tiles = tiles
        self.operations = operations or {}
        self.accumulator = None if accumulator is None else np.dtype(accumulator)
        self.traffic = Traffic(np.zeros((rows, cols), np.int64), np.zeros((rows, cols), np.int64))
        self._spare: dict[tuple[tuple[int, ...], np.dtype], Array] = {}

    def run(self, description: Description) -> None:
        """Run the whole program. Outputs and work tiles of an earlier run are forgotten first."""
        if (description.rows, description.cols) != (self.rows, self.cols):
            raise ValueError(
                f"{description.name} is described for {description.rows} x {description.cols} cores, "
                f"the simulated mesh has {self.rows} x {self.cols}"
            )
        for name, tile in description.tiles.items():
            if tile.role in ("work", "output"):
                self.tiles.pop(name, None)
        for step, turn in description.execution():
            self.run_step(step, turn)

    def run_step(self, step: Leaf, turn: int = 0) -> None:
        """Run one step in the ``turn``-th repetition of its loop; raises ValueError for one that is unknown."""
        if isinstance(step, Multiply):
            self._multiply(step)
        elif isinstance(step, Pointwise):
            self._pointwise(step)
        elif isinstance(step, Shift):
            self._shift(step) if step.skew is None else self._skewed_shift(step, step.skew, turn)
        elif isinstance(step, Reduce):
            self._reduce(step)
        elif isinstance(step, ReduceToRing):
            self._reduce_to_ring(step, turn)
        elif isinstance(step, Broadcast):
            self._broadcast(step, turn)
        elif isinstance(step, AllGather):
            self._all_gather(step)
        elif isinstance(step, RingExchange):
            self._ring_exchange(step, turn)
        elif isinstance(step, Wave):
            self._wave(step)
        else:
            raise ValueError(f"the simulator knows no step of the kind {type(step).__name__}")

    def _multiply(self, step: Multiply) -> None:
        a, b = self.tiles[step.a], self.tiles[step.b]
        if step.across is not None:
            a = a[:, _over_groups(step.across.used_slots, step.across.groups, step.across.slots)]
        if step.transpose_b:
            b = b.swapaxes(-1, -2)
        kind = self.accumulator or np.result_type(a, b)
        old = self.tiles.get(step.out) if step.accumulate else None
        if kind == np.float16:
            self.tiles[step.out] = _multiply_add_half(a, b, old)
            return
        a, b = a.astype(kind, copy=False), b.astype(kind, copy=False)
        if old is None:
            self.tiles[step.out] = np.matmul(a, b)
        else:
            product = np.matmul(a, b, out=self._take_spare(old.shape, kind))
            old += product
            self._give_spare(product)

    def _pointwise(self, step: Pointwise) -> None:
        operation = self.operations.get(step.function or step.operation)
        if operation is None:
            raise ValueError(f"the simulator was not told what {step.function or step.operation!r} computes")
        results = operation(*(self.tiles[name] for name in step.inputs))
        results = results if isinstance(results, tuple) else (results,)
        self.tiles.update(zip(step.outputs, results, strict=True))

    def _shift(self, step: Shift) -> None:
        tile, axis = self.tiles[step.tile], _array_axis(step.line)
        source = _over_groups(receive_from(step.ring, step.line.slots), step.line.groups, step.line.slots)
        moved = self._take_spare(tile.shape, tile.dtype)
        np.take(tile, source, axis=axis, out=moved, mode="clip")
        self.tiles[step.tile] = moved
        self._give_spare(tile)
        flows = step.flows
        self._count(step.line, flows.sent, flows.received, self._slot_bytes(tile, step.line))

    def _skewed_shift(self, step: Shift, across: Line, turn: int) -> None:
        """One turn of the lines that have not reached their skew yet, each in its own direction."""
        tile = self.tiles[step.tile]
        by_line = tile if step.axis == "x" else tile.swapaxes(0, 1)
        turns = np.tile(alignment_turns(step.ring, across.slots)[across.used_slots], across.groups)
        slot_bytes = self._slot_bytes(tile, step.line) // (len(turns) // across.extent)
        for direction in (1, -1):
            moving = np.flatnonzero(turns * direction > turn)
            source = _over_groups(
                receive_from(step.ring, step.line.slots, direction), step.line.groups, step.line.slots
            )
            by_line[moving] = by_line[moving][:, source]
            flows = ring_flows(step.ring, step.line.cores, step.line.slots, direction)
            movers = np.bincount(moving // across.used, minlength=across.extent)
            self._count(step.line, flows.sent, flows.received, slot_bytes * movers)

    def _reduce(self, step: Reduce) -> None:
        tile = self.tiles[step.tile]
        along = self._cores_first(tile, step.line)
        combine = np.add if step.operation == "sum" else np.maximum
        for stage in step.phase.stages:
            for move in stage:
                source = _over_groups(np.array(move.source), step.line.groups, step.line.cores)
                target = _over_groups(np.array(move.target), step.line.groups, step.line.cores)
                along[target] = combine(along[target], along[source])
        flows = step.phase.flows
        self._count(step.line, flows.sent, flows.received, self._slot_bytes(tile, step.line))

    def _reduce_to_ring(self, step: ReduceToRing, turn: int) -> None:
        partial = self.tiles[step.partial]
        line, slots = step.line, step.ring.slots
        position = ring_position(step.ring_kind, slots)
        block = ring_order(step.ring_kind, slots)[(position - turn) % slots]
        root = block // line.slots_per_core
        parts = partial.reshape(slots, line.groups, line.cores, *partial.shape[2:])
        row = np.arange(slots)
        total = parts[row, :, root]
        for chain in (range(line.cores), range(line.cores)[::-1]):
            running = parts[:, :, chain[0]].copy()
            for core in chain[1:]:
                arrived = root == core
                total[arrived] += running[arrived]
                running += parts[:, :, core]
        if step.out not in self.tiles:
            self.tiles[step.out] = np.zeros(
                (slots, line.groups * line.slots, *partial.shape[2:]), partial.dtype
            )
        out = self.tiles[step.out].reshape(slots, line.groups, line.slots, *partial.shape[2:])
        out[row, :, block] = total
        self._count_chains(step, root, partial[0, 0].nbytes)

    def _count_chains(self, step: ReduceToRing, root: Indices, tile_bytes: int) -> None:
        """Every core but the root sends once; all but the ends receive once, a root from both sides."""
        core, cores = np.arange(step.line.cores), step.line.cores
        root = root[:, None]
        sent = (core != root).astype(np.int64)
        received = ((core <= root) & (core > 0)).astype(np.int64) + ((core >= root) & (core < cores - 1))
        by_row = (self.rows, step.ring.slots_per_core, cores)
        for counter, count in ((self.traffic.sent, sent), (self.traffic.received, received)):
            counter += np.tile(count.reshape(by_row).sum(axis=1), step.line.groups) * tile_bytes

    def _broadcast(self, step: Broadcast, turn: int) -> None:
        tile, line, axis = self.tiles[step.tile], step.line, _array_axis(step.line)
        slot = turn if step.root == "turn" else step.root * line.slots_per_core
        chosen = tile.take(_over_groups(np.array([slot]), line.groups, line.slots), axis=axis)
        self.tiles[step.out] = chosen.repeat(line.cores, axis=axis)
        root = slot // line.slots_per_core
        sent, received = np.zeros(line.cores, np.int64), np.ones(line.cores, np.int64)
        sent[root], received[root] = (root > 0) + (root < line.cores - 1), 0
        self._count(line, sent, received, self._slot_bytes(tile, line))

    def _all_gather(self, step: AllGather) -> None:
        tile, line, axis = self.tiles[step.tile], step.line, _array_axis(step.line)
        slots = np.moveaxis(tile, axis, 0).reshape(line.groups, line.slots, -1, *tile.shape[2:])
        panels = np.stack([np.concatenate(list(group), axis=1 + step.along) for group in slots])
        everywhere = np.moveaxis(panels.repeat(line.cores, axis=0), 0, axis)
        self.tiles[step.out] = everywhere
        core = np.arange(line.cores)
        sent = ((core > 0).astype(np.int64) + (core < line.cores - 1)) * line.slots_per_core
        received = np.full(line.cores, (line.cores - 1) * line.slots_per_core)
        self._count(line, sent, received, self._slot_bytes(tile, line))

    def _ring_exchange(self, step: RingExchange, turn: int) -> None:
        line, chunk_elements = step.line, step.chunk_elements
        along = self._cores_first(self.tiles[step.tile], line)
        vectors = along.reshape(line.groups, line.cores, along.shape[1], -1).swapaxes(1, 2)
        padding = line.cores * chunk_elements - vectors.shape[-1]
        chunks = np.pad(vectors, [(0, 0)] * 3 + [(0, padding)])
        chunks = chunks.reshape(*vectors.shape[:3], line.cores, chunk_elements)
        sender = ring_order(step.ring, line.cores)
        receiver = np.roll(sender, -1)
        chunk = (np.arange(line.cores) + (step.mode == "copy") - turn) % line.cores
        arriving = chunks[:, :, sender, chunk]
        if step.mode == "reduce":
            arriving = arriving + chunks[:, :, receiver, chunk]
        chunks[:, :, receiver, chunk] = arriving
        vectors[...] = chunks.reshape(*vectors.shape[:3], -1)[..., : vectors.shape[-1]]
        along[...] = vectors.swapaxes(1, 2).reshape(along.shape)
        chunk_bytes = chunk_elements * along.itemsize * (along.shape[1] // self._across(line))
        self._count(line, step.flows.sent, step.flows.received, chunk_bytes)

    def _wave(self, step: Wave) -> None:
        """Tiles are ``[rows, cols, batch, ..., entries, dims]``, the oldest entry first."""
        batch = self.tiles[step.occupancy].shape[2]
        arriving = self.tiles[step.arriving][0, 0] if step.arriving else np.ones(batch)
        for sequence in np.flatnonzero(arriving):
            self._wave_of(step, int(sequence))

    def _wave_of(self, step: Wave, sequence: int) -> None:
        occupancy = self.tiles[step.occupancy][:, :, sequence]
        tiles = [self.tiles[name][:, :, sequence] for name in step.tiles]
        held = occupancy[:, 0].tolist()
        top = self.rows - 1
        while top > 0 and 0 < held[top] >= held[top - 1]:
            top -= 1
        if top < self.rows - 1 and held[top] >= tiles[0].shape[-2]:
            raise ValueError(f"row {top} of the KV cache is full with {held[top]} tokens")
        for tile in tiles:
            oldest = tile[..., 0, :].copy()
            for row in range(top, self.rows):
                kept = held[row] - (row > top)
                if row > top:
                    tile[row, ..., :kept, :] = tile[row, ..., 1 : held[row], :].copy()
                if row + 1 < self.rows:
                    tile[row, ..., kept, :] = oldest[row + 1]
        occupancy[top] += top < self.rows - 1
        occupancy[-1] -= top < self.rows - 1
        rows = np.arange(self.rows)
        entry_bytes = sum(int(tile[0, 0, ..., 0, :].nbytes) for tile in tiles)
        sent = (rows > top).astype(np.int64)
        received = ((rows >= top) & (rows < self.rows - 1)).astype(np.int64)
        self._count(step.line, sent, received, entry_bytes)

    def _cores_first(self, tile: Array, line: Line) -> Array:
        """A view with the cores of the line's axis in front; raises ValueError if slots are not whole cores."""
        along = np.moveaxis(tile, _array_axis(line), 0)
        if along.shape[0] != line.extent:
            raise ValueError(f"a reduction along {line.axis} needs one slot a core, got {along.shape[0]}")
        return along

    def _across(self, line: Line) -> int:
        return self.rows if line.axis == "x" else self.cols

    def _slot_bytes(self, tile: Array, line: Line) -> int:
        """Bytes of one core in one slot along the line."""
        across = tile.shape[1 - _array_axis(line)]
        return int(tile[0, 0].nbytes) * (across // self._across(line))

    def _count(self, line: Line, sent: Indices, received: Indices, slot_bytes: int | Indices) -> None:
        """Add messages along a line, ``slot_bytes`` each, alike on all lines or ``[lines across]``."""
        for counter, messages in ((self.traffic.sent, sent), (self.traffic.received, received)):
            along = np.tile(messages, line.groups)
            amount = np.multiply.outer(np.broadcast_to(slot_bytes, self._across(line)), along)
            counter += amount if line.axis == "x" else amount.T

    def _take_spare(self, shape: tuple[int, ...], kind: np.dtype) -> Array:
        found = self._spare.pop((shape, kind), None)
        return np.empty(shape, kind) if found is None else found

    def _give_spare(self, array: Array) -> None:
        if array.base is None:
            self._spare[array.shape, array.dtype] = array


def _array_axis(line: Line) -> int:
    return 0 if line.axis == "y" else 1


def _over_groups(index: Indices, groups: int, length: int) -> Indices:
    """Indices within one line of ``length`` to indices along the axis, for each of its groups."""
    return (np.arange(groups)[:, None] * length + index).ravel()


def _multiply_add_half(a: Array, b: Array, out: Array | None) -> Array:
    """``out + a @ b`` with every multiply-add rounded to fp16, in the order of the contraction."""
    total = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32) if out is None else out.astype(np.float32)
    a, b = a.astype(np.float32), b.astype(np.float32)
    for k in range(a.shape[-1]):
        total += a[..., :, k, None] * b[..., None, k, :]
        total = total.astype(np.float16).astype(np.float32)
    return total.astype(np.float16)
