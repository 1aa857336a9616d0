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
        weights of 8 bits or more, and of 4. Texts may choose fewer experts than the measured routing does.
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
    ("trtllm", False): ExpertOverhead(0.574, 1.051, 0.824, 0.097e-6, 16.9e-6, 92e-6),
    ("trtllm", True): ExpertOverhead(1.000, 0.502, 0.833, 0.031e-6, 0.0, 0.0),
    ("vllm", False): ExpertOverhead(1.043, 0.622, 1.348, 0.068e-6, 9.1e-6, 45e-6),
    ("vllm", True): ExpertOverhead(1.103, 0.504, 1.222, 0.084e-6, 10.3e-6, 207e-6),
    ("sglang", False): ExpertOverhead(1.034, 0.800, 1.332, 0.098e-6, 10.5e-6, 10e-6),
}
# Between the engines of a generation.
TYPICAL: dict[bool, ExpertOverhead] = {
    False: ExpertOverhead(0.88, 0.82, 1.17, 0.088e-6, 12.2e-6, 49e-6),
    True: ExpertOverhead(1.05, 0.503, 1.03, 0.058e-6, 5.2e-6, 104e-6),
}


def expert_overhead(backend: str | None, architecture: str) -> ExpertOverhead:
    """Of an engine on GPUs of an architecture; typical where the engine was not measured there."""
    is_blackwell = architecture == "blackwell"
    return BY_BACKEND.get((backend or "", is_blackwell), TYPICAL[is_blackwell])
