"""Fixtures that several rooms use."""

from pathlib import Path

import pytest
import torch

from tests.checkpoints import write_random_llama

# The models of the tests are too small to share between cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llama_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama checkpoint in float32, with tokenizer and chat template."""
    return write_random_llama(tmp_path_factory.mktemp("checkpoints") / "random-llama")
