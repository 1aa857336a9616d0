"""Which measured kernels stand for an operator's number types on a GPU."""

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.workload.operators import GEMM, ExpertMLP

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


# Format of ``moe_law.FORMATS``; others stand for integers by 8-bit integers and floats of 4 bits.
_EXPERT_KERNELS: dict[tuple[str, str], str] = {
    ("bf16", "bf16"): "bf16",
    ("fp16", "fp16"): "bf16",
    ("fp8", "fp8"): "fp8_block",
    ("fp4", "fp4"): "nvfp4",
    ("bf16", "int4"): "int4_wo",
    ("fp16", "int4"): "int4_wo",
    ("bf16", "fp4"): "int4_wo",
    ("fp16", "fp4"): "int4_wo",
    ("fp8", "fp4"): "int4_wo",
    ("int8", "int8"): "fp8_block",
    ("int8", "int4"): "int4_wo",
}


def expert_kernel(operator: ExpertMLP, sheet: DataSheet) -> tuple[str, str | None]:
    """Format of the fused kernel that stands for the operator, and a note if it computes in other types.

    Where tensor cores multiply 4-bit floats, weights of 4-bit floats run at that rate, whatever their inputs were.

    Raises
    ------
    ValueError : no kernel of experts multiplies these types, or the GPU computes in none of them.
    """
    types = (operator.input.number, operator.weight.number)
    found = _EXPERT_KERNELS.get(types)
    has_fp4 = "fp4" in sheet.operations_per_cycle_per_sm
    if found is None or (found == "nvfp4" and not has_fp4):
        raise ValueError(
            f"{operator.name}: {types[1]} weights by {types[0]} inputs run on no kernel of experts known here "
            f"({sheet.name})"
        )
    if types[1] == "fp4":
        found = "nvfp4" if has_fp4 else found
    is_exact = types in (("bf16", "bf16"), ("fp8", "fp8"), ("bf16", "int4"), ("fp4", "fp4"))
    note = f"experts of {types[1]} weights by {types[0]} inputs were not measured: {found} kernels stand for them"
    return found, None if is_exact else note
