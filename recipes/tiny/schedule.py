"""How the budget is spent: learning rate, sequence lengths and the mix of tasks as functions of progress in
[0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WARMUP_END, DECAY_START = 0.01, 0.65


@dataclass(frozen=True)
class Stage:
    """One step of the length curriculum."""

    length: int  # tokens of the longest rows
    tokens_per_step: int
    latest_start: (
        float  # progress at which the stage begins even if the answers' loss before it is still high
    )


STAGES = [Stage(64, 4096, 0.0), Stage(256, 4096, 0.25), Stage(1024, 4096, 0.4), Stage(2048, 4096, 0.45)]
# Mean loss (nats per answer token) on the longest rows below which the next length is worth having.
READY_LOSS = 0.5

# First lookups and copies, in rows so short that attention heads quickly learn to look back; then mostly
# text.
MIXES = [
    {"text": 0.15, "key_value": 0.35, "needle": 0.1, "copy": 0.35, "recall": 0.0, "chat": 0.05, "prose": 0.0},
    {
        "text": 0.29,
        "key_value": 0.2,
        "needle": 0.23,
        "copy": 0.12,
        "recall": 0.05,
        "chat": 0.06,
        "prose": 0.05,
    },
    {
        "text": 0.36,
        "key_value": 0.1,
        "needle": 0.31,
        "copy": 0.04,
        "recall": 0.05,
        "chat": 0.08,
        "prose": 0.06,
    },
    {
        "text": 0.45,
        "key_value": 0.04,
        "needle": 0.33,
        "copy": 0.02,
        "recall": 0.03,
        "chat": 0.06,
        "prose": 0.07,
    },
]


def learning_rate_factor(progress: float) -> float:
    """Warm-up, stable, linear decay to zero (Hu et al., 2024, MiniCPM; Hägele et al., 2024)."""
    if progress < WARMUP_END:
        return max(progress / WARMUP_END, 0.05)
    if progress < DECAY_START:
        return 1.0
    return max(0.0, (1.0 - progress) / (1.0 - DECAY_START))


def due_stage(stage: int, progress: float, loss: float | None) -> int:
    """The stage to train at, never before `stage`: advanced by a low `loss` on its longest rows, or by
    progress.
    """
    if stage + 1 < len(STAGES) and loss is not None and loss < READY_LOSS:
        return stage + 1
    while stage + 1 < len(STAGES) and progress >= STAGES[stage + 1].latest_start:
        stage += 1
    return stage


def draw_length(rng: np.random.Generator, stage: int) -> int:
    """A row length in tokens: the stage's longest half of the time, else one of the two before it."""
    choice = stage if rng.random() < 0.5 else int(rng.integers(max(0, stage - 2), max(1, stage)))
    return STAGES[choice].length


def draw_task(rng: np.random.Generator, stage: int) -> str:
    mix = MIXES[stage]
    return str(rng.choice(list(mix), p=np.array(list(mix.values())) / sum(mix.values())))
