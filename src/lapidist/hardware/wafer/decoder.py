"""A whole decoder on simulated meshes: prefill on one, decode on another, the cache and weights carried over.

Embedding rows come from the host; output logits go there.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import DTypeLike

from lapidist.hardware.wafer.decode_layer import CachePolicy, DecodePlan, decode_head, decode_layer
from lapidist.hardware.wafer.decode_operations import DecodeOperations
from lapidist.hardware.wafer.decoder_layouts import (
    cache_as_matrices,
    decode_cache,
    decode_hidden,
    matrices,
    matrices_as_cache,
    parameters,
    prefill_cache,
    prefill_hidden,
)
from lapidist.hardware.wafer.decoder_weights import DecoderWeights, require_plain_decoder, require_shapes
from lapidist.hardware.wafer.kv_capacity import even_rows
from lapidist.hardware.wafer.layout import Layout, blocks, grid, relayout, relayout_traffic
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.prefill_layer import PrefillPlan, prefill_layer
from lapidist.hardware.wafer.prefill_operations import prefill_operations
from lapidist.hardware.wafer.ring import Indices
from lapidist.hardware.wafer.simulator import Simulator, Traffic
from lapidist.workload.lowering import DecoderShape

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and all."""


class MeshDecoder:
    """Greedy decoding of one sequence at a time.

    Parameters
    ----------
    weights : arrays of one floating type, in which everything is computed.
    prefill_mesh, decode_mesh : as the phases use them, one after the other.
    context : tokens, prompt included, that the cache has room for.
    policy : of the cache; ``concat`` fills the last row, so it may end before ``context``.
    phases : of the K-tree all-reduces in decode.
    accumulator : type in which products are summed, None for that of the weights.

    Raises
    ------
    ValueError : the model is none that the mesh runs, or a core cannot hold its part.
    """

    def __init__(
        self,
        shape: DecoderShape,
        weights: DecoderWeights,
        prefill_mesh: Mesh,
        decode_mesh: Mesh,
        context: int,
        policy: CachePolicy = "shift",
        phases: int = 2,
        accumulator: DTypeLike | None = None,
    ) -> None:
        require_plain_decoder(shape)
        require_shapes(shape, weights)
        self.shape, self.weights, self.context = shape, weights, context
        self.prefill_mesh, self.decode_mesh = prefill_mesh, decode_mesh
        rows = decode_mesh.rows
        self.plan = DecodePlan(
            shape,
            rows,
            decode_mesh.cols,
            -(-context // rows),
            phases=phases,
            policy=policy,
            biased=shape.qkv_bias,
        )
        element_bytes = weights.head.dtype.itemsize
        self.layer = decode_layer(self.plan, shape.num_layers, element_bytes)
        self.head = decode_head(self.plan, shape.vocab_size, element_bytes)
        decode_mesh.admit(self.layer)
        decode_mesh.admit(self.head)
        self._operations = DecodeOperations(self.plan, weights.rope_frequencies, weights.norm_eps)
        self._decoding = Simulator(rows, decode_mesh.cols, {}, self._operations.by_name(), accumulator)
        self._accumulator = accumulator
        self._decode_tiles: list[dict[str, Array]] = []
        self._head_tiles = self._place_head()
        self.tokens = 0
        self.relayout_traffic: list[Traffic] = []

    def prefill(self, tokens: Sequence[int], progress: Progress = lambda *_: None) -> Array:
        """Run a prompt, move its cache and the weights to the decode mesh; logits of the last token, ``[vocab_size]``.

        Raises
        ------
        ValueError : the prompt is empty, does not fit into the context, or a core cannot hold its part.
        """
        if not 1 <= len(tokens) <= self.context:
            raise ValueError(f"a prompt has from 1 to {self.context} tokens here, got {len(tokens)}")
        mesh, shape = self.prefill_mesh, self.shape
        plan = PrefillPlan(shape, mesh.rows, mesh.cols, len(tokens), shape.qkv_bias)
        program = prefill_layer(plan, self.shape.num_layers, self.weights.head.dtype.itemsize)
        self.prefill_mesh.admit(program)
        simulator = Simulator(plan.rows, plan.cols, {}, accumulator=self._accumulator)
        hidden = prefill_hidden(plan)
        x = hidden.place(self._embed(tokens))
        self._decode_tiles, self.relayout_traffic = [], []
        for number, layer in enumerate(self.weights.layers):
            progress("prefill, layer by layer", number, len(self.weights.layers))
            placed = {
                parameter.prefill_name: parameter.prefill.place(matrices(layer)[parameter.prefill_name])
                for parameter in parameters(plan, self.plan)
            }
            simulator.tiles = {**placed, "x": x}
            simulator.operations = prefill_operations(
                plan, self.weights.rope_frequencies, self.weights.norm_eps, self._window(number)
            )
            simulator.run(program)
            x = simulator.tiles["x"]
            self._decode_tiles.append(self._carry_over(plan, simulator.tiles))
        self.tokens = len(tokens)
        self.prefill_program, self.prefill_traffic = program, simulator.traffic
        last = decode_hidden(self.plan, len(tokens) - 1)
        return self._logits(self._relayout(x, plan, hidden, last, (len(tokens), self.shape.hidden_size)))

    def decode(self, token: int) -> Array:
        """Run one more token; logits behind it, ``[vocab_size]``.

        Raises
        ------
        ValueError : nothing was prefilled, or the cache is full.
        """
        if not self._decode_tiles:
            raise ValueError("decode follows a prefill")
        self._require_room()
        self._operations.position = self.tokens
        x = decode_hidden(self.plan).place(self._embed([token]))
        for number, tiles in enumerate(self._decode_tiles):
            self._operations.window = self._window(number)
            self._decoding.tiles = {**tiles, "x": x}
            self._decoding.run(self.layer)
            x = self._decoding.tiles["x"]
        self.tokens += 1
        return self._logits(x)

    def generate(
        self,
        prompt: Sequence[int],
        count: int,
        stop: Collection[int] = (),
        progress: Progress = lambda *_: None,
    ) -> list[int]:
        """Up to ``count`` greedy tokens behind ``prompt``, the last one of ``stop`` if one comes.

        Raises
        ------
        ValueError : as :meth:`prefill` and :meth:`decode` do.
        """
        generated: list[int] = []
        logits = self.prefill(prompt, progress)
        while len(generated) < count:
            progress("decode, token by token", len(generated), count)
            generated.append(int(logits.argmax()))
            if generated[-1] in stop:
                break
            if len(generated) < count:
                logits = self.decode(generated[-1])
        return generated

    @property
    def occupancy(self) -> Indices:
        """Tokens in each row's cache, ``[rows]``."""
        return self._decode_tiles[0]["occupancy"][:, 0, 0]

    @property
    def decode_traffic(self) -> Traffic:
        """Bytes of all decode steps since the decoder was made."""
        return self._decoding.traffic

    def cache_matrices(self, layer: int) -> tuple[Array, Array]:
        """Keys and values of a layer in the order of their tokens, two of ``[tokens, kv heads * head_dim]``."""
        tiles = self._decode_tiles[layer]
        sides = (self.tokens, self.shape.num_kv_heads * self.shape.head_dim)
        keys, values = decode_cache(self.plan, self.occupancy)
        return (
            keys.collect(cache_as_matrices(tiles["keys"][:, :, 0]), *sides),
            values.collect(cache_as_matrices(tiles["values"][:, :, 0]), *sides),
        )

    def _window(self, layer: int) -> int | None:
        windows = self.shape.sliding_windows
        return windows[layer] if windows else None

    def _embed(self, tokens: Sequence[int]) -> Array:
        wrong = next((token for token in tokens if not 0 <= token < self.shape.vocab_size), None)
        if wrong is not None:
            raise ValueError(f"token {wrong} is not in the vocabulary of {self.shape.vocab_size}")
        return self.weights.embedding[list(tokens)]

    def _carry_over(self, plan: PrefillPlan, tiles: dict[str, Array]) -> dict[str, Array]:
        """A layer's weights and cache from the prefill mesh to the decode mesh."""
        moved: dict[str, list[Array]] = {}
        for parameter in parameters(plan, self.plan):
            name = parameter.prefill_name
            sides = (int(parameter.prefill.row.max()) + 1, int(parameter.prefill.column.max()) + 1)
            found = self._relayout(tiles[name], plan, parameter.prefill, parameter.decode, sides)
            moved.setdefault(parameter.decode_name, []).append(found)
        held = even_rows(plan.tokens, self.plan.rows)
        sides = (plan.tokens, self.shape.num_kv_heads * self.shape.head_dim)
        layouts = zip(("keys", "values"), prefill_cache(plan), decode_cache(self.plan, held), strict=True)
        cache = {
            name: matrices_as_cache(
                self._relayout(cache_as_matrices(tiles[name]), plan, source, target, sides),
                self.plan.heads.kv_heads,
            )
            for name, source, target in layouts
        }
        occupancy = np.broadcast_to(held[:, None, None], (self.plan.rows, self.plan.cols, 1)).copy()
        weights = {name: np.concatenate(parts, axis=-1) for name, parts in moved.items()}
        return {**weights, **cache, "occupancy": occupancy}

    def _relayout(
        self, tiles: Array, plan: PrefillPlan, source: Layout, target: Layout, sides: tuple[int, int]
    ) -> Array:
        meshes = (plan.rows, plan.cols), (self.plan.rows, self.plan.cols)
        self.relayout_traffic.append(
            relayout_traffic(source, meshes[0], target, meshes[1], sides, tiles.itemsize)
        )
        return relayout(tiles, source, target, sides)

    def _require_room(self) -> None:
        full = self.tokens >= self.context
        if self.plan.policy == "concat":
            full = int(self.occupancy[-1]) >= self.plan.row_capacity
        if full:
            raise ValueError(
                f"the KV cache is full after {self.tokens} tokens (policy {self.plan.policy}, "
                f"{self.plan.row_capacity} a row); give a larger context"
            )

    def _place_head(self) -> dict[str, Array]:
        norm = decode_hidden(self.plan).place(self.weights.norm[None])
        hidden = blocks(self.shape.hidden_size, self.plan.rows)
        head = grid(hidden, blocks(self.shape.vocab_size, self.plan.cols))
        return {"norm": norm, "whead": head.place(self.weights.head.T)}

    def _logits(self, x: Array) -> Array:
        self._decoding.tiles = {**self._head_tiles, "x": x}
        self._decoding.run(self.head)
        by_col = self._decoding.tiles["logits"][0, :, 0]
        return by_col.reshape(-1)[: self.shape.vocab_size]
