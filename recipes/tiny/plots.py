"""Pictures of a run: its loss curve and the exported model's retrieval heat map."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from recipes.tiny.schedule import STAGES

LABELS = {
    "text": "text",
    "key_value": "key-value lookup",
    "needle": "needle",
    "copy": "copying",
    "chat": "chat",
    "prose": "generated prose",
}


def smooth(values: list[float], span: int = 9) -> np.ndarray:
    """Moving average that keeps the length."""
    kernel = np.ones(min(span, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def tokens_near(tokens_at: dict[int, int], step: int) -> float:
    """Millions of tokens trained on at the logged step nearest to `step`."""
    return tokens_at[min(tokens_at, key=lambda logged: abs(logged - step))] / 1e6


def loss_curve(records: list[dict[str, Any]], path: Path) -> None:
    """Training loss by part, in nats per token, and retrieval accuracy, over training tokens."""
    figure, (losses, accuracy) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, height_ratios=[2, 1])
    steps = [record for record in records if "loss" in record]
    for part, label in LABELS.items():
        points = [
            (record["tokens"] / 1e6, record["loss"][part]) for record in steps if part in record["loss"]
        ]
        if not points:
            continue  # a run that was too short for this part
        tokens, values = zip(*points, strict=True)
        losses.plot(tokens, smooth(list(values)), label=label, linewidth=1.2)
    for before, after in pairwise(steps):
        if after["stage"] > before["stage"]:
            losses.axvline(after["tokens"] / 1e6, color="grey", linewidth=0.6, linestyle=":")
            label = f" rows to {STAGES[after['stage']].length:,}"
            losses.text(after["tokens"] / 1e6, 0.05, label, fontsize=7, rotation=90)
    tokens_at = {record["step"]: record["tokens"] for record in steps}
    unseen = [
        (tokens_near(tokens_at, record["step"]), record["held_out_loss"])
        for record in records
        if "held_out_loss" in record
    ]
    if unseen:
        losses.plot(*zip(*unseen, strict=True), "k.--", label="unseen text", linewidth=0.8)
    losses.set(ylabel="loss (nats per token)", ylim=(0, None))
    losses.legend(fontsize=8)
    checks = [record for record in records if "retrieval" in record]
    for length in sorted({length for record in checks for length in record["retrieval"]}, key=int):
        points = [
            (
                tokens_near(tokens_at, record["step"]),
                np.mean(record["retrieval"][length]),
            )
            for record in checks
            if length in record["retrieval"]
        ]
        accuracy.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"{int(length):,} tokens")
    accuracy.set(xlabel="training tokens (millions)", ylabel="needles found", ylim=(-0.03, 1.03))
    if checks:
        accuracy.legend(fontsize=8)
    save(figure, path)


def heat_map(retrieval: dict[str, Any], path: Path) -> None:
    """Share of needles found by depth and length, one panel per haystack."""
    figure, axes = plt.subplots(1, len(retrieval["number"]), figsize=(8, 4), sharey=True)
    for axis, (name, grid) in zip(axes, retrieval["number"].items(), strict=True):
        axis.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (row, column), value in np.ndenumerate(np.array(grid)):
            color = "black" if value > 0.6 else "white"
            axis.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=7, color=color)
        axis.set_xticks(range(len(retrieval["lengths"])), [f"{length:,}" for length in retrieval["lengths"]])
        axis.set_yticks(range(len(retrieval["depths"])), [f"{depth:.0%}" for depth in retrieval["depths"]])
        axis.set(title=name, xlabel="length (tokens)")
    axes[0].set_ylabel("depth of the needle")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=100)
    plt.close(figure)
    os.replace(temporary, path)
