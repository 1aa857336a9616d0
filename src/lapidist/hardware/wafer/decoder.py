"""A whole decoder on simulated meshes: prefill on one, decode on another, the cache and weights carried over.

Embedding rows come from the host, scaled if the model scales them; output logits go there.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

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
from lapidist.hardware.wafer.decoder_variant import DecoderVariant, ModelShape
from lapidist.hardware.wafer.decoder_weights import DecoderWeights, require_shapes
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.kv_capacity import even_rows
from lapidist.hardware.wafer.layer_numbers import LayerNumbers
from lapidist.hardware.wafer.layout import Layout, blocks, grid, relayout, relayout_traffic
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.prefill_layer import PrefillPlan, prefill_layer
from lapidist.hardware.wafer.prefill_operations import prefill_operations
from lapidist.hardware.wafer.regions import Grid, layers_of_a_region, regions_on_wafer
from lapidist.hardware.wafer.ring import Indices
from lapidist.hardware.wafer.simulator import Simulator, Traffic

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and all."""


class DecoderModel(ModelShape, Protocol):
    """What the decoder needs beside weights; every ``models.config.ModelConfig`` has it."""

    @property
    def sliding_windows(self) -> tuple[int | None, ...]: ...
    @property
    def attention_scale(self) -> float: ...
    @property
    def embedding_scale(self) -> float: ...


