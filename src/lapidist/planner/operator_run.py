"""Running a step operator by operator, each with a stopwatch: what ``workload.lower`` describes, done for real.

Operators run in the order of a layer, layer after layer, through the kernels that the engine uses: the caches see what
they see in a model. Numbers are random and of a model's size, for attention's softmax takes its time with scores that
keep growing. Enough layers are built that a weight has left the caches when it is read
again, unless the whole model fits into them.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lapidist.engine.page_pool import PagePool
from lapidist.kernels.activation import gated_activation, quantized_gated_activation
from lapidist.kernels.attention import paged_attention
from lapidist.kernels.cpu.linear import IMPLEMENTATIONS
from lapidist.kernels.dispatch_storage import load_table
from lapidist.kernels.embedding import Embedding
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.linear import Linear
from lapidist.kernels.machine import last_level_cache_bytes
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.quantized_linear import QuantizedLinear
from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight
from lapidist.kernels.rope import apply_rope
from lapidist.kernels.weight_only_linear import WeightOnlyLinear
from lapidist.models.config import ModelConfig
from lapidist.models.rope import RotaryEmbedding
from lapidist.workload.lowering import lower
from lapidist.workload.operators import GEMM
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import SequenceStep, Step
from lapidist.workload.tensor_format import TensorFormat

_PAGE_SIZE = 16
_CACHE_TURNOVERS = 4
_RANDOM_ROWS = 251  # no divisor of a head's size: neighbouring heads differ
_CPU = torch.device("cpu")
Projection = Callable[[Any], Tensor]


class OperatorRun:
    """A decoder of random numbers that can be run step by step.

    Parameters
    ----------
    max_context_tokens : the most tokens that the sequences of a step have in their context together.

    Attributes
    ----------
    layers : how many were built.
    """

    def __init__(
        self,
        config: ModelConfig,
        recipe: Recipe,
        max_context_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config, self.recipe, self._clock = config, recipe, clock
        self.dtype = config.dtype
        gemms = _gemms(config, recipe)
        layer_bytes = sum(gemm.weight_bytes for name, gemm in gemms.items() if name != "lm_head")
        turnover = -(-_CACHE_TURNOVERS * last_level_cache_bytes() // layer_bytes)
        self.layers = min(config.num_layers, max(2, turnover))
        table = load_table(_CPU, [each.name for each in IMPLEMENTATIONS])

        def projection(name: str) -> Projection:
            return _projection(gemms[name], config.dtype, table)

        names = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
        self._projections = [{name: projection(name) for name in names} for _ in range(self.layers)]
        self._lm_head = projection("lm_head")
        rows = torch.randn(config.hidden_size).to(config.dtype)
        self._embedding = Embedding(rows.repeat(config.vocab_size, 1), config.dtype)
        self._norm = RMSNorm(torch.ones(config.hidden_size), config.norm_eps, config.norm_offset)
        self._head_norm = RMSNorm(torch.ones(config.head_dim), config.norm_eps, config.norm_offset)
        self._rope = RotaryEmbedding(config.rope, _CPU)
        self._cache = PagedKVCache(
            self.layers,
            -(-max_context_tokens // _PAGE_SIZE) + 64,
            _PAGE_SIZE,
            config.num_kv_heads,
            config.head_dim,
            config.dtype,
            bits=_kv_bits(recipe),
        )
        self._fill_cache()
        pool = PagePool(self._cache.num_pages, _PAGE_SIZE)
        pool.scatter(0)
        self._pages = pool.allocate(pool.num_pages)

    def _fill_cache(self) -> None:
        """Untouched memory would read as one page of zeros, from the first cache."""
        tokens = self._cache.num_pages * _PAGE_SIZE
        for start in range(0, tokens, 4096):
            slots = torch.arange(start, min(start + 4096, tokens))
            keys = torch.randn(len(slots), self.config.num_kv_heads, self.config.head_dim).to(self.dtype)
            for layer in range(self.layers):
                self._cache.write(layer, slots, keys, keys)

    @torch.inference_mode()
    def run(self, step: Step) -> dict[str, list[float]]:
        """Seconds of every run of each operator, by its name in :func:`workload.lower`: one per layer, or one.

        ``attention`` is one call for all sequences, with the update of the cache and without a sliding window: what a
        window leaves visible costs what a context of that length does.
        """
        watch = _Stopwatch(self._clock)
        batch = _Batch(self, step)
        hidden = watch("embedding", lambda: self._embedding(batch.token_ids))
        if self.config.embedding_scale != 1.0:
            watch("embedding_scale", lambda: hidden.mul_(1.0))
        for index in range(self.layers):
            self._attention_block(watch, index, hidden, batch)
            self._mlp_block(watch, index, hidden)
        final = watch("final_norm", lambda: self._norm(hidden))
        if step.logit_rows:
            logits = watch("lm_head", lambda: self._lm_head(final[: step.logit_rows]).float())
            if self.config.final_softcap is not None:
                watch("final_softcap", lambda: logits.div_(30.0).tanh_().mul_(30.0))
        return watch.seconds

    def _attention_block(self, watch: "_Stopwatch", index: int, hidden: Tensor, batch: "_Batch") -> None:
        config, own = self.config, self._projections[index]
        heads, kv_heads = config.num_heads, config.num_kv_heads
        normalized = watch("input_norm", lambda: self._normalized(own["qkv_proj"], hidden))
        qkv = watch("qkv_proj", lambda: own["qkv_proj"](normalized))
        qkv = qkv.view(len(hidden), heads + 2 * kv_heads, config.head_dim)
        qk, values = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if config.qk_norm:
            query = watch("q_norm", lambda: self._head_norm(qk[:, :heads]))
            key = watch("k_norm", lambda: self._head_norm(qk[:, heads:]))
            qk = torch.cat((query, key), 1)
        rotated = watch("rope", lambda: apply_rope(qk, *batch.cos_sin))

        def attend() -> Tensor:
            self._cache.write(index, batch.layout.slots, rotated[:, heads:], values)
            return paged_attention(
                rotated[:, :heads],
                self._cache,
                index,
                batch.layout,
                config.attention_scale,
                softcap=config.attention_softcap,
            )

        attended = watch("attention", attend).view(len(hidden), -1)
        self._close(watch, "attention", hidden, watch("o_proj", lambda: own["o_proj"](attended)))

    def _mlp_block(self, watch: "_Stopwatch", index: int, hidden: Tensor) -> None:
        own, activation = self._projections[index], self.config.hidden_act
        normalized = watch("pre_mlp_norm", lambda: self._normalized(own["gate_up_proj"], hidden))
        gate_up = watch("gate_up_proj", lambda: own["gate_up_proj"](normalized))
        is_quantized = isinstance(own["down_proj"], QuantizedLinear)
        gate = quantized_gated_activation if is_quantized else gated_activation
        activated: Any = watch("activation", lambda: gate(gate_up, activation))
        self._close(watch, "mlp", hidden, watch("down_proj", lambda: own["down_proj"](activated)))

    def _close(self, watch: "_Stopwatch", block: str, hidden: Tensor, out: Tensor) -> None:
        if self.config.sandwich_norms:
            out = watch(f"post_{block}_norm", lambda: self._norm(out))
        watch(f"{block}_residual", lambda: hidden.add_(out, alpha=0.0))  # numbers stay as they were

    def _normalized(self, projection: Projection, hidden: Tensor) -> Any:
        if isinstance(projection, QuantizedLinear):
            return self._norm.quantized(hidden)
        return self._norm(hidden)


class _Stopwatch:
    """Runs functions and keeps their times by name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        start = self._clock()
        result = function()
        self.seconds[name].append(self._clock() - start)
        return result


