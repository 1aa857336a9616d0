"""Choosing the next token of every sequence in a batch, each by its own parameters."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lapidist.engine.drawing import draw
from lapidist.engine.logit_processing import TokenMask, add_biases, apply_masks, apply_penalties
from lapidist.engine.logprobs import TokenLogprob, token_logprobs
from lapidist.engine.sequence_sampling import SequenceSampling, validate_against_vocabulary

__all__ = [
    "SampledToken",
    "Sampler",
    "SequenceSampling",
    "TokenLogprob",
    "TokenMask",
    "token_logprobs",
    "validate_against_vocabulary",
]


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The next token of a sequence.

    ``logprobs`` starts with the token itself, whose log-probability is also ``logprob``. Both are of the
    model's own distribution, and there (not None, not NaN) only if the request asked for log-probabilities.
    Where ``error`` says why no token could be chosen, the rest means nothing.
    """

    token_id: int
    logprob: float = math.nan
    logprobs: list[TokenLogprob] | None = None
    error: str | None = None


class Sampler:
    """Samples batches of rows with a different :class:`SequenceSampling` each.

    A row's logits pass, in this order: ``min_tokens``, ``logit_bias``, token mask, repetition, frequency and
    presence penalties. Greedy rows then take the likeliest token, the lowest id of equals. The others pass
    temperature, ``min_p``, ``top_k`` and ``top_p``, and draw by inverting the cumulative distribution at one
    uniform random number. Tokens exactly as likely as the last one that a filter keeps are kept too, so the
    result depends neither on how equals were sorted nor on the other rows.

    Parameters
    ----------
    seed : of the random stream shared by the sequences that have no seed of their own.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def sample(
        self,
        logits: torch.Tensor,
        states: Sequence[SequenceSampling],
        masks: Sequence[TokenMask | None] | None = None,
    ) -> list[SampledToken]:
        """One token per row. The caller appends it to the row's state.

        A row with NaN or infinite logits, or with no token allowed, gets a token with ``error`` set; the
        other rows are not affected.

        Parameters
        ----------
        logits : float32 [rows, vocab] on any device; left as it is.
        states, masks : [rows].
        """
        masks = masks or [None] * len(states)
        chosen = _Chosen([0] * len(states), {})
        plain = [row for row, state in enumerate(states) if state.is_plain_greedy and masks[row] is None]
        if plain:
            chosen.add(plain, _likeliest(logits if len(plain) == len(states) else _copy(logits, plain)))
        others = sorted(set(range(len(states))).difference(plain))
        # One row at a time stays in a CPU core's cache; a GPU wants them all at once.
        blocks = [[row] for row in others] if logits.device.type == "cpu" else [others]
        for block in filter(None, blocks):
            own = [states[row] for row in block]
            self._sample_block(_copy(logits, block), block, own, [masks[row] for row in block], chosen)
        return [
            _finished(logits, row, state, token_id, chosen.errors.get(row))
            for row, (state, token_id) in enumerate(zip(states, chosen.token_ids, strict=True))
        ]

    def _sample_block(
        self,
        x: torch.Tensor,
        block: Sequence[int],
        states: Sequence[SequenceSampling],
        masks: Sequence[TokenMask | None],
        chosen: "_Chosen",
    ) -> None:
        """Choose for some rows; ``x`` (overwritten), ``states`` and ``masks`` are theirs."""
        add_biases(x, states, masks)
        failed = apply_masks(x, states, masks)
        chosen.errors |= {block[i]: reason for i, reason in failed.items()}
        apply_penalties(x, states)
        best = _likeliest(x)
        chosen.add(block, best)
        drawn = [i for i, state in enumerate(states) if not state.params.greedy and math.isfinite(best[i][1])]
        if drawn:
            rows = [states[i] for i in drawn]
            uniforms = [state.uniform(self._random) for state in rows]
            ids = draw(x if len(drawn) == len(block) else _copy(x, drawn), rows, uniforms)
            for i, token_id in zip(drawn, ids, strict=True):
                chosen.token_ids[block[i]] = token_id


@dataclass
class _Chosen:
    """Token of every row, and what went wrong in some of them."""

    token_ids: list[int]
    errors: dict[int, str]

    def add(self, rows: Sequence[int], best: Sequence[tuple[int, float]]) -> None:
        for row, (token_id, peak) in zip(rows, best, strict=True):
            self.token_ids[row] = token_id
            if peak == -math.inf:
                self.errors.setdefault(row, "no token is possible under the constraints of the request")
            elif not math.isfinite(peak):
                self.errors.setdefault(row, "the model computed NaN or infinite logits")


def _copy(x: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    if x.device.type == "cpu":
        return torch.from_numpy(x.numpy()[rows])
    return x[rows]


def _likeliest(x: torch.Tensor) -> list[tuple[int, float]]:
    """Of each row the highest logit's id (the lowest of equals) and value; NaN counts as highest."""
    if x.device.type == "cpu":
        # Several times faster than torch.argmax, which does not vectorise over a row.
        array = x.numpy()
        ids = array.argmax(-1)
        return list(zip(ids.tolist(), array[range(len(ids)), ids].tolist(), strict=True))
    best = x.argmax(-1, keepdim=True)
    return list(zip(best[:, 0].tolist(), x.gather(1, best)[:, 0].tolist(), strict=True))


def _finished(
    logits: torch.Tensor, row: int, state: SequenceSampling, token_id: int, error: str | None
) -> SampledToken:
    """The token of one row, with log-probabilities if it asked for them."""
    if error is not None or state.params.logprobs is None:
        return SampledToken(token_id, error=error)
    [entries] = token_logprobs(logits[row : row + 1], [token_id], state.params.logprobs)
    return SampledToken(token_id, entries[0][1], entries)
