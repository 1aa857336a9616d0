"""The option ``attention_softmax`` and the counters of attention's rows."""

import json
import shutil
from pathlib import Path

import pytest

from lapidist import LLM, SamplingParams
from lapidist.engine.engine import EngineConfig
from lapidist.kernels.softmax import SoftmaxMode
from lapidist.models.calibration.checkpoint_files import write_softmax
from lapidist.models.errors import CheckpointError
from lapidist.models.softmax_config import SoftmaxConfig

PROMPTS = ["the cat sat on the mat", "a", "Grüße aus Köln " * 9]
GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
LAYERS, HEADS = 2, 4


@pytest.fixture
def calibrated(llama_directory: Path, tmp_path: Path) -> Path:
    """Whose phi is wrong for one head of the second layer."""
    directory = shutil.copytree(llama_directory, tmp_path / "calibrated")
    phi = ((0.0,) * HEADS, (300.0, *(0.0,) * (HEADS - 1)))
    write_softmax(directory, SoftmaxConfig(SoftmaxMode.UNIFIED, phi))
    return directory


def modes(llm: LLM) -> set[SoftmaxMode]:
    return {softmax.mode for softmax in llm.engine.decoder.softmax}


def test_tokens_are_the_same_in_every_mode(llama_directory: Path, calibrated: Path) -> None:
    found = {}
    for directory in (llama_directory, calibrated):
        for mode in ("auto", "online", "lazy", "unified"):
            llm = LLM(directory, dtype="float32", attention_softmax=mode)
            outputs = llm.generate(PROMPTS, GREEDY)
            found[directory.name, mode] = [output.outputs[0].token_ids for output in outputs]
    assert len({json.dumps(tokens) for tokens in found.values()}) == 1, found


def test_auto_is_what_the_checkpoint_says(llama_directory: Path, calibrated: Path) -> None:
    assert modes(LLM(llama_directory)) == {SoftmaxMode.LAZY}
    assert modes(LLM(calibrated)) == {SoftmaxMode.UNIFIED}
    assert modes(LLM(calibrated, attention_softmax="online")) == {SoftmaxMode.ONLINE}
    forced = LLM(llama_directory, attention_softmax="unified")
    assert modes(forced) == {SoftmaxMode.UNIFIED}
    assert not any(softmax.phi.any() for softmax in forced.engine.decoder.softmax)


def test_rows_are_counted(calibrated: Path) -> None:
    llm = LLM(calibrated, dtype="float32", enable_prefix_caching=False)
    assert llm.engine.stats().attention_rows == 0
    assert llm.engine.stats().attention_rows_recomputed == (0,) * LAYERS
    [output] = llm.generate(PROMPTS[0], GREEDY)
    # The last token that was generated is not computed.
    computed = len(output.prompt_token_ids) + len(output.outputs[0].token_ids) - 1
    stats = llm.engine.stats()
    assert stats.attention_rows == computed * HEADS * LAYERS
    assert stats.attention_rows_recomputed == (0, computed)


def test_a_step_does_not_read_the_counters(llama_directory: Path) -> None:
    """On a GPU reading would wait for the step."""
    llm = LLM(llama_directory, attention_softmax="unified")
    del llm.engine.decoder.recomputed_rows
    assert llm.generate(PROMPTS[0], GREEDY)[0].finished


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="attention_softmax must be auto, online, lazy, unified, got 'fast'"):
        EngineConfig("model", attention_softmax="fast")


def test_a_corrupt_calibration_is_named(calibrated: Path) -> None:
    config = json.loads((calibrated / "config.json").read_text())
    config["quantization_config"]["attention_softmax"]["phi"] = [[0.0] * HEADS]
    (calibrated / "config.json").write_text(json.dumps(config))
    for mode in ("auto", "lazy"):
        with pytest.raises(
            CheckpointError, match=r"quantization_config.attention_softmax.phi must be a number or"
        ):
            LLM(calibrated, attention_softmax=mode)
