"""Quantize a GGUF file as llama.cpp's own tool does, without importance matrix.

    python -m benchmarks.peers.quantize_gguf MODEL.bf16.gguf q4_0 q4_k_m

writes ``MODEL.q4_0.gguf`` and ``MODEL.q4_k_m.gguf`` beside it. The ``pure`` types give embeddings and head four
bits too, where llama.cpp's tool would spend six on them: fewer bytes to read for each token, at some loss of quality.
"""

import argparse
import os
from pathlib import Path

import llama_cpp

from benchmarks.peers.run_llama_cpp import silence

# llama.cpp's file type, and whether every matrix has it.
FILE_TYPES = {
    "q4_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, False),
    "q4_0_pure": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True),
    "q4_k_m": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, False),
    "q4_k_pure": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S, True),
    "q8_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, False),
}


def quantized_gguf(source: Path, file_type: str, threads: int = 0) -> Path:
    """The file of that type beside ``source``, written when it is absent or older; complete or not at all.

    Raises
    ------
    ValueError : there is no such file type.
    RuntimeError : llama.cpp cannot quantize ``source``.
    """
    if file_type not in FILE_TYPES:
        raise ValueError(f"file type {file_type!r} is not one of {', '.join(FILE_TYPES)}")
    out = source.with_name(f"{source.name.removesuffix('.gguf').removesuffix('.bf16')}.{file_type}.gguf")
    if out.exists() and out.stat().st_mtime >= source.stat().st_mtime:
        return out
    silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.pure = FILE_TYPES[file_type]
    params.nthread = threads
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        if llama_cpp.llama_model_quantize(str(source).encode(), str(temporary).encode(), params):
            raise RuntimeError(f"{source}: llama.cpp cannot quantize it to {file_type}")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("file_types", nargs="+", choices=FILE_TYPES)
    args = parser.parse_args()
    for file_type in args.file_types:
        out = quantized_gguf(args.source, file_type)
        print(f"{out}: {out.stat().st_size / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
