"""A GPU that runs decoders whose MLP is a mixture of experts: ``MoEGPU(GPU("h200", "vllm"), layer).step(operators)``.

The operators are those of ``workload.lower`` for a dense decoder of the same shape. Router and experts take the place
of its MLP; all else is the GPU's own, the all-reduce after the MLP included, which experts need too, whether their
inner size or the experts themselves are divided over the ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lapidist.hardware.estimate import Estimate
from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.moe_predictor import MoEPredictor, moe_predictor
from lapidist.workload.operators import GEMM, Operator

_MLP = ("gate_up_proj", "down_proj", "activation")
ROUTER, EXPERTS = "router", "experts"


@dataclass(frozen=True)
class ExpertLayer:
    """The experts of every layer of a model, on one rank.

    Attributes
    ----------
    dtype : format of ``moe_law.FORMATS``.
    tensor_parallel, expert_parallel : ranks that the experts' inner size and the experts are divided over.
    skew : exponent of the power law that routing follows; 0 is balanced.
    """

    hidden: int
    inner: int
    top_k: int
    experts: int
    dtype: str
    tensor_parallel: int = 1
    expert_parallel: int = 1
    skew: float = 1.01


class MoEGPU:
    """Costs steps of one model; what a number of tokens takes in the experts is predicted once."""

    def __init__(self, gpu: GPU, layer: ExpertLayer) -> None:
        self.gpu, self.layer = gpu, layer
        self._predictor: MoEPredictor = moe_predictor(gpu.sheet)
        self._seconds: dict[int, float] = {}
        self._notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.gpu.name

    @property
    def sheet(self) -> DataSheet:
        return self.gpu.sheet

    def step(self, operators: Sequence[Operator]) -> Estimate:
        """Cost of one step; the experts draw the power that the rest of the step does.

        Raises
        ------
        ValueError : the GPU cannot compute in an operator's number types.
        """
        kept: list[Operator] = []
        tokens = layers = 0
        for operator in operators:
            if operator.name not in _MLP:
                kept.append(operator)
            elif isinstance(operator, GEMM) and operator.name == "gate_up_proj":
                tokens, layers = operator.m, operator.count
                kept.append(self._router(operator))
        estimate = self.gpu.step(kept)
        if not tokens:
            return estimate
        added = layers * self._expert_seconds(tokens)
        share = (estimate.seconds + added) / estimate.seconds
        interval = estimate.interval_seconds
        return replace(
            estimate,
            seconds=estimate.seconds + added,
            joules=estimate.joules * share,
            breakdown={**estimate.breakdown, EXPERTS: added},
            interval_seconds=None if interval is None else (interval[0] * share, interval[1] * share),
            low_confidence=tuple(sorted({*estimate.low_confidence, *self._notes})),
        )

    def _router(self, mlp: GEMM) -> GEMM:
        """It stays in the float type of the hidden states."""
        plain = mlp.output
        n, k = self.layer.experts, self.layer.hidden
        return replace(mlp, name=ROUTER, n=n, k=k, bias=False, input=plain, weight=plain)

    def _expert_seconds(self, tokens: int) -> float:
        if tokens not in self._seconds:
            each = self.layer
            found = self._predictor.predict(
                tokens,
                each.hidden,
                each.inner,
                each.top_k,
                each.experts,
                each.tensor_parallel,
                each.expert_parallel,
                each.skew,
                each.dtype,
            )
            self._seconds[tokens], self._notes = float(found.seconds[0]), found.notes
        return self._seconds[tokens]
