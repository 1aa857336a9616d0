"""What a serving engine makes of a mixture of experts: its kernels beside the measured ones, and what lies around them.

Fitted to public end-to-end measurements by ``benchmarks/hardware/gpu_end_to_end_moe.py``, which also reports how they
do on models and GPUs that they were not fitted to. Engines run other kernels of experts on Blackwell than before, so
each has a set of constants there.
"""

from dataclasses import dataclass

_FULL_TILE_ROWS = 16


@dataclass(frozen=True)
class ExpertOverhead:
    """Factors on measured kernels, and seconds beside them.

    Attributes
    ----------
    few_rows, many_rows : factor where an expert gets few rows, so that reading weights is what takes time, and where it
        gets many. Texts may choose fewer experts than the measured routing does.
    few_rows_fp4, many_rows_fp4 : the same of weights in 4-bit floats, whose kernels were not measured themselves.
    token_seconds : per token and layer, on every rank: choosing experts, sorting, quantizing and adding up rows.
    layer_seconds : per layer: what precedes and follows the kernels.
    prefill_seconds : per layer of a step with prefill tokens, which run without a recorded CUDA graph.
    """

    few_rows: float
    many_rows: float
    few_rows_fp4: float
    many_rows_fp4: float
    token_seconds: float
    layer_seconds: float
    prefill_seconds: float

    def seconds(self, kernel_seconds: float, tokens: int, rows_per_expert: float, is_fp4: bool) -> float:
        """Of the experts of one layer, from their measured kernel; ``rows_per_expert`` of an even routing."""
        few, many = (self.few_rows_fp4, self.many_rows_fp4) if is_fp4 else (self.few_rows, self.many_rows)
        share = rows_per_expert / (rows_per_expert + _FULL_TILE_ROWS)
        factor = few + (many - few) * share
        return factor * kernel_seconds + tokens * self.token_seconds + self.layer_seconds


AS_MEASURED = ExpertOverhead(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
# Of an engine, and whether on Blackwell.
BY_BACKEND: dict[tuple[str, bool], ExpertOverhead] = {
    ("trtllm", False): ExpertOverhead(0.61, 0.66, 1.01, 1.06, 0.048e-6, 14.2e-6, 163e-6),
    ("trtllm", True): ExpertOverhead(1.00, 1.00, 0.57, 0.83, 0.031e-6, 0.0, 0.0),
    ("vllm", False): ExpertOverhead(1.04, 0.96, 0.61, 1.27, 0.063e-6, 9.3e-6, 201e-6),
    ("vllm", True): ExpertOverhead(1.06, 1.21, 0.66, 0.88, 0.077e-6, 8.8e-6, 233e-6),
    ("sglang", False): ExpertOverhead(1.03, 1.24, 0.80, 1.00, 0.076e-6, 10.7e-6, 184e-6),
}
# Between the engines of a generation.
TYPICAL: dict[bool, ExpertOverhead] = {
    False: ExpertOverhead(0.90, 0.95, 0.81, 1.11, 0.062e-6, 11.4e-6, 183e-6),
    True: ExpertOverhead(1.03, 1.11, 0.62, 0.85, 0.054e-6, 4.4e-6, 116e-6),
}


def expert_overhead(backend: str | None, architecture: str) -> ExpertOverhead:
    """Of an engine on GPUs of an architecture; typical where the engine was not measured there."""
    is_blackwell = architecture == "blackwell"
    return BY_BACKEND.get((backend or "", is_blackwell), TYPICAL[is_blackwell])
