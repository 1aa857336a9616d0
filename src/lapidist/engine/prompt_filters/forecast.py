"""What a filter saves: arithmetic, from the operators of ``workload.lower``, and memory."""

from dataclasses import dataclass, replace

from lapidist.models.config import ModelConfig
from lapidist.workload.lowering import lower
from lapidist.workload.operators import GEMM, Attention
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import SequenceStep, Step

_RECIPE = Recipe.named("fp32")  # FLOPs do not depend on it


def prefill_flops(config: ModelConfig, tokens: int, layers: int | None = None, logit_rows: int = 1) -> int:
    """Of the matrix products and the causal attention of a prompt in the first ``layers`` layers (None is all)."""
    if tokens == 0 or layers == 0:
        return 0
    count = config.num_layers if layers is None else layers
    shape = replace(config, num_layers=count, sliding_windows=config.sliding_windows[:count])
    step = Step((SequenceStep(tokens, tokens),), logit_rows if layers is None else 0)
    total = 0
    for operator in lower(shape, _RECIPE, step):
        if isinstance(operator, Attention):
            total += operator.count * operator.causal_flops
        elif isinstance(operator, GEMM):
            total += operator.count * operator.flops
    return total


def filter_flops(config: ModelConfig, tokens: int, layer: int) -> int:
    """Of GemFilter's first run: the layers before ``layer``, its keys and their products with one query."""
    key_width = config.num_kv_heads * config.head_dim
    projection = 2 * tokens * key_width * config.hidden_size
    query = 2 * config.num_heads * config.head_dim * config.hidden_size
    return prefill_flops(config, tokens, layer) + projection + query + 2 * tokens * key_width


def gain(config: ModelConfig, tokens: int, kept: int, layer: int) -> float:
    """Times less arithmetic of the prompt phase with GemFilter: the whole prompt against both runs."""
    filtered = filter_flops(config, tokens, layer) + prefill_flops(config, kept)
    return prefill_flops(config, tokens) / filtered


def token_propagation_gain(config: ModelConfig, tokens: int, going_on: int, layer: int) -> float:
    """Times less arithmetic of the prompt phase where only ``going_on`` tokens go deeper than ``layer``."""
    above = prefill_flops(config, going_on) - prefill_flops(config, going_on, layer + 1)
    return prefill_flops(config, tokens) / (prefill_flops(config, tokens, layer + 1) + above)


@dataclass(frozen=True)
class Memory:
    """Bytes beside the weights. ``kv`` is the KV cache, ``hidden`` the hidden states of a whole prompt."""

    kv: int
    hidden: int = 0

    @property
    def total(self) -> int:
        return self.kv + self.hidden


def kv_bytes(config: ModelConfig, tokens: int, itemsize: int, layers: int | None = None) -> int:
    """Keys and values of ``tokens`` in ``layers`` layers (None is all), ``itemsize`` bytes a number."""
    count = config.num_layers if layers is None else layers
    return 2 * count * config.num_kv_heads * config.head_dim * tokens * itemsize


def full_memory(config: ModelConfig, tokens: int, itemsize: int) -> Memory:
    """A plain prompt phase: keys and values of all tokens in all layers."""
    return Memory(kv_bytes(config, tokens, itemsize))


def filter_memory(config: ModelConfig, tokens: int, itemsize: int) -> Memory:
    """A filter's first run: hidden states and one layer's keys and values of all tokens, and the rotary factors."""
    rotary = 2 * config.rope.rotary_dim * tokens * itemsize
    hidden = config.hidden_size * tokens * itemsize
    return Memory(kv_bytes(config, tokens, itemsize, layers=1), hidden + rotary)
