"""Cutting a model: checkpoint in, quantized checkpoint out, one layer in memory at a time.

A layer is read, rotated, run over the calibration text, smoothed, rounded and written; the text then goes through the
rounded layer, in the kernels that will serve it, so that the next layer is cut for the inputs that it will really get.
"""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lapidist.kernels.kv_quantization import check_kv_bits
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.quantized_linear import QuantizedLinear
from lapidist.kernels.quantized_weight import QuantizedWeight
from lapidist.kernels.weight_only_linear import WeightOnlyLinear
from lapidist.models.checkpoint_tensors import EMBEDDING, LM_HEAD
from lapidist.models.config import CONFIG_FILE, ModelConfig
from lapidist.models.json_file import read_json_object
from lapidist.models.layer import Projection
from lapidist.models.quantization_config import quantization_section
from lapidist.models.quantized_tensors import tensors_of
from lapidist.models.softmax_config import SECTION
from lapidist.models.tokenizer import Tokenizer
from lapidist.models.weights import WeightFiles
from lapidist.quantization.block import BlockWeights, EndWeights
from lapidist.quantization.block_files import FINAL_NORM, BlockFiles, block_shape, read_ends
from lapidist.quantization.block_passes import rotate, rotate_rows, smooth
from lapidist.quantization.calibration_tokens import calibration_tokens
from lapidist.quantization.layer_run import (
    PROJECTIONS,
    LayerRun,
    float_projection,
    make_layer,
    stacked_bias,
    stacked_weight,
)
from lapidist.quantization.recipe import Recipe
from lapidist.quantization.rounding import needs_hessian, needs_inputs, round_weight
from lapidist.quantization.statistics import AttentionStatistics, InputStatistics
from lapidist.quantization.unfinished import UnfinishedCheckpoint, fingerprint

Progress = Callable[[int, int, str], None]

_SAMPLED_TOKENS = 512
_ROWS_AT_ONCE = 8192  # of the embedding and the head, which are much larger than a layer's matrices


