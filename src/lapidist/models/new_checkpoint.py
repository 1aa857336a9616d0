"""Making a checkpoint directory that appears complete or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lapidist.models.calibration.checkpoint_files import check_new
from lapidist.models.config import CONFIG_FILE
from lapidist.models.errors import CheckpointError

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@contextmanager
def new_checkpoint(out: Path) -> Iterator[Path]:
    """A directory to fill. It gets its name when the block ends, and vanishes if the block raises.

    Raises
    ------
    CheckpointError : ``out`` exists, or cannot be written.
    """
    check_new(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        os.rename(temporary, out)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_companions(source: Path, target: Path) -> None:
    """Copy what a checkpoint has beside weights and ``config.json``: tokenizer, generation defaults, readme."""
    for file in source.iterdir():
        is_weights = file.suffix in _WEIGHTS or file.name.endswith(".index.json")
        if file.is_file() and not is_weights and not file.name.startswith(".") and file.name != CONFIG_FILE:
            shutil.copy2(file, target / file.name)
