"""torchao's linear layers of 4-bit weights and 8-bit activations, on the CPU.

torchao has an integer kernel for the CPU (``da8w4_linear_cpu``), which its wheels leave out
(https://github.com/pytorch/ao/issues/2378). Without it torchao keeps a byte for each code, and at every call
dequantizes weights and activations and multiplies them in floating point.
"""

import torch
from torch import Tensor
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
from torchao.quantization.granularity import PerGroup

_GROUP_SIZE = 128


def has_integer_kernel() -> bool:
    return "CPU" in torch._C._dispatch_dump("torchao::da8w4_linear_cpu")


class TorchaoLinear:
    """A weight, float32 ``[outputs, columns]``, as a layer of ``quantized_gemm``.

    Raises
    ------
    RuntimeError : the integer kernel is wanted, and this build of torchao has none.
    """

    def __init__(self, weight: Tensor, integer: bool = False) -> None:
        outputs, columns = weight.shape
        self._layer = torch.nn.Linear(columns, outputs, bias=False, device="meta")
        self._layer.weight = torch.nn.Parameter(weight.bfloat16(), requires_grad=False)
        code_bytes = outputs * columns // 2 if integer else outputs * columns
        self.weight_bytes = code_bytes + outputs * columns // _GROUP_SIZE * 2
        quantize_(self._layer, _integer_config() if integer else _dequantizing_config())

    def prepare(self, x: Tensor) -> Tensor:
        """``x`` is ``[rows, columns]``."""
        return x.bfloat16()

    def run(self, x: Tensor) -> Tensor:
        """bfloat16 ``[rows, outputs]``."""
        with torch.inference_mode():
            return self._layer(x)


def _dequantizing_config() -> Int8DynamicActivationIntxWeightConfig:
    return Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=PerGroup(_GROUP_SIZE),
    )


def _integer_config() -> object:
    if not has_integer_kernel():
        raise RuntimeError(
            "this build of torchao has no da8w4_linear_cpu: build it from source with USE_CPU_KERNELS=1"
        )
    from torchao.prototype.quantization.int4.inference_workflow import Int8DynamicActivationInt4WeightConfig

    return Int8DynamicActivationInt4WeightConfig(group_size=_GROUP_SIZE)
