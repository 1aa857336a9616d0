"""Which measured kernels stand for a GEMM operator's number types on a GPU."""

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.workload.operators import GEMM

_KERNELS: dict[tuple[str, str], tuple[str, ...]] = {
    ("fp32", "fp32"): ("fp32",),
    ("bf16", "bf16"): ("bf16",),
    ("fp16", "fp16"): ("fp16",),
    ("fp8", "fp8"): ("fp8",),
    ("fp4", "fp4"): ("nvfp4",),
    ("int8", "int8"): ("sq",),
    ("int8", "int4"): ("int4_wo", "sq"),
    ("bf16", "int8"): ("int8_wo",),
    ("fp16", "int8"): ("int8_wo",),
    ("bf16", "int4"): ("int4_wo",),
    ("fp16", "int4"): ("int4_wo",),
}


def gemm_kernels(gemm: GEMM, sheet: DataSheet) -> tuple[str, ...]:
    """Names of GEMM formats; of several the faster one stands for the operator.

    Raises
    ------
    ValueError : no GPU kernel multiplies these types; the sentence names the operator.
    """
    found = _KERNELS.get((gemm.input.number, gemm.weight.number))
    if found is None:
        raise ValueError(
            f"{gemm.name}: {gemm.weight.number} weights by {gemm.input.number} inputs run on no GPU kernel known here "
            f"({sheet.name})"
        )
    return found