class MeshDecoder:
    """Greedy decoding of a batch of sequences, each of its own length; prompts are run one after the other.

    Layers that do not fit into one region of a mesh's shape lie in several, one behind the other.

    Parameters
    ----------
    weights : arrays of one floating type, in which everything is computed.
    prefill_mesh, decode_mesh : as the phases use them, one after the other.
    context : tokens of a sequence, prompt included, that the cache has room for.
    policy : of the cache; ``concat`` fills the last row, so it may end before ``context``.
    phases : of the K-tree all-reduces in decode.
    accumulator : type in which products are summed, None for that of the weights.
    batch : sequences.

    Attributes
    ----------
    tokens : that each sequence's cache holds, ``[batch]``; empty before the first prefill.
    prefill_regions, decode_regions : over which the layers are spread.
    hand_over_bytes : of hidden states on their way from region to region, since the decoder was made.

    Raises
    ------
    ValueError : weights do not fit the model, a core cannot hold its part of one layer, or the wafer has no room for as
        many regions.
    """

    def __init__(
        self,
        model: DecoderModel,
        weights: DecoderWeights,
        prefill_mesh: Mesh,
        decode_mesh: Mesh,
        context: int,
        policy: CachePolicy = "shift",
        phases: int = 2,
        accumulator: DTypeLike | None = None,
        batch: int = 1,
    ) -> None:
        require_shapes(model, weights)
        self.model, self.weights, self.context = model, weights, context
        self.prefill_mesh, self.decode_mesh = prefill_mesh, decode_mesh
        self.plan = DecodePlan(
            model,
            decode_mesh.rows,
            decode_mesh.cols,
            -(-context // decode_mesh.rows),
            batch,
            phases,
            policy,
            DecoderVariant.of(model, weights.rope.channels),
        )
        self._numbers = LayerNumbers(
            weights.rope,
            weights.norm_eps,
            model.attention_scale,
            model.attention_softcap,
            model.final_softcap,
        )
        element_bytes = weights.head.dtype.itemsize
        self.decode_regions, self.layer = self._in_regions(
            decode_mesh, lambda layers: decode_layer(self.plan, layers, element_bytes)
        )
        self.head = decode_head(self.plan, model.vocab_size, element_bytes)
        decode_mesh.admit(self.head)
        self._operations = DecodeOperations(self.plan, self._numbers)
        self._decoding = Simulator(
            decode_mesh.rows, decode_mesh.cols, {}, self._operations.by_name(), accumulator
        )
        self._accumulator = accumulator
        self._decode_tiles: list[dict[str, Array]] = []
        self._head_tiles = self._place_head()
        self.tokens: Indices = np.zeros(0, np.int64)
        self.relayout_traffic: list[Traffic] = []
        self.hand_over_bytes = 0

    def prefill(self, prompts: Sequence[Sequence[int]], progress: Progress = lambda *_: None) -> Array:
        """Run a prompt for each sequence, move caches and weights to the decode mesh.

        Returns
        -------
        Logits of each prompt's last token, ``[batch, vocab_size]``.

        Raises
        ------
        ValueError : there are not as many prompts as sequences, one is empty or does not fit into the context, or a
            core cannot hold its part.
        """
        if len(prompts) != self.plan.batch:
            raise ValueError(f"{self.plan.batch} sequences need as many prompts, got {len(prompts)}")
        for prompt in prompts:
            if not 1 <= len(prompt) <= self.context:
                raise ValueError(f"a prompt has from 1 to {self.context} tokens here, got {len(prompt)}")
        plans = [self._prefill_plan(len(prompt)) for prompt in prompts]
        embedded = [self._embed(prompt) for prompt in prompts]
        longest = max(plans, key=lambda plan: plan.tokens)
        self.prefill_regions, self.prefill_program = self._in_regions(
            self.prefill_mesh, lambda layers: self._prefill_program(longest, layers)
        )
        self.tokens, self.relayout_traffic = np.zeros(0, np.int64), []
        simulator = Simulator(plans[0].rows, plans[0].cols, {}, accumulator=self._accumulator)
        self._decode_tiles = []
        lasts: list[Array] = []
        for sequence, (plan, x) in enumerate(zip(plans, embedded, strict=True)):
            hidden, program = prefill_hidden(plan), self._prefill_program(plan)
            x = hidden.place(x)
            for number in range(self.model.num_layers):
                done = sequence * self.model.num_layers + number
                progress("prefill, layer by layer", done, len(plans) * self.model.num_layers)
                if self._begins_a_region(number, self.prefill_regions):
                    self.hand_over_bytes += x.nbytes
                x = self._prefill_layer(simulator, plan, program, number, x)
                self._carry_over(plan, number, sequence, simulator.tiles)
            last = decode_hidden(self.plan, np.array([plan.tokens - 1]))
            lasts.append(self._relayout(x, plan, hidden, last, (plan.tokens, self.model.hidden_size)))
        self.tokens = np.array([plan.tokens for plan in plans])
        self.prefill_traffic = simulator.traffic
        return self._logits(np.concatenate(lasts, axis=2))

    def decode(self, tokens: Sequence[int | None]) -> Array:
        """Run one more token of each sequence, None for one that has ended.

        Returns
        -------
        Logits behind them, ``[batch, vocab_size]``; of sequences that have ended NaN.

        Raises
        ------
        ValueError : nothing was prefilled, there are not as many tokens as sequences, or a cache is full.
        """
        if not len(self.tokens):
            raise ValueError("decode follows a prefill")
        if len(tokens) != self.plan.batch:
            raise ValueError(f"{self.plan.batch} sequences need as many tokens, got {len(tokens)}")
        arriving = np.array([token is not None for token in tokens])
        self._require_room(arriving)
        embedded = self._embed([0 if token is None else token for token in tokens])
        self._operations.move_to(np.where(arriving, self.tokens, self.tokens - 1))
        x = decode_hidden(self.plan, np.arange(self.plan.batch)).place(embedded)
        everywhere = np.broadcast_to(arriving.astype(np.int64), (self.plan.rows, self.plan.cols, len(tokens)))
        for number, tiles in enumerate(self._decode_tiles):
            if self._begins_a_region(number, self.decode_regions):
                self.hand_over_bytes += x[:, 0].nbytes  # all columns hold the same
            self._operations.window = self._window(number)
            self._decoding.tiles = {**tiles, "x": x, "arriving": everywhere}
            self._decoding.run(self.layer)
            x = self._decoding.tiles["x"]
        self.tokens = self.tokens + arriving
        logits = self._logits(x)
        logits[~arriving] = np.nan
        return logits

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        count: int,
        stop: Collection[int] = (),
        progress: Progress = lambda *_: None,
    ) -> list[list[int]]:
        """Up to ``count`` greedy tokens behind each prompt, the last one of ``stop`` if one comes.

        Raises
        ------
        ValueError : as :meth:`prefill` and :meth:`decode` do.
        """
        generated: list[list[int]] = [[] for _ in prompts]
        logits = self.prefill(prompts, progress)
        going = list(range(len(prompts)))
        for step in range(count):
            progress("decode, token by token", step, count)
            for sequence in going:
                generated[sequence].append(int(logits[sequence].argmax()))
            going = [sequence for sequence in going if generated[sequence][-1] not in stop]
            if not going:
                break
            if step + 1 < count:
                logits = self.decode(
                    [own[-1] if index in going else None for index, own in enumerate(generated)]
                )
        return generated

    @property
    def occupancy(self) -> Indices:
        """Tokens of each sequence in each row's cache, ``[batch, rows]``."""
        return self._decode_tiles[0]["occupancy"][:, 0].T

    @property
    def decode_traffic(self) -> Traffic:
        """Bytes of all decode steps since the decoder was made."""
        return self._decoding.traffic

    def cache_matrices(self, layer: int, sequence: int = 0) -> tuple[Array, Array]:
        """Keys and values of a layer in the order of their tokens, two of ``[tokens, kv heads * head_dim]``."""
        tiles = self._decode_tiles[layer]
        sides = (int(self.tokens[sequence]), self.model.num_kv_heads * self.model.head_dim)
        keys, values = decode_cache(self.plan, self.occupancy[sequence])
        return (
            keys.collect(cache_as_matrices(tiles["keys"][:, :, sequence]), *sides),
            values.collect(cache_as_matrices(tiles["values"][:, :, sequence]), *sides),
        )

    def _window(self, layer: int) -> int | None:
        windows = self.model.sliding_windows
        return windows[layer] if windows else None

    def _embed(self, tokens: Sequence[int]) -> Array:
        wrong = next((token for token in tokens if not 0 <= token < self.model.vocab_size), None)
        if wrong is not None:
            raise ValueError(f"token {wrong} is not in the vocabulary of {self.model.vocab_size}")
        rows = self.weights.embedding[list(tokens)]
        return rows * rows.dtype.type(self.model.embedding_scale)

    def _prefill_plan(self, tokens: int) -> PrefillPlan:
        mesh = self.prefill_mesh
        return PrefillPlan(self.model, mesh.rows, mesh.cols, tokens, self.plan.variant)

    def _prefill_program(self, plan: PrefillPlan, layers: int = 1) -> Description:
        return prefill_layer(plan, layers, self.weights.head.dtype.itemsize)

    def _in_regions(self, mesh: Mesh, describe: Callable[[int], Description]) -> tuple[int, Description]:
        """The fewest regions of a mesh's shape that hold all layers, and the layer as it lies in one of them."""
        layers = self.model.num_layers
        one, two = (describe(count).summary().peak_bytes for count in (1, 2))
        fitting = layers_of_a_region(one, two, mesh.device.usable_bytes_per_core, layers)
        regions = -(-layers // max(1, fitting))
        program = describe(-(-layers // regions))
        mesh.admit(program)
        room = regions_on_wafer(mesh.device, Grid(mesh.rows, mesh.cols))
        if regions > room:
            raise ValueError(
                f"{layers} layers need {regions} regions of {mesh.rows} x {mesh.cols} cores, where "
                f"{mesh.device.title} has room for {room}; use other meshes or a smaller context"
            )
        return regions, program

    def _begins_a_region(self, layer: int, regions: int) -> bool:
        return layer > 0 and layer % -(-self.model.num_layers // regions) == 0

    def _prefill_layer(
        self, simulator: Simulator, plan: PrefillPlan, program: Description, number: int, x: Array
    ) -> Array:
        weights = matrices(self.weights.layers[number])
        placed = {
            parameter.prefill_name: parameter.prefill.place(weights[parameter.prefill_name])
            for parameter in parameters(plan, self.plan)
        }
        simulator.tiles = {**placed, "x": x}
        simulator.operations = prefill_operations(plan, self._numbers, self._window(number))
        simulator.run(program)
        return simulator.tiles["x"]

    def _carry_over(self, plan: PrefillPlan, number: int, sequence: int, tiles: dict[str, Array]) -> None:
        """A layer's cache, and its weights once, from the prefill mesh to the decode mesh."""
        cache = self._moved_cache(plan, tiles)
        if sequence == 0:
            self._decode_tiles.append({**self._moved_weights(plan, tiles), **cache})
            return
        own = self._decode_tiles[number]
        own |= {name: np.concatenate([own[name], part], axis=2) for name, part in cache.items()}

    def _moved_weights(self, plan: PrefillPlan, tiles: dict[str, Array]) -> dict[str, Array]:
        moved: dict[str, list[Array]] = {}
        for parameter in parameters(plan, self.plan):
            name = parameter.prefill_name
            sides = (int(parameter.prefill.row.max()) + 1, int(parameter.prefill.column.max()) + 1)
            found = self._relayout(tiles[name], plan, parameter.prefill, parameter.decode, sides)
            moved.setdefault(parameter.decode_name, []).append(found)
        return {name: np.concatenate(parts, axis=-1) for name, parts in moved.items()}

    def _moved_cache(self, plan: PrefillPlan, tiles: dict[str, Array]) -> dict[str, Array]:
        held = even_rows(plan.tokens, self.plan.rows)
        sides = (plan.tokens, self.model.num_kv_heads * self.model.head_dim)
        layouts = zip(("keys", "values"), prefill_cache(plan), decode_cache(self.plan, held), strict=True)
        cache = {
            name: matrices_as_cache(
                self._relayout(cache_as_matrices(tiles[name]), plan, source, target, sides),
                self.plan.heads.kv_heads,
            )
            for name, source, target in layouts
        }
        occupancy = np.broadcast_to(held[:, None, None], (self.plan.rows, self.plan.cols, 1)).copy()
        return {**cache, "occupancy": occupancy}

    def _relayout(
        self, tiles: Array, plan: PrefillPlan, source: Layout, target: Layout, sides: tuple[int, int]
    ) -> Array:
        meshes = (plan.rows, plan.cols), (self.plan.rows, self.plan.cols)
        self.relayout_traffic.append(
            relayout_traffic(source, meshes[0], target, meshes[1], sides, tiles.itemsize)
        )
        return relayout(tiles, source, target, sides)

    def _require_room(self, arriving: NDArray[np.bool_]) -> None:
        full = self.tokens >= self.context
        if self.plan.policy == "concat":
            full = self.occupancy[:, -1] >= self.plan.row_capacity
        for sequence in np.flatnonzero(full & arriving):
            of = f" of sequence {sequence}" if self.plan.batch > 1 else ""
            raise ValueError(
                f"the KV cache{of} is full after {self.tokens[sequence]} tokens (policy {self.plan.policy}, "
                f"{self.plan.row_capacity} a row); give a larger context"
            )

    def _place_head(self) -> dict[str, Array]:
        norm = decode_hidden(self.plan, np.zeros(1, np.int64)).place(self.weights.norm[None])
        hidden = blocks(self.model.hidden_size, self.plan.rows)
        head = grid(hidden, blocks(self.model.vocab_size, self.plan.cols))
        return {"norm": norm, "whead": head.place(self.weights.head.T)}

    def _logits(self, x: Array) -> Array:
        self._decoding.tiles = {**self._head_tiles, "x": x}
        self._decoding.run(self.head)
        by_col = self._decoding.tiles["logits"][0]
        return by_col.swapaxes(0, 1).reshape(self.plan.batch, -1)[:, : self.model.vocab_size].copy()
