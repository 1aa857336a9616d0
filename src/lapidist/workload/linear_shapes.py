"""The linear layers of a decoder: which weights a batch is multiplied by."""

from lapidist.workload.lowering import DecoderShape, lower
from lapidist.workload.operators import GEMM
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import SequenceStep, Step


def linear_shapes(config: DecoderShape) -> dict[str, tuple[int, int]]:
    """``(n, k)``, output and input channels, of qkv_proj, o_proj, gate_up_proj, down_proj and lm_head.

    They are the GEMMs of :func:`lower`, so QKV and gate/up are one each.
    """
    operators = lower(config, Recipe.named("fp32"), Step((SequenceStep(1, 1),), logit_rows=1))
    return {operator.name: (operator.n, operator.k) for operator in operators if isinstance(operator, GEMM)}
