"""Fit the mixture-of-experts model that ships: ``python -m recipes.gpu_models.fit_moe TABLE``.

TABLE is the MoE table of aiconfigurator (Apache-2.0).
"""

import sys
from pathlib import Path

from lapidist.hardware.gpu.moe_fit import fit_moe, read_moe_table
from lapidist.hardware.gpu.moe_predictor import BUNDLED, write_moe_model


def main(path: Path, target: Path = BUNDLED) -> None:
    fitted = fit_moe(read_moe_table(path))
    target.parent.mkdir(exist_ok=True)
    write_moe_model(target, fitted)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB, half width {fitted.half_width:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
