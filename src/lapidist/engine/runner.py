"""Runs a scheduled step on the model: builds the batch, calls the decoder, returns the logits that are wanted."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from lapidist.engine.scheduler import ScheduledSequence, ScheduledStep
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
    """

    def __init__(self, decoder: Decoder, hidden: Tensor, scheduled: list[ScheduledSequence]) -> None:
        self._decoder = decoder
        self._hidden = hidden
        self._scheduled = scheduled
        self._starts = [0, *accumulate(entry.num_tokens for entry in scheduled)]
        self.sampling_entries = [entry for entry in scheduled if entry.samples]

    def sampling_logits(self) -> Tensor:
        """float32 ``[len(sampling_entries), vocab]``."""
        rows = [
            end - 1 for entry, end in zip(self._scheduled, self._starts[1:], strict=True) if entry.samples
        ]
        return self._decoder.logits(self._hidden[torch.tensor(rows, device=self._hidden.device)])

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

    @torch.inference_mode()
    def run(self, step: ScheduledStep) -> StepResult:
        """One forward pass over every scheduled token."""
        batch = self._batch(step.scheduled)
        return StepResult(self.decoder, self.decoder.forward(batch, self.cache), step.scheduled)

    def _batch(self, scheduled: list[ScheduledSequence]) -> Batch:
        token_ids: list[int] = []
        positions: list[int] = []
        rope_lengths: list[int] = []
        slots: list[int] = []
        for entry in scheduled:
            sequence = entry.sequence
            span = range(entry.start, entry.end)
            pages = sequence.pages
            token_ids += sequence.token_ids[entry.start : entry.end]
            positions += span
            rope_lengths += [max(sequence.prompt_length, position + 1) for position in span]
            slots += [pages[p // self.page_size] * self.page_size + p % self.page_size for p in span]
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
