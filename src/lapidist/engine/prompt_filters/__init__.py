"""Long prompts at a fraction of their cost: which tokens, or whose keys and values, are kept."""

from lapidist.engine.prompt_filters.config import (
    H2O,
    METHODS,
    Adaptive,
    FastKV,
    GemFilter,
    PromptFilter,
    SnapKV,
    StreamingLLM,
    parse_prompt_filter,
)
from lapidist.engine.prompt_filters.report import FilterReport, Span

__all__ = [
    "H2O",
    "METHODS",
    "Adaptive",
    "FastKV",
    "FilterReport",
    "GemFilter",
    "PromptFilter",
    "SnapKV",
    "Span",
    "StreamingLLM",
    "parse_prompt_filter",
]
