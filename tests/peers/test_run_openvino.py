"""OpenVINO's pipeline, stepped as benchmarks do, yields the tokens that llama.cpp computes from the same file."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
pytest.importorskip("openvino_genai")

from benchmarks.peers.quantize_gguf import quantized_gguf
from benchmarks.peers.run_llama_cpp import LlamaCpp
from benchmarks.peers.run_openvino import OpenVino
from benchmarks.peers.write_gguf import write_gguf
from tests.peers.small_llama import write_small_llama


def test_sequences_continue_with_the_likeliest_token(tmp_path: Path) -> None:
    write_gguf(write_small_llama(tmp_path / "model", hidden_size=256), tmp_path / "model.bf16.gguf")
    file = str(quantized_gguf(tmp_path / "model.bf16.gguf", "q8_0"))
    reference = LlamaCpp(file, 1)
    openvino = OpenVino(file, 1, context=1024, kv_cache_gib=1)
    prompts = [torch.randint(0, 512, (length,)).tolist() for length in (600, 5, 40)]
    first_tokens = [tokens[0] for tokens in openvino.greedy(prompts, 1)]
    for prompt, token in zip(prompts, first_tokens, strict=True):
        logits = reference.logits(prompt)
        # Its KV cache has eight bits and its activations other groups: a near tie may turn around.
        assert logits.max() - logits[token] < 0.3 * logits.std()
    assert openvino.begin_seconds(prompts) > 0
    assert openvino.continue_tokens_per_second(3) > 0
    assert openvino.decode_tokens_per_second(prompts[2], 4) > 0  # ends those begun
    assert openvino.prefill_seconds(prompts[0]) > 0
