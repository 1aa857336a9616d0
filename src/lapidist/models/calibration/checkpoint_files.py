"""Writing what a calibration found into a checkpoint: in place, or into a copy that shares the weights."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from lapidist.models.config import CONFIG_FILE, ModelConfig
from lapidist.models.errors import CheckpointError
from lapidist.models.filter_config import SECTION as FILTER_SECTION
from lapidist.models.filter_config import FilterDefaults, filter_section
from lapidist.models.json_file import read_json_object
from lapidist.models.softmax_config import QUANT_METHOD, SECTION, SoftmaxConfig, softmax_section


def write_softmax(directory: Path, softmax: SoftmaxConfig) -> Path:
    """Set ``quantization_config.attention_softmax`` in ``config.json``; all other keys and their order stay.

    The file appears complete or not at all. A ``config.json`` that is a symbolic link is replaced by a file.

    Returns
    -------
    The file.

    Raises
    ------
    CheckpointError : the file cannot be used, or not be written.
    """
    ModelConfig.from_directory(directory)  # refuses another program's quantization_config
    file = directory / CONFIG_FILE
    config = read_json_object(file)
    quantization = config.get("quantization_config") or {"quant_method": QUANT_METHOD}
    config["quantization_config"] = quantization | {SECTION: softmax_section(softmax)}
    _replace(file, config)
    return file


def write_filter(directory: Path, defaults: FilterDefaults) -> Path:
    """Set ``prompt_filter`` in ``config.json``; see ``write_softmax``."""
    ModelConfig.from_directory(directory)
    file = directory / CONFIG_FILE
    config = read_json_object(file)
    config[FILTER_SECTION] = filter_section(defaults)
    _replace(file, config)
    return file


def has_softmax(directory: Path) -> bool:
    """Whether an earlier calibration is there."""
    quantization = read_json_object(directory / CONFIG_FILE).get("quantization_config")
    return isinstance(quantization, dict) and SECTION in quantization


def copy_checkpoint(directory: Path, out: Path, found: SoftmaxConfig | FilterDefaults) -> Path:
    """A copy of a checkpoint with what was ``found``; it appears complete or not at all.

    Weights are hard links where the file system allows it, and copies elsewhere: what the copy holds more is its
    ``config.json``. Hidden files are left out.

    Returns
    -------
    The copy's ``config.json``.

    Raises
    ------
    CheckpointError : ``out`` exists, or cannot be written.
    """
    check_new(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(
            directory, temporary, ignore=shutil.ignore_patterns(".*"), copy_function=_link_weights
        )
        if isinstance(found, FilterDefaults):
            write_filter(temporary, found)
        else:
            write_softmax(temporary, found)
        os.rename(temporary, out)
    except (OSError, shutil.Error) as error:
        raise CheckpointError(f"{out}: cannot be written ({_reason(error)})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out / CONFIG_FILE


def check_new(out: Path) -> None:
    """Refuse a directory that cannot be made; raises CheckpointError."""
    if out.exists():
        raise CheckpointError(f"{out}: exists already; choose another name")
    if not out.parent.is_dir():
        raise CheckpointError(f"{out}: the folder {out.parent} does not exist")
    if not os.access(out.parent, os.W_OK):
        raise CheckpointError(f"{out}: the folder {out.parent} cannot be written to")


def check_writable(directory: Path) -> None:
    """Refuse a checkpoint whose ``config.json`` cannot be replaced; raises CheckpointError."""
    if not os.access(directory, os.W_OK):
        raise CheckpointError(f"{directory}: cannot be written to; write a calibrated copy elsewhere")


def _replace(file: Path, config: dict[str, Any]) -> None:
    temporary = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        temporary.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.copymode(file, temporary)
        os.replace(temporary, file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        try:
            # The hub's cache holds symbolic links, which would be linked themselves.
            os.link(os.path.realpath(source), target)
            return
        except OSError:
            pass  # another file system: copied
    shutil.copy2(source, target)


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # holds one triple for each file that failed
        return str(error.args[0][0][2]) if error.args and error.args[0] else "unknown"
    return error.strerror or str(error)
