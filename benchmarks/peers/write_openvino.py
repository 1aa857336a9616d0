"""Write a checkpoint (Hugging Face directory) as an OpenVINO model with 4-bit weights, by OpenVINO's own exporter.

    python -m venv /tmp/openvino && /tmp/openvino/bin/pip install torch 'transformers<5.6' openvino-genai nncf requests
    /tmp/openvino/bin/pip install --no-deps optimum optimum-intel
    /tmp/openvino/bin/python -m benchmarks.peers.write_openvino CHECKPOINT OUT

The exporter wants an older transformers than we test with and a torchvision that it does not use for text, hence the
environment of its own, for this step only. Weights are symmetric in groups of 128, the exporter's usual choice for
speed; embeddings and head have 8 bits.
"""

import argparse
import os
import shutil
from pathlib import Path

import openvino
from openvino_tokenizers import convert_tokenizer
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from transformers import AutoTokenizer


def write_openvino(checkpoint: Path, out: Path, group_size: int) -> None:
    """Convert ``checkpoint``; ``out`` appears complete or not at all.

    Raises
    ------
    FileExistsError : ``out`` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    quantization = OVWeightQuantizationConfig(bits=4, sym=True, group_size=group_size, ratio=1.0)
    try:
        model = OVModelForCausalLM.from_pretrained(
            checkpoint, export=True, quantization_config=quantization, compile=False
        )
        model.save_pretrained(temporary)
        both = convert_tokenizer(AutoTokenizer.from_pretrained(checkpoint), with_detokenizer=True)
        for part, name in zip(both, ("tokenizer", "detokenizer"), strict=True):
            openvino.save_model(part, temporary / f"openvino_{name}.xml")
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--group-size", type=int, default=128, help="-1 gives a scale to each output channel")
    args = parser.parse_args()
    write_openvino(args.checkpoint, args.out, args.group_size)
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.iterdir()) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
