"""How a benchmark keeps operands from staying in L2: it calls several copies of them in turn.

The same GEMM reads its weights at L2's speed or at the memory's, depending on that: on a GPU with 96 MiB of L2 four
copies of 24 MiB stay, and four of 28 MiB chase each other out. So a measured table means something only together with
its rotation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.gpu.gemm_format import GEMMFormat

FloatArray = NDArray[np.float64]
_BY_PLUGINS = ("int4_wo", "int8_wo", "sq")  # of TensorRT-LLM, which another collector measures


@dataclass(frozen=True)
class WeightRotation:
    """``most`` copies of a weight in turn or, with ``fills_l2``, as many up to that as cover L2 once.

    Attributes
    ----------
    inputs : every copy has an input of its own, too.
    """

    most: int = 1
    fills_l2: bool = False
    inputs: bool = False

    def copies(self, weight_bytes: FloatArray, l2_bytes: float) -> FloatArray:
        """How many copies of weights of these sizes are called in turn.

        >>> WeightRotation(5, fills_l2=True).copies(np.array([1.0, 30.0, 200.0]), 96.0)
        array([5., 4., 1.])
        """
        if not self.fills_l2:
            return np.full(np.shape(weight_bytes), float(self.most))
        return np.clip(np.ceil(l2_bytes / weight_bytes), 1.0, float(self.most))

    def working_set_bytes(
        self, m: FloatArray, n: FloatArray, k: FloatArray, form: GEMMFormat, l2_bytes: float
    ) -> FloatArray:
        """What is read and written until the same weight's turn comes again."""
        weight = form.weight_bytes * n * k
        copies = self.copies(weight, l2_bytes)
        inputs = (form.input_bytes + form.unquantized_bytes) * m * k
        return copies * weight + (copies if self.inputs else 1.0) * inputs + form.output_bytes * m * n


def rotation_of(backend: str, version: str, dtype: str) -> WeightRotation:
    """That of aiconfigurator's collectors (``collector/*/collect_gemm.py``); of others, one weight over and over."""
    if backend == "TRTLLM" and dtype not in _BY_PLUGINS:
        return WeightRotation(5, fills_l2=version.startswith("1.3."))
    if backend == "VLLM" and dtype not in ("fp8_block", "nvfp4"):
        return WeightRotation(6)
    return WeightRotation(6, inputs=True) if backend == "SGLang" else WeightRotation()
