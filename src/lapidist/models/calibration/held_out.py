"""Running mode unified on text that did not choose its phi: how many rows had to be computed again?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.models.calibration.context_buckets import COUNT, bucket_of
from lapidist.models.calibration.sequence_run import SequenceRun
from lapidist.models.decoder import Decoder

# The published method recomputes 0.45 % of the rows (FlashDecoding++, arXiv 2311.01282).
GOAL = 0.005


@dataclass(frozen=True)
class HeldOut:
    """Counts of rows (token, head).

    Attributes
    ----------
    tokens : int64 ``[buckets]``, see ``context_buckets``.
    recomputed : int64 ``[layers, buckets]``, rows that left the band.
    heads : of a layer.
    """

    tokens: Tensor
    recomputed: Tensor
    heads: int

    @property
    def rate(self) -> float:
        """Share of all rows."""
        return int(self.recomputed.sum()) / (int(self.tokens.sum()) * self.heads * len(self.recomputed))

    @property
    def by_layer(self) -> list[float]:
        rows = int(self.tokens.sum()) * self.heads
        return [count / rows for count in self.recomputed.sum(1).tolist()]

    @property
    def by_bucket(self) -> dict[int, float]:
        """Of the buckets that occurred."""
        rows = (self.tokens * self.heads * len(self.recomputed)).tolist()
        counts = self.recomputed.sum(0).tolist()
        return {bucket: counts[bucket] / of for bucket, of in enumerate(rows) if of}


def check_held_out(
    decoder: Decoder,
    sequences: Sequence[Sequence[int]],
    progress: Callable[[int], None] = lambda tokens: None,
) -> HeldOut:
    """Run ``decoder``, whose mode is unified, over ``sequences``; ``progress`` is told of each chunk's tokens."""
    config = decoder.config
    tokens = torch.zeros(COUNT, dtype=torch.long)
    recomputed = torch.zeros(config.num_layers, COUNT, dtype=torch.long)
    run = SequenceRun(decoder, max(map(len, sequences)))
    before = decoder.recomputed_rows.cpu().clone()
    for sequence in sequences:
        for span in run.run(sequence):
            bucket = bucket_of(span.stop)
            after = decoder.recomputed_rows.cpu().clone()
            recomputed[:, bucket] += after - before
            tokens[bucket] += len(span)
            before = after
            progress(len(span))
    return HeldOut(tokens, recomputed, config.num_heads)
