"""Whether a model fits into a device's memory, and what is left for the KV cache."""

from dataclasses import dataclass

from lapidist.models.config import ModelConfig
from lapidist.workload.lowering import lower
from lapidist.workload.operators import GEMM, Attention, Embedding, ExpertMLP, Normalization, Operator
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import SequenceStep, Step

_LOGIT_BYTES = 4  # logits are float32, and sampling keeps a copy


@dataclass(frozen=True)
class MemoryFit:
    """Memory of one device of a tensor-parallel group.

    Attributes
    ----------
    memory_bytes : what the engine may use.
    weight_bytes : of the device's share of the weights.
    activation_bytes : the most that a step holds at once, logits included.
    kv_bytes_per_token : of the device's share of the KV heads, all layers.
    num_pages, page_size : what the rest holds.
    """

    memory_bytes: int
    weight_bytes: int
    activation_bytes: int
    kv_bytes_per_token: int
    num_pages: int
    page_size: int

    @property
    def kv_capacity_tokens(self) -> int:
        return self.num_pages * self.page_size

    def max_batch(self, tokens_per_sequence: float) -> int:
        """Sequences of so many tokens that the KV cache holds at once."""
        return int(self.kv_capacity_tokens / tokens_per_sequence)


def fit_memory(
    config: ModelConfig,
    recipe: Recipe,
    tensor_parallel: int,
    memory_bytes: int,
    *,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    page_size: int = 16,
    expert_parallel: int = 1,
) -> MemoryFit:
    """Place weights and a step's activations; pages of the KV cache get the rest.

    Raises
    ------
    ValueError : the weights and activations alone do not fit, or leave no room for one page.
    """
    weights = weight_bytes(config, recipe, tensor_parallel, expert_parallel)
    activations = _activation_bytes(config, recipe, tensor_parallel, max_num_batched_tokens, max_num_seqs)
    per_token = kv_bytes_per_token(config, recipe, tensor_parallel)
    free = memory_bytes - weights - activations
    num_pages = free // (per_token * page_size)
    if num_pages < 1:
        raise ValueError(
            f"does not fit: {weights / 1e9:.1f} GB of weights and {activations / 1e9:.1f} GB of activations per device "
            f"leave no room for the KV cache in {memory_bytes / 1e9:.1f} GB; use more devices or a smaller recipe"
        )
    return MemoryFit(memory_bytes, weights, activations, per_token, num_pages, page_size)


def weight_bytes(
    config: ModelConfig, recipe: Recipe, tensor_parallel: int = 1, expert_parallel: int = 1
) -> int:
    """Of one rank: what each operator of a step reads, all experts, and the embedding table, split by its rows."""
    operators = _one_token(config, recipe, tensor_parallel, expert_parallel)
    read = sum(each.count * each.weight_bytes for each in operators if isinstance(each, GEMM | Normalization))
    read += sum(each.count * each.stored_weight_bytes for each in operators if isinstance(each, ExpertMLP))
    rows = -(-config.vocab_size // tensor_parallel)
    [embedding] = [each for each in operators if isinstance(each, Embedding)]
    table = embedding.table.byte_count(rows, config.hidden_size)
    is_shared = config.tie_embeddings and recipe.lm_head is None
    return read + (0 if is_shared else table)


def kv_bytes_per_token(config: ModelConfig, recipe: Recipe, tensor_parallel: int = 1) -> int:
    """Of one rank, all layers. Every token is kept, also beyond a sliding window, as the engine does."""
    operators = _one_token(config, recipe, tensor_parallel)
    return sum(each.count * each.kv_write_bytes for each in operators if isinstance(each, Attention))


def _activation_bytes(
    config: ModelConfig, recipe: Recipe, tensor_parallel: int, tokens: int, logit_rows: int
) -> int:
    """Residual stream, what the widest operator reads and writes, and two copies of the logits."""
    step = Step((SequenceStep(tokens, tokens),), logit_rows=0)
    operators = lower(config, recipe, step, tensor_parallel)
    widest = max(each.activation_bytes for each in operators)
    residual = recipe.hidden.byte_count(tokens, config.hidden_size)
    return residual + widest + 2 * _LOGIT_BYTES * logit_rows * config.vocab_size


def _one_token(
    config: ModelConfig, recipe: Recipe, tensor_parallel: int, expert_parallel: int = 1
) -> list[Operator]:
    step = Step((SequenceStep(1, 1),), logit_rows=1)
    return lower(config, recipe, step, tensor_parallel, expert_parallel)
