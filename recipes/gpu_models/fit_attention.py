"""Fit the attention models that ship: ``python -m recipes.gpu_models.fit_attention TABLE``.

TABLE is the attention table of aiconfigurator (Apache-2.0). One pair of models (prefill, decode) per GPU, backend and
version.
"""

import sys
import time
from pathlib import Path

from rich.progress import track

from lapidist.hardware.gpu.attention_fit import TreeSize, fit_phase
from lapidist.hardware.gpu.attention_measurements import read_attention_table
from lapidist.hardware.gpu.attention_phase import FittedPhase
from lapidist.hardware.gpu.attention_store import BUNDLED, FittedAttention, ModelKey, write_attention_models
from lapidist.hardware.gpu.data_sheet import load_data_sheet

_STANDARD, _SMALL = TreeSize(), TreeSize(150, 31, 0.15)
# GPU, backend, version: sizes of prefill and decode. L40S leaves more to be learned; an A100 table has 5,000 rows.
SIZES: dict[tuple[str, str, str], tuple[TreeSize, TreeSize]] = {
    ("h200_sxm", "TRTLLM", "1.3.0rc20"): (_STANDARD, _STANDARD),
    ("l40s", "TRTLLM", "1.3.0rc20"): (TreeSize(300, 90, 0.1), _STANDARD),
    ("b200_sxm", "TRTLLM", "1.3.0rc20"): (_STANDARD, _STANDARD),
    ("rtx_pro_6000_server", "TRTLLM", "1.3.0rc20"): (TreeSize(250, 63, 0.1), TreeSize(250, 63, 0.1)),
    ("h100_sxm", "TRTLLM", "1.3.0rc20"): (TreeSize(250, 63, 0.1), TreeSize(250, 63, 0.1)),
    ("h200_sxm", "VLLM", "0.22.0"): (TreeSize(200, 63, 0.12), TreeSize(200, 63, 0.12)),
    ("a100_sxm", "VLLM", "0.14.0"): (_SMALL, _SMALL),
    ("a100_sxm", "TRTLLM", "1.0.0"): (_SMALL, _SMALL),
    ("a100_sxm", "SGLang", "0.5.10"): (_SMALL, _SMALL),
}


def main(path: Path, target: Path = BUNDLED) -> None:
    table = read_attention_table(path)
    target.parent.mkdir(exist_ok=True)
    models = {}
    for (system, backend, version), sizes in track(SIZES.items(), description="attention models"):
        sheet = load_data_sheet(system)
        phases: list[FittedPhase] = []
        for phase, size in zip(("prefill", "decode"), sizes, strict=True):
            key = {"system": system, "backend": backend, "version": version, "phase": phase}
            rows = table[(table[list(key)] == list(key.values())).all(axis=1)].reset_index(drop=True)
            began = time.perf_counter()
            phases.append(fit_phase(rows, sheet, size))
            print(
                f"{system} {backend} {version} {phase}: {len(rows)} rows, {time.perf_counter() - began:.0f} s"
            )
        models[ModelKey(sheet.name, backend, version)] = FittedAttention(*phases)
        write_attention_models(target, models)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
