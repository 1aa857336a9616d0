"""Where the profiles of this machine lie: one file per model shape and recipe, in the user's cache directory."""

import os
from pathlib import Path

import torch

from lapidist.hardware.cpu.profile import CPUProfile, read_profile
from lapidist.kernels.machine import machine_name, machine_slug
from lapidist.models.config import ModelConfig
from lapidist.planner.cpu_measurement import shape_of
from lapidist.workload.recipe import Recipe

VARIABLE = "LAPIDIST_CPU_PROFILES"
_CPU = torch.device("cpu")


def profile_file(config: ModelConfig, recipe: Recipe) -> Path:
    """The file of a model in a recipe; its folder is ``LAPIDIST_CPU_PROFILES``, else in the user's cache directory."""
    folder = Path(os.environ.get(VARIABLE) or "~/.cache/lapidist/cpu").expanduser()
    sizes = "-".join(str(size) for size in shape_of(config).values())
    return folder / machine_slug(_CPU) / f"{sizes}-{recipe.name}.json"


def load_profile(config: ModelConfig, recipe: Recipe) -> CPUProfile:
    """What was measured of a model in a recipe on this machine.

    Raises
    ------
    ValueError : nothing was; the sentence says how to.
    """
    file = profile_file(config, recipe)
    if not file.exists():
        raise ValueError(
            f"nothing was measured of this model in {recipe.name} on {machine_name(_CPU)}: "
            "run lapidist cpu measure with its checkpoint first"
        )
    return read_profile(file)
