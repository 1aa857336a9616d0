"""Without a GPU the kernels run in Triton's interpreter, which has to be chosen before Triton is imported."""

import importlib
import os
import sys
from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is not None and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    if "triton" in sys.modules:
        # Other tests have imported it, by way of transformers: its own functions are for the compiler so far.
        importlib.reload(sys.modules["triton.language.standard"])
        importlib.reload(sys.modules["triton.language"])


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
