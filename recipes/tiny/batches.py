"""Batches as a pure function of (seed, step, stage), so that a resumed run sees the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recipes.tiny import schedule
from recipes.tiny.rows import PART_WEIGHTS, Materials
from recipes.tiny.tasks import TASKS


@dataclass(frozen=True)
class Batch:
    """Rows of one length: inputs, targets and the targets' parts of the curriculum, [rows, length] each."""

    inputs: Tensor
    targets: Tensor
    parts: Tensor

    @property
    def weights(self) -> Tensor:
        return torch.from_numpy(PART_WEIGHTS)[self.parts]


def make_batches(seed: int, step: int, stage: int, micro_tokens: int, materials: Materials) -> list[Batch]:
    """The micro-batches of one optimizer step, `micro_tokens` each, every one of its own row length."""
    rng = np.random.default_rng([seed, step])
    batches = []
    for _ in range(schedule.STAGES[stage].tokens_per_step // micro_tokens):
        length = schedule.draw_length(rng, stage)
        rows = [
            TASKS[schedule.draw_task(rng, stage)](rng, length + 1, materials)
            for _ in range(max(1, micro_tokens // length))
        ]
        ids = torch.tensor([row.tokens for row in rows])
        parts = torch.tensor([row.parts for row in rows])
        batches.append(Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), parts[:, 1:].contiguous()))
    return batches
