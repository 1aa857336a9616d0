"""What a decoder promises beyond parity: company changes nothing, and its work is the work that was forecast."""

import random
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lapidist.models.load import load_decoder
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.operators import GEMM, Attention, total_flops
from tests.family_checkpoints import VARIANTS, build, save
from tests.paged_decoding import PagedDecoding, logits_in_steps

FAMILIES = ["llama-dynamic", "mistral", "qwen2-window", "qwen3", "phi3-longrope", "gemma2"]


def random_prompts(count: int) -> list[list[int]]:
    return [torch.randint(1, 131, (random.randint(1, 50),)).tolist() for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_company_changes_nothing(family: str, tmp_path: Path) -> None:
    decoder = load_decoder(save(build(VARIANTS[family], seed=random.randrange(1 << 30)), tmp_path))
    prompts = random_prompts(5)
    lengths = [random.randint(1, len(prompt)) for prompt in prompts]
    run = PagedDecoding(decoder, prompts, lengths, scattered=random.random() < 0.5)
    together: list[list[torch.Tensor]] = [[] for _ in prompts]
    while any(sequence.computed < len(sequence.token_ids) for sequence in run.sequences):
        left = [len(sequence.token_ids) - sequence.computed for sequence in run.sequences]
        step = [min(n, random.choice([0, 1, 1, 5, 20])) for n in left]
        if any(step):
            for index, logits in zip([i for i, n in enumerate(step) if n], run.step(step), strict=True):
                together[index].append(logits)
    for prompt, length, parts in zip(prompts, lengths, together, strict=True):
        alone = logits_in_steps(decoder, prompt, length, [len(prompt)])
        assert (torch.cat(parts) - alone).abs().max() < 1e-4


@pytest.mark.parametrize("kv_bits", [8, 4])
@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family != "mistral"]
)  # heads of 12 channels
def test_chunks_change_nothing_with_a_quantized_cache(family: str, kv_bits: int, tmp_path: Path) -> None:
    """A prompt at once, in pieces, and token by token: one bit would turn codes of later layers to others."""
    decoder = load_decoder(save(build(VARIANTS[family], seed=random.randrange(1 << 30)), tmp_path))
    prompt = torch.randint(1, 131, (40,)).tolist()
    plain = logits_in_steps(decoder, prompt, 40, [40])
    decoder.kv_bits = kv_bits
    expected = logits_in_steps(decoder, prompt, 40, [40])
    for lengths in ([13, 1, 1, 9, 16], [1] * 40):
        assert torch.equal(logits_in_steps(decoder, prompt, 40, lengths), expected)
    assert (plain - expected).abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_those_of_the_lowered_step(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    decoder = load_decoder(save(build(VARIANTS[family], seed=5), tmp_path), dtype)
    prompts = random_prompts(4)
    run = PagedDecoding(decoder, prompts, [len(prompt) for prompt in prompts], scattered=True)
    first = [random.randint(0, len(prompt)) for prompt in prompts]
    for lengths in (first, [len(prompt) - n for prompt, n in zip(prompts, first, strict=True)]):
        if not any(lengths):
            continue
        with FlopCounterMode(display=False) as counter:
            run.step(lengths)
        sequences = tuple(
            SequenceStep(length, sequence.computed)
            for sequence, length in zip(run.sequences, lengths, strict=True)
            if length
        )
        step = Step(sequences, logit_rows=sum(lengths))
        operators = lower(decoder.config, Recipe.named("fp32"), step)
        expected = total_flops([operator for operator in operators if isinstance(operator, GEMM | Attention)])
        assert counter.get_total_flops() == expected


def test_logits_of_no_rows(tmp_path: Path) -> None:
    decoder = load_decoder(save(build(VARIANTS["qwen3"], seed=6), tmp_path))
    assert decoder.logits(torch.empty(0, decoder.config.hidden_size)).shape == (0, decoder.config.vocab_size)
