"""What a request does to its logits before a token is chosen; everything here works in place."""

import math
from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
import torch

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.sequence_sampling import SequenceSampling


class TokenMask(Protocol):
    """Says which tokens may come next."""

    def fill_mask(self, row: torch.Tensor) -> None:
        """Set bit ``t % 32`` of ``row[t // 32]`` for every allowed token ``t`` and clear the other bits.

        ``row`` is int32 [ceil(vocab / 32)] on the CPU.

        Raises
        ------
        InvalidRequestError : the constraint became too complex to follow.
        """


def add_biases(
    x: torch.Tensor, states: Sequence[SequenceSampling], masks: Sequence[TokenMask | None]
) -> None:
    """``min_tokens`` (except for rows with a mask, whose mask takes it in) and ``logit_bias``."""
    biases: list[tuple[int, int, float]] = []
    for i, (state, mask) in enumerate(zip(states, masks, strict=True)):
        if mask is None:
            biases += [(i, token_id, -math.inf) for token_id in state.forbidden]
        biases += [(i, token_id, value) for token_id, value in (state.params.logit_bias or {}).items()]
    if biases:
        rows, ids, values = zip(*biases, strict=True)
        index = torch.tensor([rows, ids], device=x.device)
        x.index_put_((index[0], index[1]), torch.tensor(values, device=x.device), accumulate=True)


def apply_masks(
    x: torch.Tensor, states: Sequence[SequenceSampling], masks: Sequence[TokenMask | None]
) -> dict[int, str]:
    """Rule out what the masks do; returns the rows whose mask failed, and why."""
    constrained = [(i, mask) for i, mask in enumerate(masks) if mask is not None]
    failed: dict[int, str] = {}
    if not constrained:
        return failed
    bits = torch.zeros(len(constrained), (x.shape[1] + 31) // 32, dtype=torch.int32)
    for row, (i, mask) in zip(bits, constrained, strict=True):
        try:
            mask.fill_mask(row)
        except InvalidRequestError as error:
            failed[i] = str(error)
        _clear_bits(row, states[i].forbidden)
    octets = bits.numpy().view(np.uint8)
    allowed = torch.from_numpy(np.unpackbits(octets, axis=1, count=x.shape[1], bitorder="little"))
    ruled_out = allowed.to(x.device) == 0
    if len(constrained) == len(x):
        x.masked_fill_(ruled_out, -math.inf)
    else:
        rows = [i for i, _ in constrained]
        x[rows] = x[rows].masked_fill_(ruled_out, -math.inf)
    return failed


def _clear_bits(row: torch.Tensor, token_ids: Collection[int]) -> None:
    """Forbid tokens unless nothing else is allowed: a complete text may end before ``min_tokens``."""
    if token_ids:
        octets = row.view(torch.uint8).clone()
        for token_id in token_ids:
            octets[token_id // 8] &= ~(1 << token_id % 8)
        if octets.any():
            row.copy_(octets.view(torch.int32))


def apply_penalties(x: torch.Tensor, states: Sequence[SequenceSampling]) -> None:
    """Repetition (CTRL, arXiv 1909.05858), then frequency and presence penalties (as OpenAI defines them)."""
    penalised = [(i, state.params, state.seen) for i, state in enumerate(states) if state.seen is not None]
    if not penalised:
        return
    lengths = torch.tensor([len(seen.ids) for _, _, seen in penalised])

    def per_token(values: list[float]) -> torch.Tensor:
        return torch.tensor(values).repeat_interleave(lengths).to(x.device)

    rows = per_token([i for i, _, _ in penalised])
    ids = torch.cat([seen.ids for _, _, seen in penalised]).to(x.device)
    counts = torch.cat([seen.counts for _, _, seen in penalised]).to(x.device)
    repetition = per_token([params.repetition_penalty for _, params, _ in penalised])
    frequency = per_token([params.frequency_penalty for _, params, _ in penalised])
    presence = per_token([params.presence_penalty for _, params, _ in penalised])
    values = x[rows, ids]
    values = torch.where(values > 0, values / repetition, values * repetition)
    x[rows, ids] = values - frequency * counts - presence * (counts > 0)
