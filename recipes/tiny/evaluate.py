"""Measure an exported model with `transformers`: `python -m recipes.tiny.evaluate --help`.

Bits per byte of unseen text, needle retrieval by depth and length, and samples. Everything is computed from
the bf16 weights in the export; the arithmetic is fp32.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.result_file import describe_machine
from recipes.tiny.corpus import read_text, split_wikitext
from recipes.tiny.retrieval import STYLES, accuracy_grid, haystack_of
from recipes.tiny.tokenizer import ASSISTANT, BOS, END, USER, encode

ROOT = Path(__file__).parents[2]
LENGTHS = [256, 512, 1024, 1536, 2048]
DEPTHS = [round(0.1 * tenth, 1) for tenth in range(11)]
WINDOW, STRIDE = 2048, 1024

PROMPTS = [
    "The President of the United States said that",
    "In the summer of 1944, the ship was",
    "The film tells the story of a young man who",
    "Once upon a time, there was",
    "KING HENRY:",
]
QUESTIONS = [
    "Hello!",
    "Who are you?",
    "What is the capital of France?",
    "What is 7 plus 5?",
    "Repeat after me: silver fox and golden hill",
    "Name three colors.",
    "What is a lighthouse?",
    "Tell me a story.",
    "Write a letter to a friend.",
]


@torch.inference_mode()
def bits_per_byte(model: Any, tokenizer: Tokenizer, text: str) -> dict[str, float]:
    """Bits per UTF-8 byte of `text`: windows of 2,048 tokens that begin with BOS and move on by 1,024.

    Every token is predicted once; all but those of the first window have at least 1,023 tokens before them.
    """
    bos, tokens = tokenizer.token_to_id(BOS), encode(tokenizer, text)
    nats, scored = 0.0, 0
    while scored < len(tokens):
        end = min(len(tokens), (scored + STRIDE) if scored else WINDOW - 1)
        window = torch.tensor([[bos, *tokens[max(0, end - WINDOW + 1) : end]]])
        fresh = end - scored
        logits = model(window[:, :-1], logits_to_keep=fresh).logits[0]
        nats += float(torch.nn.functional.cross_entropy(logits, window[0, -fresh:], reduction="sum"))
        scored = end
    size = len(text.encode("utf-8"))
    return {
        "bits_per_byte": nats / math.log(2) / size,
        "nats_per_token": nats / len(tokens),
        "bytes": size,
        "tokens": len(tokens),
    }


def retrieval(model: Any, tokenizer: Tokenizer, data: Path, trials: int) -> dict[str, Any]:
    """Exact-match accuracy: a depth x length grid for numbers in two unseen haystacks, means by style."""

    def forward(tokens: Tensor) -> Tensor:
        logits: Tensor = model(tokens, logits_to_keep=32).logits
        return logits

    haystacks = {
        "needle_haystack_essays": haystack_of(read_text(data, "needle_haystack_essays"), tokenizer),
        "wikitext2_valid_tail": haystack_of(split_wikitext(read_text(data, "wikitext2_valid"))[1], tokenizer),
    }
    grids = {
        name: accuracy_grid(forward, haystack, tokenizer, LENGTHS, DEPTHS, trials, seed=2)
        for name, haystack in haystacks.items()
    }
    essays = haystacks["needle_haystack_essays"]
    styles = {
        style: accuracy_grid(forward, essays, tokenizer, LENGTHS, [0.1, 0.5, 0.9], trials, 3, style)
        .mean(0)
        .tolist()
        for style in STYLES
    }
    return {
        "lengths": LENGTHS,
        "depths": DEPTHS,
        "trials_per_cell": trials,
        "number": {name: grid.tolist() for name, grid in grids.items()},
        "number_mean": {name: float(grid.mean()) for name, grid in grids.items()},
        "by_style_and_length": styles,
    }


@torch.inference_mode()
def samples(model: Any, tokenizer: Tokenizer) -> dict[str, dict[str, str]]:
    """Completions sampled at temperature 0.7, top-p 0.9, and greedy chat replies."""

    def complete(prompt: str, count: int, **sampling: Any) -> str:
        tokens = torch.tensor([encode(tokenizer, prompt)])
        output = model.generate(
            tokens, max_new_tokens=count, attention_mask=torch.ones_like(tokens), **sampling
        )
        text: str = tokenizer.decode(output[0, tokens.shape[1] :].tolist())
        return text

    torch.manual_seed(0)
    return {
        "text": {p: complete(BOS + p, 80, do_sample=True, temperature=0.7, top_p=0.9) for p in PROMPTS},
        "chat": {q: complete(f"{BOS}{USER}{q}{END}{ASSISTANT}", 64, do_sample=False) for q in QUESTIONS},
    }


def evaluate(directory: Path, data: Path, trials: int) -> dict[str, Any]:
    """All measurements of the export in `directory`."""
    began = time.perf_counter()
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    _, tail = split_wikitext(read_text(data, "wikitext2_valid"))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights_bytes": (directory / "model.safetensors").stat().st_size,
        "window_tokens": WINDOW,
        "stride_tokens": STRIDE,
        "text": {
            "wikitext2_test": bits_per_byte(model, tokenizer, read_text(data, "wikitext2_test")),
            "wikitext2_valid_tail": bits_per_byte(model, tokenizer, tail),
        },
        "retrieval": retrieval(model, tokenizer, data, trials),
        "samples": samples(model, tokenizer),
        "machine": describe_machine(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m recipes.tiny.evaluate", description="Measure an exported model."
    )
    parser.add_argument(
        "model", type=Path, nargs="?", default=ROOT / "src/lapidist/bundled/tiny", help="the export"
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT / "../shared/data/text", help="folder with the *.txt.gz texts"
    )
    parser.add_argument(
        "--trials", type=int, default=10, help="probes per depth and length (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results/tiny_model.json", help="results file"
    )
    given = parser.parse_args(arguments)
    if not (given.model / "model.safetensors").is_file():
        print(
            f"no model.safetensors in {given.model}; write one with python -m recipes.tiny.export",
            file=sys.stderr,
        )
        return 2
    try:
        results = evaluate(given.model, given.data, given.trials)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    given.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = given.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, given.out)
    for name, text in results["text"].items():
        print(f"{name}: {text['bits_per_byte']:.4f} bits per byte")
    for name, mean in results["retrieval"]["number_mean"].items():
        print(f"{name}: {mean:.1%} of needles found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