def quantize(
    source: Path,
    out: Path,
    recipe: Recipe,
    texts: Iterable[str] | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Path:
    """Cut a checkpoint by a recipe.

    A run that was stopped goes on at the layer where it was if it is started again in the same way. The same seed, text
    and machine give the same files.

    Parameters
    ----------
    source : directory of a Hugging Face checkpoint of floats.
    out : directory that is made; it appears complete or not at all.
    texts : calibration documents; None is a mixture that ships with Lapidist.
    progress : called with steps done, all steps, and what comes next.

    Returns
    -------
    ``out``.

    Raises
    ------
    CheckpointError : the checkpoint cannot be used, or ``out`` exists or cannot be written.
    ValueError : the recipe does not suit the model, or the text is too short.
    """
    config = ModelConfig.from_directory(source)
    if config.quantization is not None:
        raise ValueError(f"{source} is quantized already ({config.quantization.recipe}): give the original")
    check_kv_bits(recipe.kv_cache, config.head_dim)
    return _Run(source, out, config, recipe, texts, progress).run()


class _Run:
    """One model through one recipe."""

    def __init__(
        self,
        source: Path,
        out: Path,
        config: ModelConfig,
        recipe: Recipe,
        texts: Iterable[str] | None,
        progress: Progress,
    ) -> None:
        self._source, self._config, self._recipe, self._progress = source, config, recipe, progress
        self._files = WeightFiles(source)
        self._block_files = BlockFiles(config)
        self._shape = block_shape(config)
        tokenizer = Tokenizer.from_directory(source)
        context, vocabulary = config.max_position_embeddings, config.vocab_size
        self._tokens = calibration_tokens(tokenizer, texts, recipe.calibration, context, vocabulary)
        identity = fingerprint(source, recipe.model_dump_json(), self._tokens.numpy().tobytes())
        self._unfinished = UnfinishedCheckpoint(out, config.num_layers + 1, identity)
        self._out = out
        self._layer_run = LayerRun(config, len(self._tokens), self._tokens.shape[1], config.dtype)

    def run(self) -> Path:
        config = self._config
        ends = read_ends(self._files, config)
        done, hidden = self._unfinished.resume()
        if hidden is None:
            hidden = self._embed(ends)
        total = config.num_layers + 1
        for index in range(done, config.num_layers):
            self._progress(index, total, f"layer {index}")
            self._layer(index, hidden)
            self._unfinished.keep(index + 1, hidden)
        self._progress(config.num_layers, total, "output head")
        self._write_ends(ends, hidden)
        self._unfinished.finish(self._source, self._config_file())
        self._progress(total, total, "done")
        return self._out

    def _embed(self, ends: EndWeights) -> Tensor:
        """Hidden states ``[sequences, length, hidden_size]`` before the first layer."""
        used, places = self._tokens.unique(return_inverse=True)
        rows = EndWeights(ends.embedding[used].float(), ends.final_norm, ends.lm_head[:0].float())
        embedded = rotate_rows(rows, self._recipe).embedding.to(self._config.dtype)
        scale = torch.tensor(self._config.embedding_scale, dtype=self._config.dtype).item()
        return embedded[places] * scale

    def _layer(self, index: int, hidden: Tensor) -> None:
        recipe = self._recipe
        block = rotate(self._block_files.read(self._files, index), self._shape, recipe)
        if recipe.needs_statistics:
            inputs, attention = self._observe(index, block, hidden, with_hessian=False)
            error = self._attention_error(index, block, hidden)
            block = smooth(block, self._shape, recipe, inputs, attention, error)
        observed = None
        if needs_inputs(recipe.weights):
            observed, _ = self._observe(index, block, hidden, needs_hessian(recipe.weights))
        rounded = {} if recipe.weights.is_float else self._round(block, observed)
        self._unfinished.write_shard(index, self._block_tensors(index, block, rounded))
        layer = make_layer(self._config, index, block, lambda name: self._projection(block, rounded, name))
        self._layer_run.advance(layer, hidden, recipe.kv_cache)

    def _observe(
        self, index: int, block: BlockWeights, hidden: Tensor, with_hessian: bool
    ) -> tuple[dict[str, InputStatistics], AttentionStatistics]:
        every = max(1, self._tokens.numel() // _SAMPLED_TOKENS)
        inputs = {
            name: InputStatistics(stacked_weight(block, name).shape[1], with_hessian, every)
            for name in PROJECTIONS
        }
        config = self._config
        attention = AttentionStatistics(config.num_heads, config.num_kv_heads, config.head_dim)
        self._layer_run.observe(index, block, hidden, inputs, attention)
        return inputs, attention

    def _attention_error(
        self, index: int, block: BlockWeights, hidden: Tensor
    ) -> Callable[[BlockWeights], float]:
        """Squared error, by quantized keys and values, of the attention of other versions of the block."""
        bits, attended = self._recipe.kv_cache, self._layer_run.attended
        # Computed when it is first asked for: most recipes do not.
        exact = cache(lambda: attended(index, block, hidden, 16))
        return lambda other: (attended(index, other, hidden, bits) - exact()).square().sum().item()

    def _round(
        self, block: BlockWeights, observed: dict[str, InputStatistics] | None
    ) -> dict[str, QuantizedWeight]:
        """Quantized projections by their names in ``PROJECTIONS``."""
        return {
            name: round_weight(
                stacked_weight(block, name),
                self._recipe.weights,
                None if observed is None else observed[name],
            )
            for name in PROJECTIONS
        }

    def _projection(self, block: BlockWeights, rounded: dict[str, QuantizedWeight], name: str) -> Projection:
        dtype = self._config.dtype
        if name not in rounded:
            return float_projection(block, name, dtype)
        bias = stacked_bias(block, name)
        kind = QuantizedLinear if self._recipe.activations == 8 else WeightOnlyLinear
        return kind(rounded[name], None if bias is None else bias.to(dtype), dtype)

    def _block_tensors(
        self, index: int, block: BlockWeights, rounded: dict[str, QuantizedWeight]
    ) -> dict[str, Tensor]:
        prefix = f"model.layers.{index}."
        floats = self._block_files.float_tensors(block, with_matrices=not rounded)
        tensors = {f"{prefix}{name}": tensor.to(self._config.dtype) for name, tensor in floats}
        matrices: dict[str, QuantizedWeight] = {}
        for name, weight in rounded.items():
            fields = PROJECTIONS[name]
            sizes = [len(getattr(block, field)) for field in fields]
            matrices |= zip(fields, weight.split(sizes), strict=True)
        if matrices:
            for name, stored in self._block_files.projections.items():
                weight = QuantizedWeight.stacked([matrices[field] for field in stored])
                tensors |= tensors_of(f"{prefix}{name}", weight)
        return tensors

    # -- embedding and head --------------------------------------------------------------------------------------

    def _write_ends(self, ends: EndWeights, hidden: Tensor) -> None:
        recipe, dtype = self._recipe, self._config.dtype
        embedding: list[Tensor] = []
        heads: list[Tensor] = []
        rounded: list[QuantizedWeight] = []
        final_norm = ends.final_norm
        inputs: InputStatistics | None = None
        for start in range(0, len(ends.embedding), _ROWS_AT_ONCE):
            span = slice(start, start + _ROWS_AT_ONCE)
            rows = rotate_rows(
                EndWeights(ends.embedding[span].float(), ends.final_norm, ends.lm_head[span].float()), recipe
            )
            embedding.append(rows.embedding.to(dtype))
            final_norm = rows.final_norm
            if recipe.lm_head.is_float:
                heads.append(rows.lm_head.to(dtype))
                continue
            if inputs is None and needs_inputs(recipe.lm_head):
                inputs = self._head_inputs(final_norm, hidden)
            rounded.append(round_weight(rows.lm_head, recipe.lm_head, inputs))
        tensors = {EMBEDDING: torch.cat(embedding)}
        tensors[FINAL_NORM] = (final_norm - self._config.norm_offset).to(dtype)
        if rounded:
            tensors |= tensors_of(LM_HEAD.removesuffix(".weight"), QuantizedWeight.stacked(rounded))
        elif not self._stays_tied:
            tensors[LM_HEAD] = torch.cat(heads)
        self._unfinished.write_shard(self._config.num_layers, tensors)

    def _head_inputs(self, final_norm: Tensor, hidden: Tensor) -> InputStatistics:
        every = max(1, self._tokens.numel() // _SAMPLED_TOKENS)
        inputs = InputStatistics(len(final_norm), needs_hessian(self._recipe.lm_head), every)
        norm = RMSNorm(final_norm, self._config.norm_eps)
        for sequences in hidden.flatten(0, 1).split(4096):
            inputs(norm(sequences))
        return inputs

    @property
    def _stays_tied(self) -> bool:
        return self._config.tie_embeddings and not self._recipe.rotation and self._recipe.lm_head.is_float

    def _config_file(self) -> dict[str, Any]:
        config = read_json_object(self._source / CONFIG_FILE)
        section = quantization_section(self._recipe.formats)
        section["passes"] = self._recipe.model_dump(mode="json")
        earlier = config.get("quantization_config")
        if isinstance(earlier, dict) and SECTION in earlier and not self._recipe.rotation:
            # Scores are the same numbers but for rounding, and so is what was found out about them.
            section[SECTION] = earlier[SECTION]
        return config | {"tie_word_embeddings": self._stays_tied, "quantization_config": section}
