"""The model that ships with Lapidist."""

from pathlib import Path

TINY = Path(__file__).parent / "tiny"
"""A 10-million-parameter Llama that finds facts in its context of 2048 tokens (``recipes/tiny``)."""


def resolve_model(name: str | Path) -> Path:
    """The directory of a model: a path as it is, or ``tiny`` for the bundled model unless such a directory exists."""
    path = Path(name).expanduser()
    return TINY if str(name) == "tiny" and not path.is_dir() else path
