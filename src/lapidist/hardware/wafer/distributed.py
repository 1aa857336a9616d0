"""Runs a :class:`Description` for real: one process of ``torch.distributed`` is one core of the mesh.

Rank ``row * cols + col`` is core ``(row, col)``. It holds only its own tiles and does what the steps say with messages
to the ranks that they name, over any backend (gloo, NCCL). What a wafer's routers do on the way is done by ranks here:
a multicast is handed from neighbour to neighbour, and only its root counts as a sender. Under
``torchrun --nproc-per-node 9``::

    dist.init_process_group("gloo")
    problem = gemm_problem(3, 3, "meshgemm", a, b)
    core = MeshRank(3, 3, problem.tiles)
    core.run(problem.description)
    tiles = core.gather(problem.output)  # on rank 0
"""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lapidist.hardware.wafer.communications import (
    AllGather,
    Broadcast,
    Reduce,
    ReduceToRing,
    RingExchange,
    Shift,
)
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.line import Line
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.ring import alignment_turns, ring_order, ring_position, send_to
from lapidist.hardware.wafer.steps import Leaf, Multiply


class MeshRank:
    """This process as a core of a mesh of ``rows`` x ``cols``; the default process group must be running.

    Parameters
    ----------
    tiles : tensors of the whole mesh by name, ``[y slots, x slots, *tile]``; the rank takes its own part.
    device : where the rank computes; for NCCL a GPU of its own, which becomes the process's current one.
    accumulator : type in which products are summed, None for that of the factors.

    Raises
    ------
    ValueError : there are not as many ranks as cores.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        tiles: dict[str, Array],
        device: str | torch.device = "cpu",
        accumulator: torch.dtype | None = None,
    ) -> None:
        if dist.get_world_size() != rows * cols:
            raise ValueError(
                f"a mesh of {rows} x {cols} cores needs {rows * cols} ranks, there are {dist.get_world_size()}"
            )
        device = torch.device(device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(
                device
            )  # NCCL's batches run on the current GPU, whatever their tensors are on
        self.rows, self.cols = rows, cols
        self.row, self.col = divmod(dist.get_rank(), cols)
        self.accumulator = accumulator
        self.sent_bytes = 0
        self.received_bytes = 0
        self.tiles = {
            name: torch.from_numpy(np.array(self._own(array), order="C")).to(device)
            for name, array in tiles.items()
        }
        dist.barrier()  # NCCL wants all ranks in the first call, before pairs of them talk

    def _own(self, array: Array) -> Array:
        down, across = array.shape[0] // self.rows, array.shape[1] // self.cols
        return array[self.row * down : (self.row + 1) * down, self.col * across : (self.col + 1) * across]

    def run(self, description: Description) -> None:
        """Run the whole program; raises ValueError for a step that ranks do not know."""
        for step, turn in description.execution():
            self._run_step(step, turn)

    def gather(self, name: str) -> Array | None:
        """A tensor of the whole mesh on rank 0, ``[y slots, x slots, *tile]``; None on the others."""
        own = self.tiles[name].contiguous()
        first = dist.get_rank() == 0
        parts = [torch.empty_like(own) for _ in range(self.rows * self.cols)] if first else None
        dist.gather(own, parts)
        if parts is None:
            return None
        grid = [parts[row * self.cols : (row + 1) * self.cols] for row in range(self.rows)]
        return torch.cat([torch.cat(line, dim=1) for line in grid], dim=0).cpu().numpy()

    def _run_step(self, step: Leaf, turn: int) -> None:
        if isinstance(step, Multiply):
            self._multiply(step)
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
        else:
            raise ValueError(f"ranks run products and collectives, not {type(step).__name__}")

    def _multiply(self, step: Multiply) -> None:
        a, b = self.tiles[step.a], self.tiles[step.b]
        kind = self.accumulator or a.dtype
        product = torch.matmul(a.to(kind), (b.transpose(-1, -2) if step.transpose_b else b).to(kind))
        old = self.tiles.get(step.out) if step.accumulate else None
        self.tiles[step.out] = product if old is None else old.add_(product)

    def _shift(self, step: Shift) -> None:
        dim = _dim(step.line)
        slots = self._turned(self.tiles[step.tile].unbind(dim), step, 1)
        self.tiles[step.tile] = torch.stack(slots, dim)

    def _skewed_shift(self, step: Shift, across: Line, turn: int) -> None:
        """Own slots across the line turn forward, backward or not at all; all ranks of the line agree which."""
        dim = _dim(step.line)
        tile = self.tiles[step.tile]
        place = self._place(across) * across.slots_per_core
        turns = alignment_turns(step.ring, across.slots)[place : place + across.slots_per_core]
        for direction in (1, -1):
            moving = torch.from_numpy(np.flatnonzero(turns * direction > turn)).to(tile.device)
            if len(moving):
                parts = tile.index_select(1 - dim, moving).unbind(dim)
                turned = torch.stack(self._turned(parts, step, direction), dim)
                tile.index_copy_(1 - dim, moving, turned)

    def _turned(self, slots: tuple[Tensor, ...], step: Shift, direction: int) -> list[Tensor]:
        """Own slots after one turn of the ring. Messages between two ranks are ordered by the slot they go to."""
        line = step.line
        first = self._place(line) * line.slots_per_core
        target = send_to(step.ring, line.slots, direction)
        source = send_to(step.ring, line.slots, -direction)
        outgoing = sorted((int(target[first + i]), slot) for i, slot in enumerate(slots))
        arrived: list[Tensor | None] = [None] * len(slots)
        requests = []
        for place, slot in outgoing:
            if place // line.slots_per_core == self._place(line):
                arrived[place - first] = slot
            else:
                requests.append(self._send(slot, line, place // line.slots_per_core, place))
        for i in range(len(slots)):
            if arrived[i] is None:
                buffer = torch.empty_like(slots[i].contiguous())
                arrived[i] = buffer
                core = int(source[first + i]) // line.slots_per_core
                requests.append(self._receive(buffer, line, core, first + i))
        self._exchange(requests)
        return [slot for slot in arrived if slot is not None]

    def _reduce(self, step: Reduce) -> None:
        tile = self.tiles[step.tile]
        me = self._place(step.line)
        for stage in step.phase.stages:
            for move in stage:
                for source, target in zip(move.source, move.target, strict=True):
                    if me == source:
                        self._exchange([self._send(tile, step.line, target)])
                    elif me == target:
                        arriving = self._received_like(tile, step.line, source)
                        tile = tile + arriving if step.operation == "sum" else torch.maximum(tile, arriving)
        self.tiles[step.tile] = tile

    def _reduce_to_ring(self, step: ReduceToRing, turn: int) -> None:
        """One chain for each own slot along y, from both ends of the line to the root of that slot."""
        line, ring = step.line, step.ring
        position, order = ring_position(step.ring_kind, ring.slots), ring_order(step.ring_kind, ring.slots)
        partial = self.tiles[step.partial]
        if step.out not in self.tiles:
            shape = (ring.slots_per_core, line.slots_per_core, *partial.shape[2:])
            self.tiles[step.out] = torch.zeros(shape, dtype=partial.dtype, device=partial.device)
        me = self._place(line)
        for slot in range(ring.slots_per_core):
            row = self._place(ring) * ring.slots_per_core + slot
            block = int(order[(position[row] - turn) % ring.slots])
            root = block // line.slots_per_core
            total = partial[slot, 0].clone()
            if 0 < me <= root:
                total = self._added(total, self._received_like(total, line, me - 1), me == root)
            if root <= me < line.cores - 1:
                total = self._added(total, self._received_like(total, line, me + 1), me == root)
            if me == root:
                self.tiles[step.out][slot, block % line.slots_per_core] = total
            else:
                self._exchange([self._send(total, line, me + 1 if me < root else me - 1)])

    def _added(self, own: Tensor, arriving: Tensor, at_root: bool) -> Tensor:
        return own + arriving if at_root else arriving + own

    def _broadcast(self, step: Broadcast, turn: int) -> None:
        line = step.line
        slot = turn if step.root == "turn" else step.root * line.slots_per_core
        tile = self.tiles[step.tile].select(_dim(line), slot % line.slots_per_core)
        out = self._multicast(tile, line, slot // line.slots_per_core)
        self.tiles[step.out] = out.unsqueeze(_dim(line))

    def _all_gather(self, step: AllGather) -> None:
        line = step.line
        panels = [
            self._multicast(slot, line, core)
            for core in range(line.cores)
            for slot in self.tiles[step.tile].unbind(_dim(line))
        ]
        self.tiles[step.out] = torch.cat(panels, dim=1 + step.along).unsqueeze(_dim(line))

    def _multicast(self, tile: Tensor, line: Line, root: int) -> Tensor:
        """The root's tile on every rank of the line, handed on from neighbour to neighbour."""
        me = self._place(line)
        if me != root:
            tile = self._received_like(tile, line, me - 1 if me > root else me + 1)
        before = self.sent_bytes
        if me <= root and me > 0:
            self._exchange([self._send(tile, line, me - 1)])
        if me >= root and me < line.cores - 1:
            self._exchange([self._send(tile, line, me + 1)])
        if me != root:
            self.sent_bytes = before  # the router's work, not the core's
        return tile

    def _ring_exchange(self, step: RingExchange, turn: int) -> None:
        line, size = step.line, step.chunk_elements
        tile = self.tiles[step.tile]
        padded = torch.zeros(line.cores * size, dtype=tile.dtype, device=tile.device)
        padded[: tile.numel()] = tile.reshape(-1)
        chunks = padded.view(line.cores, size)
        me = self._place(line)
        position = int(ring_position(step.ring, line.cores)[me])
        ahead = position + (step.mode == "copy") - turn
        outgoing, incoming = chunks[ahead % line.cores], chunks[(ahead - 1) % line.cores]
        buffer = torch.empty_like(outgoing)
        target = int(send_to(step.ring, line.cores)[me])
        source = int(send_to(step.ring, line.cores, -1)[me])
        self._exchange([self._send(outgoing, line, target), self._receive(buffer, line, source)])
        incoming.copy_(buffer + incoming if step.mode == "reduce" else buffer)
        self.tiles[step.tile] = padded[: tile.numel()].view(tile.shape)

    def _place(self, line: Line) -> int:
        """Own core within its line."""
        return (self.col if line.axis == "x" else self.row) % line.cores

    def _rank(self, line: Line, core: int) -> int:
        """Rank of another core of the own line."""
        offset = core - self._place(line)
        return dist.get_rank() + (offset if line.axis == "x" else offset * self.cols)

    def _send(self, tile: Tensor, line: Line, core: int, tag: int = 0) -> dist.P2POp:
        self.sent_bytes += tile.numel() * tile.element_size()
        return dist.P2POp(dist.isend, tile.contiguous(), self._rank(line, core), tag=tag)

    def _receive(self, buffer: Tensor, line: Line, core: int, tag: int = 0) -> dist.P2POp:
        self.received_bytes += buffer.numel() * buffer.element_size()
        return dist.P2POp(dist.irecv, buffer, self._rank(line, core), tag=tag)

    def _received_like(self, tile: Tensor, line: Line, core: int) -> Tensor:
        buffer = torch.empty_like(tile.contiguous())
        self._exchange([self._receive(buffer, line, core)])
        return buffer

    def _exchange(self, operations: list[dist.P2POp]) -> None:
        if operations:
            for work in dist.batch_isend_irecv(operations):
                work.wait()


def _dim(line: Line) -> int:
    return 0 if line.axis == "y" else 1
