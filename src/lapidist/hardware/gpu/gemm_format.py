"""The number formats a GEMM kernel is measured in: what is read, what is computed in, what is written."""

from dataclasses import dataclass

from lapidist.hardware.gpu.data_sheet import ComputeType


@dataclass(frozen=True)
class GEMMFormat:
    """Formats of ``output [m, n] = input [m, k] @ weight [n, k].T``.

    Attributes
    ----------
    compute : what the arithmetic units multiply.
    input_bytes, weight_bytes, output_bytes : of one element in memory, scales included.
    quantizes_input : the measured time includes turning a 16-bit input into ``compute``, which is launched apart.
    """

    name: str
    compute: ComputeType
    input_bytes: float
    weight_bytes: float
    output_bytes: float
    quantizes_input: bool = False

    @property
    def unquantized_bytes(self) -> float:
        """Of an element of the 16-bit input that is quantized first; 0 where it is not."""
        return 2.0 if self.quantizes_input else 0.0


GEMM_FORMATS: dict[str, GEMMFormat] = {
    each.name: each
    for each in (
        GEMMFormat("fp32", "fp32", 4, 4, 4),
        GEMMFormat("fp16", "fp16", 2, 2, 2),
        GEMMFormat("bf16", "bf16", 2, 2, 2),
        GEMMFormat("fp8", "fp8", 1, 1, 2, quantizes_input=True),
        GEMMFormat("fp8_static", "fp8", 1, 1, 2, quantizes_input=True),
        GEMMFormat("fp8_block", "fp8", 1, 1, 2, quantizes_input=True),
        GEMMFormat("nvfp4", "fp4", 0.5625, 0.5625, 2, quantizes_input=True),
        GEMMFormat("int8_wo", "bf16", 2, 1, 2),
        GEMMFormat("int4_wo", "bf16", 2, 0.5, 2),
        GEMMFormat("sq", "int8", 1, 1, 2),
    )
}
_ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "smoothquant": "sq",
    "w8a8": "sq",
    "w8a16": "int8_wo",
    "w4a16": "int4_wo",
}


def gemm_format(name: str) -> GEMMFormat:
    """The format of a name as measured tables spell it; ``bfloat16`` and the like are understood.

    Raises
    ------
    ValueError : no such format.
    """
    plain = name.strip().casefold()
    found = GEMM_FORMATS.get(_ALIASES.get(plain, plain))
    if found is None:
        raise ValueError(f"unknown GEMM format {name!r}; known are {', '.join(GEMM_FORMATS)}")
    return found
