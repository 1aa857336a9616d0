"""Our logits equal those of ``transformers``: every family, every RoPE scaling, however the work is cut."""

import random
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from lapidist.models.decoder import Decoder
from lapidist.models.load import load_decoder
from tests.family_checkpoints import VARIANTS, build, save
from tests.paged_decoding import logits_in_steps

# Past the sliding windows, and past the original contexts and (llama-dynamic) the context itself.
LENGTH = 72
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def pair(variant: str, directory: Path) -> tuple[torch.nn.Module, Decoder]:
    model = build(VARIANTS[variant], seed=random.randrange(1 << 30))
    return model, load_decoder(save(model, directory))


def random_tokens() -> list[int]:
    return torch.randint(1, 131, (LENGTH,)).tolist()


def random_cuts(length: int) -> list[int]:
    cuts = []
    while sum(cuts) < length:
        cuts.append(min(random.randint(1, 17), length - sum(cuts)))
    return cuts


def distance(ours: Tensor, theirs: Tensor) -> float:
    assert ours.dtype == torch.float32
    assert theirs.std() > 0.5, "logits this flat would prove nothing"
    return (ours - theirs).abs().max().item()


def test_prompt_at_once_and_in_chunks(variant: str, tmp_path: Path) -> None:
    model, decoder = pair(variant, tmp_path)
    tokens = random_tokens()
    theirs = model(torch.tensor([tokens])).logits[0]
    assert distance(logits_in_steps(decoder, tokens, LENGTH, [LENGTH], scattered=False), theirs) < TOLERANCE
    assert distance(logits_in_steps(decoder, tokens, LENGTH, random_cuts(LENGTH)), theirs) < TOLERANCE


def test_token_by_token(variant: str, tmp_path: Path) -> None:
    model, decoder = pair(variant, tmp_path)
    tokens, prompt_length = random_tokens(), random.choice([1, 7, 30])
    past = transformers.DynamicCache(config=model.config)
    theirs = [model(torch.tensor([tokens[:prompt_length]]), past_key_values=past, use_cache=True).logits[0]]
    for token in tokens[prompt_length:]:
        theirs.append(model(torch.tensor([[token]]), past_key_values=past, use_cache=True).logits[0])
    ours = logits_in_steps(decoder, tokens, prompt_length, [prompt_length] + [1] * (LENGTH - prompt_length))
    assert distance(ours, torch.cat(theirs)) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "gemma2"])
def test_sixteen_bits_stray_no_further_than_transformers(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, _ = pair(family, tmp_path)
    tokens = random_tokens()
    exact = model(torch.tensor([tokens])).logits[0]
    # Read anew, for ``to(dtype)`` would round the rotary frequencies too.
    attention = "eager" if VARIANTS[family].eager else "sdpa"
    rounded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=dtype, attn_implementation=attention
    )
    theirs = rounded(torch.tensor([tokens])).logits[0].float()
    ours = logits_in_steps(load_decoder(tmp_path, dtype), tokens, LENGTH, [40] + [1] * (LENGTH - 40))
    assert (ours - exact).square().mean() < 1.5 * (theirs - exact).square().mean()
