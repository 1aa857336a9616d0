"""Seconds of one layer's attention over a batch, between measured batches and lengths."""

import math
from collections.abc import Sequence

import numpy as np

from lapidist.hardware.cpu.profile import AttentionPoint
from lapidist.workload.operators import Attention


class AttentionTable:
    """Interpolates between measured calls.

    Decodes are looked up by their number and mean length, on straight lines: a call takes so long per sequence and
    per token of context. A prefill chunk is looked up by its queries, on power laws, and the context before it. What
    several chunks and decodes in one call have in common, the call itself, counts once. Outside of what was measured
    the nearest measured value is scaled by the number of scores computed.

    Parameters
    ----------
    points : two full grids: decodes (``query_length`` 1) by ``batch`` and ``visible``; prefill chunks of one sequence
        by ``query_length`` and the visible tokens before it.

    Raises
    ------
    ValueError : a grid is not full.
    """

    def __init__(self, points: Sequence[AttentionPoint]) -> None:
        decodes = {(point.batch, point.visible): point.seconds for point in points if point.query_length == 1}
        prefills = {
            (point.query_length, point.visible - point.query_length): point.seconds
            for point in points
            if point.query_length > 1
        }
        self._decode, self._prefill = _Grid(decodes, "decode"), _Grid(prefills, "prefill")
        self._call_seconds = min(point.seconds for point in points)

    def seconds(self, sequences: Sequence[Attention]) -> float:
        """Of one call, all sequences of one layer."""
        decodes = [each.visible_kv for each in sequences if each.query_length == 1]
        own = [self._chunk_seconds(each) for each in sequences if each.query_length > 1]
        if decodes:
            own.append(self._decode_seconds(len(decodes), sum(decodes) / len(decodes)))
        return self._call_seconds + sum(max(0.0, seconds - self._call_seconds) for seconds in own)

    def _decode_seconds(self, batch: int, mean: float) -> float:
        inside_batch, inside_mean = self._decode.clamp(batch, mean)
        along = self._decode.along_columns(inside_mean)
        scores = batch * mean / (inside_batch * inside_mean)
        return float(np.interp(inside_batch, self._decode.rows, along)) * scores

    def _chunk_seconds(self, chunk: Attention) -> float:
        query, before = chunk.query_length, chunk.visible_kv - chunk.query_length
        inside_query, inside_before = self._prefill.clamp(query, before)
        along = np.log(self._prefill.along_columns(inside_before))
        power_law = math.exp(np.interp(math.log(inside_query), np.log(self._prefill.rows), along))
        return power_law * _scores(query, before) / _scores(inside_query, inside_before)


def _scores(query: float, before: float) -> float:
    """Of a causal chunk, up to a factor."""
    return query * (before + (query + 1) / 2)


class _Grid:
    """Seconds by two sizes."""

    def __init__(self, seconds: dict[tuple[int, int], float], what: str) -> None:
        rows, columns = sorted({row for row, _ in seconds}), sorted({column for _, column in seconds})
        absent = [(row, column) for row in rows for column in columns if (row, column) not in seconds]
        if not seconds or absent:
            raise ValueError(
                f"the measured {what} attention must be a full grid; absent: {absent[:3] or 'all'}"
            )
        self.rows, self._columns = np.array(rows, dtype=float), np.array(columns, dtype=float)
        self._seconds = np.array([[seconds[row, column] for column in columns] for row in rows])

    def clamp(self, row: float, column: float) -> tuple[float, float]:
        """The nearest place on the grid."""
        return (
            float(np.clip(row, self.rows[0], self.rows[-1])),
            float(np.clip(column, self._columns[0], self._columns[-1])),
        )

    def along_columns(self, column: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """``[rows]``, on straight lines between the columns."""
        return np.array([np.interp(column, self._columns, line) for line in self._seconds])
