"""Runs a scheduled step on the model: builds the batch, calls the decoder, returns the logits that are wanted."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from lapidist.engine.prompt_filters.outcome import KeptKV
from lapidist.engine.scheduler import ScheduledSequence, ScheduledStep
from lapidist.engine.sequence import Sequence
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.models.batch import Batch
from lapidist.models.decoder import Decoder

# Prompt log-probabilities need logits for every prompt token; so many rows are in memory at once.
_PROMPT_LOGIT_ROWS = 64


@dataclass(frozen=True)
class PromptLogits:
    """Logits ``[rows, vocab]`` that predict prompt tokens ``first`` to ``first + rows``."""

    first: int
    logits: Tensor


class StepResult:
    """Hidden states of a step; logits are computed when asked for.

    ``sampling_entries[i]`` is the sequence whose next token row ``i`` of ``sampling_logits()`` decides.

    Parameters
    ----------
    hidden : ``[tokens, hidden_size]`` of all entries' tokens, one entry after the other.
    restored : of entries without a token that sample nevertheless, by index, what a filter left to sample from.
    restored_tokens : of each sequence whose keys and values a filter handed over, how many tokens these were.
    """

    def __init__(
        self,
        decoder: Decoder,
        hidden: Tensor,
        scheduled: list[ScheduledSequence],
        restored: dict[int, Tensor],
        restored_tokens: list[int],
    ) -> None:
        self._decoder = decoder
        self._hidden = hidden
        self._scheduled = scheduled
        self._restored = restored
        self.restored_tokens = restored_tokens
        self._starts = [0, *accumulate(entry.num_tokens for entry in scheduled)]
        self.sampling_entries = [entry for entry in scheduled if entry.samples]

    def sampling_logits(self) -> Tensor:
        """float32 ``[len(sampling_entries), vocab]``."""
        rows = [
            end - 1 for entry, end in zip(self._scheduled, self._starts[1:], strict=True) if entry.samples
        ]
        hidden = self._hidden
        if self._restored:
            # They come behind all others.
            hidden = torch.cat([hidden, *self._restored.values()])
            sampling = [index for index, entry in enumerate(self._scheduled) if entry.samples]
            for place, index in enumerate(self._restored):
                rows[sampling.index(index)] = len(self._hidden) + place
        return self._decoder.logits(hidden[torch.tensor(rows, device=hidden.device)])

    def prompt_logits(self, index: int) -> Iterator[PromptLogits]:
        """Logits of the prompt tokens that follow those which entry ``index`` of the step has just computed."""
        entry = self._scheduled[index]
        # Row i predicts token start + i + 1; the prompt's last row predicts no prompt token.
        rows = min(entry.end, entry.sequence.prompt_length - 1) - entry.start
        for offset in range(0, rows, _PROMPT_LOGIT_ROWS):
            start = self._starts[index] + offset
            count = min(_PROMPT_LOGIT_ROWS, rows - offset)
            yield PromptLogits(
                entry.start + offset + 1, self._decoder.logits(self._hidden[start : start + count])
            )


class Runner:
    """The decoder and its KV cache.

    Parameters
    ----------
    num_pages, page_size : size of the KV cache; one page holds ``page_size`` tokens of every layer.
    """

    def __init__(self, decoder: Decoder, num_pages: int, page_size: int) -> None:
        config = decoder.config
        self.decoder = decoder
        self.page_size = page_size
        self.cache = PagedKVCache(
            config.num_layers,
            num_pages,
            page_size,
            config.num_kv_heads,
            config.head_dim,
            decoder.dtype,
            decoder.device,
            decoder.kv_bits,
        )
        self._handed_over: dict[Sequence, KeptKV] = {}

    def hand_over(self, sequence: Sequence, kept: KeptKV) -> None:
        """Hold the keys and values that a filter kept until the sequence has pages for them."""
        self._handed_over[sequence] = kept

    def forget(self, sequence: Sequence) -> None:
        """The sequence is gone."""
        self._handed_over.pop(sequence, None)

    @torch.inference_mode()
    def run(self, step: ScheduledStep) -> StepResult:
        """One forward pass over every scheduled token."""
        restored, restored_tokens = {}, []
        for index, entry in enumerate(step.scheduled):
            kept = self._handed_over.pop(entry.sequence, None)
            if kept is not None:
                self._restore(entry.sequence, kept)
                restored_tokens.append(kept.tokens)
                if entry.num_tokens == 0:
                    restored[index] = kept.last_hidden
        computed = [entry for entry in step.scheduled if entry.num_tokens]
        if computed:
            hidden = self.decoder.forward(self._batch(computed), self.cache)
        else:
            hidden = torch.empty(
                0, self.decoder.config.hidden_size, dtype=self.decoder.dtype, device=self.decoder.device
            )
        return StepResult(self.decoder, hidden, step.scheduled, restored, restored_tokens)

    def _restore(self, sequence: Sequence, kept: KeptKV) -> None:
        slots = torch.tensor(self._slots(sequence, range(kept.tokens)), device=self.decoder.device)
        for layer, (keys, values) in enumerate(zip(kept.keys, kept.values, strict=True)):
            self.cache.write(layer, slots, keys, values)

    def _slots(self, sequence: Sequence, places: range) -> list[int]:
        size, pages = self.page_size, sequence.pages
        return [pages[place // size] * size + place % size for place in places]

    def _batch(self, scheduled: list[ScheduledSequence]) -> Batch:
        token_ids: list[int] = []
        positions: list[int] = []
        rope_lengths: list[int] = []
        slots: list[int] = []
        for entry in scheduled:
            sequence = entry.sequence
            own = sequence.positions(entry.start, entry.end)
            token_ids += sequence.token_ids[entry.start : entry.end]
            positions += own
            rope_lengths += [max(sequence.rope_length, position + 1) for position in own]
            slots += self._slots(sequence, range(entry.start, entry.end))
        device = self.decoder.device
        integers = torch.tensor([token_ids, positions, rope_lengths], device=device)
        layout = PagedLayout.build(
            slots,
            [entry.num_tokens for entry in scheduled],
            [entry.end for entry in scheduled],
            [entry.sequence.pages[: -(-entry.end // self.page_size)] for entry in scheduled],
            device,
        )
        return Batch(integers[0], integers[1], integers[2], layout)
