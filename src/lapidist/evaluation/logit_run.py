"""A decoder's predictions over a window, a block of rows at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lapidist.evaluation.windows import Window
from lapidist.models.calibration.context_buckets import chunks
from lapidist.models.calibration.sequence_run import SequenceRun

# With a vocabulary of 128 thousand a row of logits takes half a megabyte.
BLOCK_ROWS = 128


class LogitRun(SequenceRun):
    """A decoder with a KV cache of its own, over windows of up to ``context`` tokens."""

    def blocks(self, window: Window) -> Iterator[tuple[Tensor, Tensor]]:
        """The window's scored tokens in order: int64 ``[rows]`` and the logits that predict them, float32 ``[rows,
        vocab_size]``, of at most ``BLOCK_ROWS`` rows. All decoders cut a window into the same blocks."""
        targets = torch.tensor(window.token_ids[1:], device=self._decoder.device)
        for span in chunks(len(window.token_ids)):
            hidden = self._decoder.forward(self._batch(window.token_ids, span), self._cache)
            end = min(span.stop, len(targets))
            for start in range(max(span.start, window.first_scored - 1), end, BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, end)
                logits = self._decoder.logits(hidden[start - span.start : stop - span.start])
                yield targets[start:stop], logits