class _Batch:
    """Tokens, rotary factors and pages of a step; pages lie as in an engine that has served for long."""

    def __init__(self, run: OperatorRun, step: Step) -> None:
        self.token_ids = torch.randint(run.config.vocab_size, (step.tokens,))
        positions: list[int] = []
        slots: list[int] = []
        pages: list[list[int]] = []
        first = 0
        for sequence in step.sequences:
            span = range(sequence.kv_length - sequence.query_length, sequence.kv_length)
            count = -(-sequence.kv_length // _PAGE_SIZE)
            positions += span
            own = run._pages[first : first + count]
            slots += [own[position // _PAGE_SIZE] * _PAGE_SIZE + position % _PAGE_SIZE for position in span]
            pages.append(own)
            first += count
        at = torch.tensor(positions)
        self.cos_sin = run._rope.cos_sin(at, at + 1, run.dtype)
        lengths = [(sequence.query_length, sequence.kv_length) for sequence in step.sequences]
        self.layout = PagedLayout.build(
            slots, [query for query, _ in lengths], [kv for _, kv in lengths], pages
        )


def _gemms(config: ModelConfig, recipe: Recipe) -> dict[str, GEMM]:
    operators = lower(config, recipe, Step((SequenceStep(1, 1),), logit_rows=1))
    return {each.name: each for each in operators if isinstance(each, GEMM)}


def _projection(gemm: GEMM, dtype: torch.dtype, table: Any) -> Projection:
    """A layer of random weights in the formats of ``gemm``, as the engine would build it."""
    bias = torch.zeros(gemm.n, dtype=dtype) if gemm.bias else None
    if gemm.weight.number not in ("int4", "int8"):
        rows = (torch.randn(_RANDOM_ROWS, gemm.k) / math.sqrt(gemm.k)).to(dtype)
        return Linear(rows.repeat(-(-gemm.n // _RANDOM_ROWS), 1)[: gemm.n].contiguous(), bias, table)
    kind = QuantizedLinear if gemm.input.number == "int8" else WeightOnlyLinear
    return kind(_random_weight(gemm.n, gemm.k, gemm.weight), bias, dtype)


def _random_weight(n: int, k: int, format: TensorFormat) -> QuantizedWeight:
    """What a row gives of a normalized input is about 1."""
    codes_deviation = 73.3 if format.number == "int8" else 4.6
    group_scale = 8 if format.group_size is not None else 1
    scale = 1 / (codes_deviation * group_scale * math.sqrt(k))
    scales = torch.full((n,), scale, dtype=torch.float16)
    if format.number == "int8":
        return QuantizedWeight(8, k, torch.randint(-127, 128, (n, k), dtype=torch.int8), scales)
    codes = torch.randint(0, 256, (n, -(-k // 2)), dtype=torch.uint8)
    if format.group_size is None:
        return QuantizedWeight(4, k, codes, scales, zeros=8 * scales)
    groups = -(-k // GROUP_SIZE)
    return QuantizedWeight(
        4,
        k,
        codes,
        scales,
        group_scales=torch.full((n, groups), group_scale, dtype=torch.uint8),
        group_zeros=torch.full((n, groups), 8 * group_scale, dtype=torch.int8),
    )


def _kv_bits(recipe: Recipe) -> int:
    return recipe.kv.bits if recipe.kv.number in ("int4", "int8") else 16
