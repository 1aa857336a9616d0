import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lapidist.cli.wafer_checkpoint import float_weights
from lapidist.hardware.wafer.decoder import MeshDecoder
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.models.config import ModelConfig
from lapidist.models.load import load_decoder
from lapidist.models.quantization_config import QuantizationConfig
from tests.checkpoints import write_random_llama
from tests.cli.command import Lapidist, command
from tests.family_checkpoints import VARIANTS, build, save
from tests.paged_decoding import logits_in_steps


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    return command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_llama(tmp_path_factory.mktemp("wafer") / "llama")


def test_tokens_are_those_of_the_engine(lapidist: Lapidist, llama: Path) -> None:
    arguments = ("--prompt", "the cat sat", "--tokens", 12, "--prefill-grid", "8", "--decode-grid", "6x8")
    result = lapidist("wafer", "run", llama, *arguments, "--check", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["same_as_cpu"] is True
    [sequence] = found["sequences"]
    assert 1 <= len(sequence["token_ids"]) <= 12
    assert found["phases"]["prefill"]["layer"]["shifts"] == 9 * 8 + 3 * 8
    assert found["phases"]["decode"]["grid"] == "6x8"
    assert found["phases"]["decode"]["sent_bytes"] > 0
    held = sequence["prompt_tokens"] + len(sequence["token_ids"]) - 1
    assert sum(sequence["tokens_of_each_row"]) == held


@pytest.mark.parametrize("name", VARIANTS)
def test_checkpoints_of_every_family(name: str, tmp_path: Path) -> None:
    """Prefill, then decode past windows and original contexts, as our own models compute it."""
    torch.set_num_threads(1)
    directory = save(build(VARIANTS[name], seed=3), tmp_path)
    model = load_decoder(directory)
    device = load_device("wse-2").with_values("test of numerics only", memory_bytes_per_core=1 << 20)
    decoder = MeshDecoder(
        model.config,
        float_weights(directory, model.config),
        Mesh(device, 4, 6),
        Mesh(device, 5, 4),
        context=40,
    )
    tokens = [int(token) for token in np.random.default_rng(0).integers(1, 131, 30)]
    logits = [decoder.prefill([tokens[:16]])[0], *(decoder.decode([token])[0] for token in tokens[16:])]
    theirs = logits_in_steps(model, tokens, 16, [16] + [1] * 14, scattered=False)[15:].numpy()
    assert theirs.std() > 0.5
    assert np.abs(np.array(logits) - theirs).max() <= 1e-4


def test_a_quantized_checkpoint_is_refused(llama: Path) -> None:
    config = replace(ModelConfig.from_directory(llama), quantization=QuantizationConfig("none"))
    with pytest.raises(ValueError, match="quantized weights, which the wafer does not run"):
        float_weights(llama, config)


def test_several_prompts_are_one_batch(lapidist: Lapidist, llama: Path) -> None:
    prompts = ("--prompt", "the cat sat", "--prompt", "the dog ran after the cat and")
    grids = ("--prefill-grid", "8", "--decode-grid", "6x8")
    result = lapidist("wafer", "run", llama, *prompts, "--tokens", 9, *grids, "--check", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["same_as_cpu"] is True
    for sequence in found["sequences"]:
        rows = sequence["tokens_of_each_row"]
        assert sum(rows) == sequence["prompt_tokens"] + len(sequence["token_ids"]) - 1
        assert max(rows) - min(rows) <= 1


def test_the_table_names_both_phases(lapidist: Lapidist, llama: Path) -> None:
    result = lapidist("wafer", "run", llama, "--tokens", 2, "--prefill-grid", 8, "--decode-grid", 8)
    assert result.returncode == 0, result.stderr
    assert "prefill" in result.stdout
    assert "decode" in result.stdout
    assert "of a core" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "stack"), "unknown policy 'stack' of the KV cache; known are shift, concat"),
        (("--decode-grid", "1"), "decode layer on 1 x 1 cores needs"),
        (("--prefill-grid", "900"), "does not fit on Cerebras WSE-2"),
        (("--prefill-grid", "a"), "a grid is a side or rows x columns"),
        (("--device", "wse-9"), "no wafer device named 'wse-9'"),
        (("--context", "3", "--prompt", "the cat sat on the mat"), "a prompt has from 1 to 3 tokens here"),
    ],
)
def test_mistakes_end_in_one_sentence(
    lapidist: Lapidist, llama: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = lapidist("wafer", "run", llama, *arguments)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
