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
    few_rows, few_rows_4bit : factor where an expert gets few rows, so that reading weights is what takes time; of
        weights of 8 bits or more, and of 4. Texts choose fewer experts than the measured routing does.
    many_rows : factor where an expert gets many rows.
    token_seconds : per token and layer, on every rank: choosing experts, sorting, quantizing and adding up rows.
    layer_seconds : per layer: what precedes and follows the kernels.
    prefill_seconds : per layer of a step with prefill tokens, which run without a recorded CUDA graph.
    """

    few_rows: float
    few_rows_4bit: float
    many_rows: float
    token_seconds: float
    layer_seconds: float
    prefill_seconds: float

    def seconds(
        self, kernel_seconds: float, tokens: int, rows_per_expert: float, weight_bits: float
    ) -> float:
        """Of the experts of one layer, from their measured kernel; ``rows_per_expert`` of an even routing."""
        few = self.few_rows_4bit if weight_bits <= 4 else self.few_rows
        share = rows_per_expert / (rows_per_expert + _FULL_TILE_ROWS)
        factor = few + (self.many_rows - few) * share
        return factor * kernel_seconds + tokens * self.token_seconds + self.layer_seconds


AS_MEASURED = ExpertOverhead(1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
# Of an engine, and whether on Blackwell.
BY_BACKEND: dict[tuple[str, bool], ExpertOverhead] = {
    ("trtllm", False): ExpertOverhead(0.65, 1.10, 0.83, 0.08e-6, 10e-6, 90e-6),
    ("trtllm", True): ExpertOverhead(1.00, 0.65, 0.86, 0.03e-6, 0.0, 0.0),
    ("vllm", False): ExpertOverhead(1.15, 0.77, 1.17, 0.05e-6, 2e-6, 0.0),
    ("vllm", True): ExpertOverhead(0.98, 0.56, 0.98, 0.03e-6, 9e-6, 230e-6),
    ("sglang", False): ExpertOverhead(1.06, 0.90, 1.18, 0.07e-6, 8e-6, 220e-6),
}
# Between the engines of a generation.
TYPICAL: dict[bool, ExpertOverhead] = {
    False: ExpertOverhead(0.95, 0.90, 1.05, 0.07e-6, 7e-6, 100e-6),
    True: ExpertOverhead(1.00, 0.60, 0.92, 0.03e-6, 5e-6, 120e-6),
}


def expert_overhead(backend: str | None, architecture: str) -> ExpertOverhead:
    """Of an engine on GPUs of an architecture; typical where the engine was not measured there."""
    is_blackwell = architecture == "blackwell"
    return BY_BACKEND.get((backend or "", is_blackwell), TYPICAL[is_blackwell])
