"""Lapidist cuts large language models to fit the hardware that serves them."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LLM", "AsyncLLM", "RequestOutput", "SamplingParams", "StructuredOutput", "__version__"]

if TYPE_CHECKING:
    from lapidist.engine.async_llm import AsyncLLM
    from lapidist.engine.llm import LLM
    from lapidist.engine.outputs import RequestOutput
    from lapidist.engine.sampling_params import SamplingParams, StructuredOutput

_HOMES = {
    "LLM": "lapidist.engine.llm",
    "AsyncLLM": "lapidist.engine.async_llm",
    "RequestOutput": "lapidist.engine.outputs",
    "SamplingParams": "lapidist.engine.sampling_params",
    "StructuredOutput": "lapidist.engine.sampling_params",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
