"""What a serving engine adds to its kernels: a handful of constants per backend.

Fitted to end-to-end measurements of the training models of ``benchmarks/hardware/gpu_end_to_end.py``: what those need
beside their operators. ``TYPICAL`` is between them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServingOverhead:
    """Seconds beside the kernels.

    Attributes
    ----------
    step_seconds : per step: scheduling, input copies, sampling, as far as they do not hide behind the GPU.
    layer_seconds : per layer: gaps between kernels that no kernel measurement contains.
    prefill_seconds : once per step with prefill tokens: those run without a recorded CUDA graph.
    request_seconds : once per request before its first token: HTTP, tokenization, waiting for the step that runs.
    slowdown : of the kernels in a step over the same kernels replayed alone.
    """

    step_seconds: float
    layer_seconds: float
    prefill_seconds: float
    request_seconds: float
    slowdown: float = 1.0


TYPICAL = ServingOverhead(1.0e-3, 4e-6, 4e-3, 20e-3, 1.05)
BY_BACKEND: dict[str, ServingOverhead] = {}
