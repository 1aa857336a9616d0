import json
from pathlib import Path

import numpy as np
import pytest

from lapidist.cli.wafer_run import _weights
from lapidist.hardware.wafer.decoder import MeshDecoder
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.models.load import load_decoder
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
    assert 1 <= len(found["token_ids"]) <= 12
    assert found["phases"]["prefill"]["layer"]["shifts"] == 9 * 8 + 3 * 8
    assert found["phases"]["decode"]["grid"] == "6x8"
    assert found["phases"]["decode"]["sent_bytes"] > 0
    assert sum(found["tokens_of_each_row"]) == found["prompt_tokens"] + len(found["token_ids"]) - 1


@pytest.mark.parametrize(
    "name", ["llama", "llama-linear", "mistral", "mistral-full", "qwen2", "qwen2-window"]
)
def test_checkpoints_of_several_families(name: str, tmp_path: Path) -> None:
    """Prefill, then decode past the window, as our own models compute it."""
    directory = save(build(VARIANTS[name], seed=3), tmp_path)
    model = load_decoder(directory)
    mesh = Mesh(load_device("wse-2"), 7, 7)
    decoder = MeshDecoder(model.config, _weights(directory, model.config), mesh, mesh, context=24)
    tokens = [int(token) for token in np.random.default_rng(0).integers(1, 131, 22)]
    logits = [decoder.prefill(tokens[:16]), *(decoder.decode(token) for token in tokens[16:])]
    theirs = logits_in_steps(model, tokens, len(tokens), [len(tokens)], scattered=False)[15:].numpy()
    assert theirs.std() > 0.5
    assert np.abs(np.array(logits) - theirs).max() <= 1e-4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("phi3", "runs checkpoints of LlamaForCausalLM"),
        ("llama3", "RoPE of the kinds default and linear"),
        ("llama-biases-tied", "biases of its outputs"),
    ],
)
def test_families_that_the_mesh_does_not_run(name: str, message: str, tmp_path: Path) -> None:
    directory = save(build(VARIANTS[name], seed=3), tmp_path)
    with pytest.raises(ValueError, match=message):
        _weights(directory, load_decoder(directory).config)


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
        (("--decode-grid", "2"), "decode layer on 2 x 2 cores needs"),
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
