"""What a serving engine adds to its kernels: a handful of constants per backend.

Fitted to public end-to-end measurements by ``benchmarks/hardware/gpu_end_to_end.py``, which also reports how they do on
models that they were not fitted to. ``TYPICAL`` lies between them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServingOverhead:
    """Seconds beside the kernels.

    Attributes
    ----------
    step_seconds : per step: scheduling and input copies, as far as they do not hide behind the GPU.
    sequence_seconds : per sequence of a step: sampling, detokenization, bookkeeping.
    quantization_seconds : saved per GEMM whose measured time includes quantizing its input, which engines fuse into the
        kernel before.
    request_seconds : once per request before its first step: HTTP, tokenization, admission.
    synchrony : share of the clients that send together because their last answers ended together; from 0 to 1.
    layer_seconds : per layer: gaps that no kernel measurement contains.
    prefill_seconds : per step with prefill tokens, which run without a recorded CUDA graph.
    """

    step_seconds: float
    sequence_seconds: float
    quantization_seconds: float
    request_seconds: float
    synchrony: float = 0.0
    layer_seconds: float = 1e-6
    prefill_seconds: float = 3e-3

    def seconds(self, layers: int, sequences: float, prefill: bool) -> float:
        """Of one step, beside its kernels."""
        found = self.step_seconds + layers * self.layer_seconds + sequences * self.sequence_seconds
        return found + (self.prefill_seconds if prefill else 0.0)


NONE = ServingOverhead(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
TYPICAL = ServingOverhead(0.42e-3, 15e-6, 6e-6, 60e-3, 0.15)
BY_BACKEND: dict[str, ServingOverhead] = {
    "trtllm": ServingOverhead(0.33e-3, 12.1e-6, 7.6e-6, 80e-3, 0.15),
    "vllm": ServingOverhead(0.47e-3, 15.2e-6, 6.9e-6, 54e-3, 0.14),
    "sglang": ServingOverhead(0.46e-3, 19.8e-6, 4.0e-6, 44e-3, 1.00),
}
