"""Where a calibration may write what it finds."""

from pathlib import Path


def check_destination(directory: Path, out: Path | None) -> None:
    """Refuse before the run what could not be written after it.

    Raises
    ------
    ValueError : ``out`` cannot be made, the checkpoint ``directory`` cannot be changed, or it is none.
    """
    from lapidist.bundled import TINY
    from lapidist.models.calibration.checkpoint_files import check_new, check_writable
    from lapidist.models.config import ModelConfig

    ModelConfig.from_directory(directory)
    if out is not None:
        check_new(out)
    elif directory.resolve() == TINY.resolve():
        raise ValueError(
            f"the bundled model is part of the installed package ({TINY}) and stays as it is: "
            "write a calibrated copy with --out DIR, or only report with --dry-run"
        )
    else:
        check_writable(directory)
