"""How the budget is spent: learning rate, sequence lengths and the mix of tasks as functions of progress in [0, 1]."""

from __future__ import annotations

import numpy as np

WARMUP_END, DECAY_START = 0.01, 0.65

# (longest row, progress at which it comes into use even if the loss at the length before is still high)
STAGES = [(256, 0.0), (512, 0.2), (1024, 0.35), (2048, 0.5)]
# Mean loss (nats per answer token) on the longest rows below which the next length is worth having.
READY_LOSS = 0.3

# While rows are short, lookups and copies dominate: they are what makes attention heads learn to look back.
EARLY_MIX = {"text": 0.25, "key_value": 0.25, "needle": 0.2, "copy": 0.2, "recall": 0.05, "chat": 0.05}
LATE_MIX = {"text": 0.45, "key_value": 0.08, "needle": 0.3, "copy": 0.04, "recall": 0.05, "chat": 0.08}


def learning_rate_factor(progress: float) -> float:
    """Warm-up, stable, linear decay to zero (Hu et al., 2024, MiniCPM; Hägele et al., 2024)."""
    if progress < WARMUP_END:
        return max(progress / WARMUP_END, 0.05)
    if progress < DECAY_START:
        return 1.0
    return max(0.0, (1.0 - progress) / (1.0 - DECAY_START))


def due_stage(stage: int, progress: float, loss: float | None) -> int:
    """The stage to train at, never before `stage`: advanced by a low `loss` on its longest rows, or by progress."""
    if stage + 1 < len(STAGES) and loss is not None and loss < READY_LOSS:
        return stage + 1
    while stage + 1 < len(STAGES) and progress >= STAGES[stage + 1][1]:
        stage += 1
    return stage


def draw_length(rng: np.random.Generator, stage: int) -> int:
    """A row length in tokens: the stage's longest half of the time, else one of the shorter."""
    choice = stage if stage == 0 or rng.random() < 0.5 else int(rng.integers(stage))
    return STAGES[choice][0]


def draw_task(rng: np.random.Generator, stage: int) -> str:
    mix = EARLY_MIX if stage < 2 else LATE_MIX
    return str(rng.choice(list(mix), p=np.array(list(mix.values())) / sum(mix.values())))
