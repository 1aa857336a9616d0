"""Fits again the models of any GPU in a file of GEMM models: ``python -m recipes.gpu_models.fit_gemm_any DATA FILE``.

DATA is as for ``fit_gemm``, which fits them, too; FILE in the repository is
``src/lapidist/hardware/gpu/fitted/gemm.zip``. All other models stay in it bit by bit. Two minutes on one core.
"""

import argparse
import json
import os
import zipfile
from pathlib import Path

from lapidist.cli.progress import progress_bar
from lapidist.hardware.gpu.gemm_store import write_gemm_models
from lapidist.hardware.gpu.gemm_transfer import ANY, fit_transfer
from lapidist.hardware.gpu.measurements import read_gemm_table
from recipes.gpu_models.fit_gemm import transfer_members, usable

LISTING = "gemm.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    table = usable(read_gemm_table(args.data / "aiconfigurator_gemm.parquet"))
    transfers = transfer_members(table)
    fitted = []
    with progress_bar() as progress:
        for number, (dtype, members) in enumerate(transfers.items()):
            progress(f"any GPU, {dtype}", number, len(transfers))
            fitted.append(fit_transfer(members))
    alone = args.file.with_name(f".{args.file.name}.{os.getpid()}.any")
    write_gemm_models(alone, fitted)
    try:
        replace_pools(args.file, alone)
    finally:
        alone.unlink()


def replace_pools(file: Path, by: Path) -> None:
    """``file`` with its pools of any GPU replaced by those of ``by``; it appears whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(by) as new, zipfile.ZipFile(temporary, "w") as out:
        kept = [entry for entry in old.infolist() if not _replaced(entry.filename)]
        parts = [(entry, old) for entry in kept] + [
            (entry, new) for entry in new.infolist() if entry.filename != LISTING
        ]
        for entry, source in sorted(parts, key=lambda part: part[0].filename.split("/")[0]):
            out.writestr(entry, source.read(entry), zipfile.ZIP_STORED)
        listing = {
            pool: groups
            for pool, groups in json.loads(old.read(LISTING)).items()
            if not pool.startswith(f"{ANY}-")
        }
        listing |= json.loads(new.read(LISTING))
        entry = zipfile.ZipInfo(LISTING, new.getinfo(LISTING).date_time)
        out.writestr(entry, json.dumps(listing, sort_keys=True), zipfile.ZIP_DEFLATED)
    os.replace(temporary, file)


def _replaced(name: str) -> bool:
    return name == LISTING or name.startswith(f"{ANY}-")


if __name__ == "__main__":
    main()
