"""llama.cpp computes from our GGUF file what transformers computes from the checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lapidist.models.random_checkpoint import write_random_checkpoint
from lapidist.models.shapes import shape_config

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
transformers = pytest.importorskip("transformers")

from benchmarks.peers.run_llama_cpp import LlamaCpp  # noqa: E402
from benchmarks.peers.write_gguf import write_gguf  # noqa: E402
from tests.peers.small_llama import SMALL  # noqa: E402


@pytest.mark.parametrize("shape", ["llama-3.2-1b", "llama-2-7b"])
def test_logits_and_greedy_tokens_agree(shape: str, tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "model", tmp_path / "model.gguf"
    # Original context 64: the prompt is long enough for Llama 3.1's scaling to matter.
    config = shape_config(shape) | SMALL
    if config["rope_scaling"]:
        config["rope_scaling"] |= {"original_max_position_embeddings": 64}
    write_random_checkpoint(config, checkpoint, seed=int(torch.randint(1000, ())))
    write_gguf(checkpoint, out)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    peer = LlamaCpp(str(out), threads=1, context=2048)
    prompt = torch.randint(0, 512, (1, 150))
    with torch.no_grad():
        expected = model(prompt).logits[0, -1].numpy()
    found = peer.logits(prompt[0].tolist())
    assert np.corrcoef(expected, found)[0, 1] > 0.999
    assert np.abs(expected - found).max() < 0.1 * expected.std()
    [generated] = peer.greedy([prompt[0].tolist()], [8])
    _assert_greedy(model, prompt, generated)


def _assert_greedy(model: torch.nn.Module, prompt: torch.Tensor, generated: list[int]) -> None:
    """Every token is the likeliest, or as likely as bf16 can tell."""
    text = torch.cat([prompt, torch.tensor([generated])], dim=1)
    with torch.no_grad():
        logits = model(text).logits[0, prompt.shape[1] - 1 : -1]
    margin = logits.max(dim=-1).values - logits.gather(1, torch.tensor(generated)[:, None])[:, 0]
    assert margin.max() < 0.1 * logits.std()


def test_sequences_of_a_mixed_batch_do_not_see_each_other(tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "model", tmp_path / "model.gguf"
    write_random_checkpoint(shape_config("llama-3.2-1b") | SMALL, checkpoint)
    write_gguf(checkpoint, out)
    peer = LlamaCpp(str(out), threads=1, context=4096)
    prompts = [torch.randint(0, 512, (length,)).tolist() for length in (300, 5, 400, 33)]
    alone = [peer.greedy([prompt], [6])[0] for prompt in prompts]
    together = peer.greedy(prompts, [6] * 4)
    same = sum(a == b for a, b in zip(alone, together, strict=True))
    assert same >= 3  # bf16 sums in another order may turn a near tie around
    assert all(len(tokens) == 6 for tokens in together)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    write_random_checkpoint(shape_config("qwen2.5-0.5b") | SMALL, checkpoint)
    with pytest.raises(ValueError, match="only llama"):
        write_gguf(checkpoint, tmp_path / "model.gguf")
    write_random_checkpoint(
        shape_config("llama-2-7b") | SMALL | {"rope_scaling": {"type": "linear", "factor": 2.0}},
        tmp_path / "linear",
    )
    with pytest.raises(ValueError, match="linear"):
        write_gguf(tmp_path / "linear", tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*gguf*"))
