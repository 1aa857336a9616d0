"""What a training run must remember to go on where it stopped, and the files that hold it."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from recipes.tiny.model import TinyLlama

# A step that takes longer than this many median steps was interrupted: the excess is not training time.
CLIP = 10.0
WINDOW = 50

BEST = "best.pt"  # the checkpoint with the least loss of unseen text, in a run's folder


@dataclass
class RunState:
    """Counters of one run. `seconds` is training time: the sum of step durations, pauses clipped."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    stage: int = 0
    answer_loss: float | None = None
    least_held_out: float | None = None
    recent_durations: list[float] = field(default_factory=list)

    def add_duration(self, seconds: float) -> None:
        if len(self.recent_durations) >= 10:
            seconds = min(seconds, CLIP * statistics.median(self.recent_durations))
        self.seconds += seconds
        self.recent_durations = [*self.recent_durations, seconds][-WINDOW:]


def save_checkpoint(
    path: Path, model: TinyLlama, optimizers: list[torch.optim.Optimizer], state: RunState
) -> None:
    """Write everything the run needs to resume, complete or not at all."""
    content = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "state": asdict(state),
        "config": asdict(model.config),
    }
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, model: TinyLlama, optimizers: list[torch.optim.Optimizer]) -> RunState:
    """Restore model and optimizers in place; returns the counters."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(content["model"])
    for optimizer, saved in zip(optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return RunState(**content["state"])


class Log:
    """Metrics as JSON lines; on resume, lines past the checkpoint's step are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [record for record in read_log(path) if record["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(temporary, path)

    def add(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file, none where it is absent."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
