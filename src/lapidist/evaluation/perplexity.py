"""How well a model predicts a text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.evaluation.logit_run import LogitRun
from lapidist.evaluation.windows import Window
from lapidist.models.decoder import Decoder

Progress = Callable[[int, int], None]
"""Told the tokens that have been computed, and all."""

# The exponential of more is no float64. A guess of one token among 2^1000 costs less.
_LARGEST_LOSS = 700.0


@dataclass(frozen=True)
class WindowLoss:
    """Of a window's scored tokens: negative log-likelihood, how many they are, and their bytes of text."""

    nats: float
    predictions: int
    byte_count: int
    is_full: bool

    @property
    def mean(self) -> float:
        return self.nats / self.predictions


@dataclass(frozen=True)
class Perplexity:
    """Losses of a text's windows, and what they come to."""

    windows: tuple[WindowLoss, ...]

    @property
    def perplexity(self) -> float:
        """By the protocol of publications: the exponential of the mean over full windows of each one's mean loss.

        A shorter last window does not count, unless it is the only one.
        """
        means = [window.mean for window in self.windows if window.is_full]
        return math.exp(sum(means) / len(means)) if means else self.token_perplexity

    @property
    def token_perplexity(self) -> float:
        """The exponential of the mean loss over all predictions."""
        return math.exp(self.nats / self.predictions)

    @property
    def bits_per_byte(self) -> float:
        """Negative log-likelihood in bits over the bytes of the scored text: does not depend on the tokenizer."""
        return self.nats / math.log(2) / self.byte_count if self.byte_count else math.nan

    @property
    def nats(self) -> float:
        return math.fsum(window.nats for window in self.windows)

    @property
    def predictions(self) -> int:
        return sum(window.predictions for window in self.windows)

    @property
    def byte_count(self) -> int:
        return sum(window.byte_count for window in self.windows)


def measure_perplexity(
    decoder: Decoder, windows: Sequence[Window], progress: Progress = lambda done, total: None
) -> Perplexity:
    """Run ``decoder`` over ``windows``, of which there is at least one.

    Raises
    ------
    ValueError : a loss is no number, or beyond all measure.
    """
    run = LogitRun(decoder, max(len(window.token_ids) for window in windows))
    done, total = 0, sum(len(window.token_ids) for window in windows)
    losses = []
    progress(done, total)
    for window in windows:
        nats = sum(float(token_losses(*block).double().sum()) for block in run.blocks(window))
        losses.append(window_loss(window, nats))
        done += len(window.token_ids)
        progress(done, total)
    return Perplexity(tuple(losses))


def token_losses(targets: Tensor, logits: Tensor) -> Tensor:
    """Negative log-likelihoods in nats of ``targets``, both ``[rows]``, under ``logits`` ``[rows, vocab_size]``."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def window_loss(window: Window, nats: float) -> WindowLoss:
    """The loss of a window; raises ValueError as ``measure_perplexity`` does."""
    loss = WindowLoss(nats, window.predictions, window.byte_count, window.is_full)
    if not loss.mean < _LARGEST_LOSS:  # nor is NaN
        raise ValueError(
            f"the model's loss is {loss.mean:g} nats per token: its weights are damaged, or its numbers do not fit "
            "the dtype (try float32)"
        )
    return loss
