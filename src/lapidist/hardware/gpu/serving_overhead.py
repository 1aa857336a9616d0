"""What a serving engine adds to its kernels: a handful of constants per backend.

Fitted to public end-to-end measurements by ``benchmarks/hardware/gpu_end_to_end.py``, which also reports how they do on
models and GPUs that they were not fitted to. ``TYPICAL`` lies between them.
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
    layer_seconds : per layer: gaps that no kernel measurement contains.
    prefill_seconds : per step with prefill tokens, which run without a recorded CUDA graph.
    """

    step_seconds: float
    sequence_seconds: float
    quantization_seconds: float
    request_seconds: float
    layer_seconds: float = 1e-6
    prefill_seconds: float = 4e-3

    def seconds(self, layers: int, sequences: float, prefill: bool) -> float:
        """Of one step, beside its kernels."""
        found = self.step_seconds + layers * self.layer_seconds + sequences * self.sequence_seconds
        return found + (self.prefill_seconds if prefill else 0.0)


NONE = ServingOverhead(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
TYPICAL = ServingOverhead(0.41e-3, 15e-6, 7.3e-6, 24e-3, 0.8e-6, 4.7e-3)
BY_BACKEND: dict[str, ServingOverhead] = {
    "trtllm": ServingOverhead(0.38e-3, 9.6e-6, 6.9e-6, 28e-3, 0.85e-6, 4.2e-3),
    "vllm": ServingOverhead(0.54e-3, 18.7e-6, 7.9e-6, 17e-3, 1.3e-6, 5.4e-3),
    "sglang": ServingOverhead(0.30e-3, 16.4e-6, 7.0e-6, 28e-3, 0.3e-6, 4.4e-3),
}
