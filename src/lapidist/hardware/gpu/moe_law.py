"""The physics of a fused mixture-of-experts layer: routed rows in tiles per expert, active experts' weights, launch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.data_sheet import ComputeType, DataSheet

FloatArray = NDArray[np.float64]
_LARGEST = 1 << 24
# Format: compute type and bytes of a weight, scales included.
FORMATS: dict[str, tuple[ComputeType, float]] = {
    "bf16": ("bf16", 2.0),
    "fp8_block": ("fp8", 1.0),
    "int4_wo": ("bf16", 0.5625),
    "mxfp4": ("bf16", 0.53125),
    "nvfp4": ("fp4", 0.5625),
}
FEATURES = 22


@dataclass(frozen=True, eq=False)
class MoEShapes:
    """Arrays of one shape: one element is the gate, up and down projections of one layer's experts on one rank.

    Attributes
    ----------
    tokens : of the batch, before routing; each goes to ``top_k`` of ``experts``.
    tensor_parallel, expert_parallel : ranks that the experts' inner size and the experts are divided over.
    skew : exponent of the power law that routing follows; 0 is balanced.
    """

    tokens: FloatArray
    hidden: FloatArray
    inner: FloatArray
    top_k: FloatArray
    experts: FloatArray
    tensor_parallel: FloatArray
    expert_parallel: FloatArray
    skew: FloatArray

    @staticmethod
    def of(
        tokens: ArrayLike,
        hidden: ArrayLike,
        inner: ArrayLike,
        top_k: ArrayLike,
        experts: ArrayLike,
        tensor_parallel: ArrayLike = 1,
        expert_parallel: ArrayLike = 1,
        skew: ArrayLike = 0.0,
    ) -> "MoEShapes":
        """Checked and broadcast to one dimension.

        Raises
        ------
        ValueError : a value out of range, more choices than experts, or more ranks than experts.
        """
        names = (
            "tokens",
            "hidden",
            "inner",
            "top_k",
            "experts",
            "tensor_parallel",
            "expert_parallel",
            "skew",
        )
        given = (tokens, hidden, inner, top_k, experts, tensor_parallel, expert_parallel, skew)
        arrays = []
        for name, values in zip(names, given, strict=True):
            array = np.atleast_1d(np.asarray(values, dtype=float))
            least = 0.0 if name == "skew" else 1.0
            if not ((array >= least) & (array <= _LARGEST)).all():
                raise ValueError(
                    f"{name} must be a number from {least:g} to {_LARGEST}, got {values!r}"[:200]
                )
            arrays.append(array)
        shapes = MoEShapes(*np.broadcast_arrays(*arrays))
        if (shapes.top_k > shapes.experts).any():
            raise ValueError("top_k must not exceed experts")
        if (shapes.expert_parallel > shapes.experts).any():
            raise ValueError("expert_parallel must not exceed experts")
        return shapes

    @property
    def rows(self) -> FloatArray:
        """Routed rows of one rank, on average."""
        return self.tokens * self.top_k / self.expert_parallel

    @property
    def local_experts(self) -> FloatArray:
        return np.ceil(self.experts / self.expert_parallel)

    @property
    def active_experts(self) -> FloatArray:
        """Experts of a rank that at least one row is expected to reach, routing being uniform."""
        missed = np.exp(self.tokens * np.log1p(-np.minimum(self.top_k / self.experts, 1 - 1e-12)))
        return self.local_experts * (1 - missed)

    @property
    def local_inner(self) -> FloatArray:
        return np.maximum(1.0, self.inner / self.tensor_parallel)


@dataclass(frozen=True, eq=False)
class MoETerms:
    """Seconds at full rates, the law's time, and features of what it leaves over ``[rows, FEATURES]``."""

    law: FloatArray
    bound: FloatArray
    features: FloatArray


def moe_terms(shapes: MoEShapes, dtype: str, sheet: DataSheet) -> MoETerms:
    """``T = launch + hypot(T_compute / 0.6, T_memory / 0.75)``; trees know the rest.

    Raises
    ------
    ValueError : an unknown format.
    """
    if dtype not in FORMATS:
        raise ValueError(f"unknown MoE format {dtype!r}; known are {', '.join(FORMATS)}")
    s = shapes
    compute, weight_bytes = FORMATS[dtype]
    kind = compute if compute in sheet.operations_per_cycle_per_sm else "bf16"
    rate = sheet.operations_per_second(kind)
    elements = 3 * s.hidden * s.local_inner
    flops = 2 * elements * s.rows
    per_expert = s.rows / s.active_experts
    padded = s.active_experts * np.ceil(per_expert / 16) * 16
    weights = s.active_experts * elements * weight_bytes
    moved = weights + s.rows * (2 * s.hidden + 3 * s.local_inner) * 2
    arithmetic, memory = flops / rate, moved / sheet.memory_bytes_per_second
    law = 15e-6 + np.hypot(arithmetic / 0.6, memory / 0.75)
    tiles = s.active_experts * np.ceil(per_expert / 64) * np.ceil(2 * s.local_inner / 128)
    waves = tiles / sheet.sms
    columns = (
        np.log2(s.tokens),
        np.log2(s.rows),
        np.log2(s.active_experts),
        np.log2(s.local_experts),
        np.log2(per_expert),
        np.log2(padded / s.rows),
        np.log2(s.hidden),
        np.log2(s.local_inner),
        np.log2(s.top_k),
        np.log2(s.experts),
        s.skew,
        s.skew * np.log2(s.expert_parallel),
        np.log2(s.expert_parallel),
        np.log2(waves),
        np.ceil(waves) / waves,
        np.log2(arithmetic / memory),
        np.log2(arithmetic),
        np.log2(memory),
        np.log2(weights / sheet.l2_bytes),
        np.full(s.tokens.shape, float(list(FORMATS).index(dtype))),
        np.full(s.tokens.shape, np.log2(rate / sheet.memory_bytes_per_second)),
        np.full(s.tokens.shape, float(sheet.sms)),
    )
    # No kernel computes less than one row per token, or reads less than one expert's weights beyond L2.
    one_expert = np.maximum(elements * weight_bytes - sheet.l2_bytes, 0.0) / sheet.memory_bytes_per_second
    top_rate = sheet.operations_per_second(kind, "max")
    bound = np.maximum(2 * elements * s.rows / top_rate, one_expert)
    # Under skewed or unlucky routing a rank may see fewer rows than the average one.
    bound = np.where(s.expert_parallel > 1, np.minimum(bound, law), bound)
    return MoETerms(law, bound, np.column_stack(columns))
