"""How far a candidate's predictions are from a reference's, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.evaluation.logit_run import LogitRun
from lapidist.evaluation.perplexity import Perplexity, Progress, WindowLoss, token_losses, window_loss
from lapidist.evaluation.windows import Window
from lapidist.models.decoder import Decoder


@dataclass(frozen=True)
class Divergence:
    """KL(reference || candidate) in nats over the scored tokens, and how often both find the same token likeliest."""

    mean: float
    median: float
    percentile_99: float
    maximum: float
    top1_agreement: float
    predictions: int


@dataclass(frozen=True)
class Comparison:
    """Two decoders on the same windows."""

    reference: Perplexity
    candidate: Perplexity
    divergence: Divergence


def compare(
    reference: Decoder,
    candidate: Decoder,
    windows: Sequence[Window],
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Run both over ``windows``, of which there is at least one, in step: logits live for a block of rows.

    Raises
    ------
    ValueError : the vocabularies differ in size, or a loss is no number.
    """
    check_vocabularies(reference.config.vocab_size, candidate.config.vocab_size)
    context = max(len(window.token_ids) for window in windows)
    runs = LogitRun(reference, context), LogitRun(candidate, context)
    losses: tuple[list[WindowLoss], list[WindowLoss]] = ([], [])
    divergences: list[Tensor] = []
    agreements = 0
    done, total = 0, sum(len(window.token_ids) for window in windows)
    progress(done, total)
    for window in windows:
        nats = [0.0, 0.0]
        for (targets, expected), (_, found) in zip(*(run.blocks(window) for run in runs), strict=True):
            for index, logits in enumerate((expected, found)):
                nats[index] += float(token_losses(targets, logits).double().sum())
            divergences.append(token_divergences(expected, found).cpu())
            agreements += int((expected.argmax(-1) == found.argmax(-1)).sum())
        for own, own_nats in zip(losses, nats, strict=True):
            own.append(window_loss(window, own_nats))
        done += len(window.token_ids)
        progress(done, total)
    return Comparison(
        Perplexity(tuple(losses[0])),
        Perplexity(tuple(losses[1])),
        _summary(torch.cat(divergences), agreements),
    )


def check_vocabularies(reference: int, candidate: int) -> None:
    """Refuse models of different vocabulary sizes, whose distributions cannot be compared; raises ValueError."""
    if reference != candidate:
        raise ValueError(
            f"the reference has a vocabulary of {reference} tokens and the candidate one of {candidate}: compare "
            "checkpoints of the same model"
        )


def token_divergences(reference: Tensor, candidate: Tensor) -> Tensor:
    """KL(reference || candidate) in nats, ``[rows]``, of two ``[rows, vocab_size]`` of logits."""
    expected = reference.log_softmax(-1)
    difference = expected - candidate.log_softmax(-1)
    # Rounding can leave a sum of zero a little below it.
    return (expected.exp() * difference).sum(-1).clamp_min(0)


def _summary(divergences: Tensor, agreements: int) -> Divergence:
    ordered = divergences.double().sort().values
    last = len(ordered) - 1
    median, percentile_99 = (float(ordered[round(share * last)]) for share in (0.5, 0.99))
    return Divergence(
        mean=float(ordered.mean()),
        median=median,
        percentile_99=percentile_99,
        maximum=float(ordered[-1]),
        top1_agreement=agreements / len(ordered),
        predictions=len(ordered),
    )
