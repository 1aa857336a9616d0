"""The FLOPs of steps that the engine recorded equal what PyTorch counted while it ran them."""

import random
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from lapidist import LLM, SamplingParams
from lapidist.models.random_checkpoint import write_random_checkpoint
from lapidist.models.shapes import shape_config
from lapidist.workload import Recipe, lower, read_steps
from lapidist.workload.operators import GEMM, Attention, total_flops

SMALL = {
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = {
    "llama-3.2-1b": {},
    "mistral-7b": {"sliding_window": 7},
    "qwen2.5-0.5b": {},
    "qwen3-0.6b": {},
    "phi-3-mini-4k": {"sliding_window": 9, "head_dim": 8},
    "gemma-2-2b": {"sliding_window": 7},
}


def recording(folder: Path) -> LLM:
    """The model in a folder; a small token budget cuts prompts into chunks that share steps with decodes."""
    return LLM(
        folder / "model",
        max_num_batched_tokens=24,
        max_num_seqs=8,
        kv_cache_bytes=1 << 24,
        record=folder / "steps.jsonl",
    )


@pytest.mark.parametrize("shape", FAMILIES)
def test_a_recorded_run_costs_what_pytorch_counts(shape: str, tmp_path: Path) -> None:
    write_random_checkpoint(
        shape_config(shape) | SMALL | FAMILIES[shape], tmp_path / "model", dtype="float32"
    )
    llm = recording(tmp_path)
    rng = random.Random()
    prompts = [{"prompt_token_ids": rng.choices(range(3, 300), k=rng.randint(1, 60))} for _ in range(7)]
    params = [SamplingParams(temperature=0, max_tokens=rng.randint(1, 12), ignore_eos=True) for _ in prompts]
    with FlopCounterMode(display=False) as counter:
        llm.generate(prompts, params)
    llm.engine.close()
    steps = list(read_steps(tmp_path / "steps.jsonl"))
    recipe = Recipe.named("fp32")
    operators = [operator for step in steps for operator in lower(llm.engine.config, recipe, step)]
    assert len(steps) > 5
    assert sum(step.logit_rows for step in steps) == sum(own.max_tokens or 0 for own in params)
    assert total_flops(o for o in operators if isinstance(o, GEMM | Attention)) == counter.get_total_flops()
    assert all(step.duration_seconds is not None and step.duration_seconds > 0 for step in steps)


FILTERS: list[dict[str, object]] = [
    {"method": "gemfilter", "layer": 1, "keep": 20},
    {"method": "gemfilter", "layer": 2, "keep": 0.3, "softmax": True, "window": 5},
    {"method": "gemfilter", "layer": 0, "keep": 9, "window": 3},
    {"method": "adaptive", "least": 8, "first_layer": 1, "last_layer": 2, "gain": 1.0},
    {"method": "snapkv", "keep": 16, "window": 4},
    {"method": "h2o", "keep": 16, "recent": 4},
    {"method": "streamingllm", "keep": 12},
    {"method": "fastkv", "keep": 12, "layer": 0, "window": 4},
]


@pytest.mark.parametrize("shape", ["llama-3.2-1b", "qwen3-0.6b", "gemma-2-2b"])
def test_filters_are_recorded(shape: str, tmp_path: Path) -> None:
    """Prompts of all methods among plain ones, few pages, chunks."""
    # Heads so wide that the CPU kernel's blocks of weights end where keys do: it always runs whole blocks.
    changes: dict[str, object] = {"head_dim": 32}
    if shape == "gemma-2-2b":
        changes["sliding_window"] = 7
    write_random_checkpoint(shape_config(shape) | SMALL | changes, tmp_path / "model", dtype="float32")
    llm = recording(tmp_path)
    rng = random.Random()
    # While deeper layers of FastKV run on gaps, a window may hide none.
    able = [own for own in FILTERS if own["method"] != "fastkv" or "sliding_window" not in changes]
    filters = [None, *able, *able]
    prompts = [{"prompt_token_ids": rng.choices(range(3, 300), k=rng.randint(1, 90))} for _ in filters]
    params = [
        SamplingParams(temperature=0, max_tokens=rng.randint(1, 6), ignore_eos=True, prompt_filter=own)  # type: ignore[arg-type]
        for own in filters
    ]
    with FlopCounterMode(display=False) as counter:
        llm.generate(prompts, params)
    llm.engine.close()
    steps = list(read_steps(tmp_path / "steps.jsonl"))
    recipe = Recipe.named("fp32")
    operators = [operator for step in steps for operator in lower(llm.engine.config, recipe, step)]
    assert total_flops(o for o in operators if isinstance(o, GEMM | Attention)) == counter.get_total_flops()
    assert {work.work for step in steps for work in step.filters} >= {
        "layer",
        "keys",
        "queries",
        "raw_scores",
    }
