"""The physics of attention on a GPU, before anything is learned: arithmetic in tiles, exponentials, memory, launch.

``T = launch + (T_tensor^p + T_memory^p + T_exp^p)^(1/p)`` with

* ``T_tensor``: QK^T and PV on tensor cores. Prefill works on causal tiles of 128 x 128, spread over the SMs as
  FlashAttention does (arXiv 2307.08691): no SM finishes before the longest tile row, and none works on tiles outside
  mask or window;
* ``T_memory``: queries, keys, values and outputs once; in decoding the whole visible KV cache;
* ``T_exp``: one exponential per score, at 16 per cycle and SM.

In decoding the queries of one KV head are packed as the rows of one tile (grouped-query attention), and long sequences
are cut so that few sequences still fill the machine (FlashDecoding). Groups of more than 32 fall off that path in
measured kernels; the features tell the regimes apart.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.data_sheet import ComputeType, DataSheet

FloatArray = NDArray[np.float64]
_TILE = 128
_EXPONENTIALS_PER_CYCLE_PER_SM = 16
_LARGEST = 2**24


@dataclass(frozen=True, eq=False)
class AttentionShapes:
    """Arrays of one shape: one element is one kernel over a batch of equal sequences.

    Attributes
    ----------
    batch, query_length, kv_length : ``query_length`` new tokens of each sequence, on ``kv_length`` including them.
    window : of sliding-window attention; 0 sees everything.
    compute_bytes : of an element as the tensor cores multiply it, 2 (bf16, fp16) or 1 (fp8).
    kv_bytes : of an element of the cache, scales included.
    """

    batch: FloatArray
    query_length: FloatArray
    kv_length: FloatArray
    heads: FloatArray
    kv_heads: FloatArray
    head_dim: FloatArray
    window: FloatArray
    compute_bytes: FloatArray
    kv_bytes: FloatArray

    @staticmethod
    def of(
        batch: ArrayLike,
        query_length: ArrayLike,
        kv_length: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
        window: ArrayLike = 0,
        compute_bytes: ArrayLike = 2,
        kv_bytes: ArrayLike = 2,
    ) -> "AttentionShapes":
        """Checked and broadcast. Batch and lengths need not be whole: they may stand for a batch of unequal sequences.

        Raises
        ------
        ValueError : a value out of range; more KV heads than heads; more new tokens than tokens.
        """
        given = {
            "batch": (batch, 1.0, _LARGEST),
            "query_length": (query_length, 1.0, _LARGEST),
            "kv_length": (kv_length, 1.0, _LARGEST),
            "heads": (heads, 1.0, 4096.0),
            "kv_heads": (kv_heads, 1.0, 4096.0),
            "head_dim": (head_dim, 8.0, 1024.0),
            "window": (window, 0.0, _LARGEST),
            "compute_bytes": (compute_bytes, 1.0, 4.0),
            "kv_bytes": (kv_bytes, 0.25, 8.0),
        }
        arrays = [_checked(name, *value) for name, value in given.items()]
        shapes = AttentionShapes(*np.broadcast_arrays(*arrays))
        if (shapes.query_length > shapes.kv_length).any():
            raise ValueError("query_length must not exceed kv_length, which includes the new tokens")
        if (shapes.kv_heads > shapes.heads).any():
            raise ValueError("kv_heads must not exceed heads")
        return shapes

    def flat(self) -> "AttentionShapes":
        return AttentionShapes(*(np.ravel(values) for values in vars(self).values()))

    def take(self, rows: NDArray[np.bool_]) -> "AttentionShapes":
        return AttentionShapes(*(values[rows] for values in vars(self).values()))

    @property
    def group(self) -> FloatArray:
        """Query heads per KV head."""
        return self.heads / self.kv_heads

    @property
    def effective_window(self) -> FloatArray:
        """0 where the window sees everything anyway."""
        return np.where(self.window >= self.kv_length, 0.0, self.window)

    @property
    def visible_kv(self) -> FloatArray:
        """Cached and new tokens that at least one query sees."""
        window = self.effective_window
        return np.where(
            window > 0, np.minimum(self.kv_length, window - 1 + self.query_length), self.kv_length
        )

    @property
    def pairs(self) -> FloatArray:
        """Query-key pairs inside mask and window, over batch and heads."""
        first, last = self.kv_length - self.query_length + 1, self.kv_length
        limit = np.where(self.effective_window > 0, self.effective_window, self.kv_length)
        knee = np.minimum(last, np.maximum(limit, first - 1))
        seen = (first + knee) * (knee - first + 1) / 2 + (last - knee) * limit
        return self.batch * self.heads * seen

    @property
    def kv_cache_bytes(self) -> FloatArray:
        """Keys and values that the batch sees, as they lie in the cache."""
        return 2 * self.batch * self.kv_heads * self.head_dim * self.visible_kv * self.kv_bytes

    def minimum_bytes(self) -> FloatArray:
        """16-bit queries in, outputs out; the visible cache and the new tokens' keys and values once."""
        width = 2 * self.heads + np.where(self.query_length > 1, 0, 2 * self.kv_heads)
        return 2 * self.batch * self.query_length * self.head_dim * width + self.kv_cache_bytes


def lower_bound_seconds(shapes: AttentionShapes, sheet: DataSheet) -> FloatArray:
    """No kernel is faster: useful arithmetic at the maximum clock, and what cannot stay in L2 at full bandwidth."""
    rate = _rate(shapes, sheet, "max")
    beyond_l2 = np.maximum(shapes.minimum_bytes() - sheet.l2_bytes, 0.0)
    return np.maximum(4 * shapes.head_dim * shapes.pairs / rate, beyond_l2 / sheet.memory_bytes_per_second)


@dataclass(frozen=True, eq=False)
class Terms:
    """Seconds at the data sheet's full rates, and scale-free features for what the law leaves over."""

    tensor: FloatArray
    memory: FloatArray
    exponential: FloatArray
    features: FloatArray


@dataclass(frozen=True)
class LawParameters:
    """What a data sheet does not tell, fitted per GPU, backend and regime; efficiencies are parts of the full rate."""

    launch_seconds: float
    tensor_efficiency: float
    memory_efficiency: float
    exponent: float
    exponential_efficiency: float

    def seconds(self, tensor: FloatArray, memory: FloatArray, exponential: FloatArray) -> FloatArray:
        p = self.exponent
        busy = (
            (tensor / self.tensor_efficiency) ** p
            + (memory / self.memory_efficiency) ** p
            + (exponential / self.exponential_efficiency) ** p
        )
        return self.launch_seconds + busy ** (1 / p)


def prefill_terms(shapes: AttentionShapes, sheet: DataSheet) -> Terms:
    s, sms = shapes, sheet.sms
    window = s.effective_window
    tile_rows = np.ceil(s.query_length / _TILE)
    tiles = _causal_tiles(s.query_length, s.kv_length, window, _TILE)
    tile_flops = 4 * s.head_dim * _TILE * _TILE
    row_length = tiles / tile_rows
    longest_row = np.where(
        window > 0,
        np.minimum(np.ceil(s.kv_length / _TILE), np.ceil((window + _TILE - 1) / _TILE) + 1),
        np.ceil(s.kv_length / _TILE),
    )
    units = s.batch * s.heads * tile_rows
    work = s.batch * s.heads * tiles / sms
    span = np.maximum(work, longest_row)
    tensor = span * tile_flops / (_rate(s, sheet) / sms)
    exponential = s.batch * s.heads * tiles * _TILE * _TILE / _exponential_rate(sheet)
    kv_bytes = 4 * s.visible_kv * s.kv_heads * s.head_dim
    new_kv_bytes = 2 * s.query_length * s.kv_heads * s.head_dim * s.kv_bytes
    memory = s.batch * (4 * s.query_length * s.heads * s.head_dim + kv_bytes + new_kv_bytes)
    memory = memory / sheet.memory_bytes_per_second
    waves, half_waves = units / sms, s.batch * s.heads * np.ceil(s.query_length / 64) / sms
    head_waves = s.batch * s.heads / sms
    half_tiles = _causal_tiles(s.query_length, s.kv_length, window, 64)
    columns = (
        np.log2(s.batch * s.heads * tiles * _TILE**2 / s.pairs),
        np.log2(s.batch * s.heads * half_tiles * 64**2 / s.pairs),
        np.log2(span / work),
        np.log2(np.ceil(waves) * row_length / work),
        np.log2(waves),
        np.ceil(waves) / waves,
        np.ceil(half_waves) / half_waves,
        np.log2(row_length),
        np.ceil(head_waves) / head_waves,
        np.log2(s.group),
        s.head_dim,
        np.log2(s.query_length),
        _window_octaves(s, window),
        np.log2(1 + window),
        s.compute_bytes,
        s.kv_bytes,
        np.log2(s.batch * kv_bytes / sheet.l2_bytes),
        np.log2(4 * s.visible_kv * s.head_dim * sms / sheet.l2_bytes),
        np.log2(tensor / memory),
        np.log2(s.batch * s.query_length),
        np.log2(s.batch * s.query_length * s.heads),
        np.log2(tensor),
        np.log2(memory),
    )
    return Terms(tensor, memory, exponential, np.column_stack(columns))


def decode_terms(shapes: AttentionShapes, sheet: DataSheet) -> Terms:
    s, sms = shapes, sheet.sms
    window = s.effective_window
    visible = s.visible_kv
    cache = s.kv_cache_bytes
    rate = _rate(s, sheet)
    memory = s.minimum_bytes() / sheet.memory_bytes_per_second
    tensor = 4 * s.head_dim * s.batch * s.heads * visible / rate
    exponential = s.batch * s.heads * visible / _exponential_rate(sheet)
    # The rows that a tensor core tile spends on one KV head's queries.
    group = s.group
    padded = np.where(
        group <= 1, 1, np.where(group <= 16, 16, np.where(group <= 32, 32, np.ceil(group / 64) * 64))
    )
    waves, head_waves = s.batch * s.kv_heads / sms, s.batch * s.heads / sms
    splits = np.clip(np.floor(1 / waves), 1, np.maximum(1, visible / 256))
    fine_splits = np.clip(np.floor(2 / waves), 1, np.maximum(1, visible / 64))
    columns = (
        np.log2(4 * s.head_dim * s.batch * s.kv_heads * padded * visible / rate / memory),
        np.log2(waves),
        np.ceil(waves) / waves,
        np.ceil(waves / 2) / (waves / 2),
        np.log2(head_waves),
        np.ceil(head_waves) / head_waves,
        np.log2(group),
        np.log2(padded),
        decode_regime(s),
        np.log2(s.heads),
        np.log2(s.kv_heads),
        s.head_dim,
        np.log2(s.batch),
        np.log2(s.kv_length),
        np.log2(visible),
        _window_octaves(s, window),
        np.log2(1 + window),
        s.kv_bytes,
        np.log2(s.minimum_bytes() / sheet.l2_bytes),
        np.log2(tensor / memory),
        np.log2(cache / sms),
        np.log2(visible * s.head_dim * s.kv_bytes),
        np.log2(splits),
        np.log2(visible / splits),
        np.log2(visible / fine_splits),
        group % 8,
        s.heads % 16,
        np.log2(tensor),
        np.log2(memory),
        np.log2(exponential),
    )
    return Terms(tensor, memory, exponential, np.column_stack(columns))


def decode_regime(shapes: AttentionShapes) -> FloatArray:
    """0: one query head per KV head; 1: groups that fit a tensor core tile; 2: larger ones."""
    return np.where(shapes.group <= 1, 0.0, np.where(shapes.group <= 32, 1.0, 2.0))


def _causal_tiles(query: FloatArray, kv: FloatArray, window: FloatArray, tile: int) -> FloatArray:
    """Square tiles with at least one visible pair, of one head of one sequence; closed form of the sum over rows."""
    rows, before = np.ceil(query / tile), kv - query
    below_diagonal = (rows - 1) * rows / 2 + (rows - 1) * np.ceil(before / tile) + np.ceil(kv / tile)
    start = before + 1 - window
    first = np.clip(np.ceil(-start / tile), 0, rows)
    skipped = (first + rows - 1) * (rows - first) / 2 + np.floor(start / tile) * (rows - first)
    return below_diagonal - np.where(window > 0, np.maximum(skipped, 0.0), 0.0)


def _window_octaves(shapes: AttentionShapes, window: FloatArray) -> FloatArray:
    return np.where(window > 0, np.log2(shapes.kv_length / np.maximum(window, 1.0)), -20.0)


def _rate(shapes: AttentionShapes, sheet: DataSheet, clock: str = "boost") -> FloatArray:
    """Operations per second of the type that the tensor cores multiply; fp8 falls back to bf16 where a GPU lacks it."""
    kinds: dict[float, ComputeType] = {1.0: "fp8", 2.0: "bf16", 4.0: "tf32"}
    rates = np.empty(shapes.compute_bytes.shape)
    for size in np.unique(shapes.compute_bytes):
        kind = kinds.get(float(size))
        if kind is None:
            raise ValueError(f"attention computes in 1, 2 or 4 bytes per element, got {size:g}")
        for fallback in (kind, "bf16", "fp16", "fp32"):
            if fallback in sheet.operations_per_cycle_per_sm:
                rate = sheet.operations_per_cycle_per_sm[fallback]
                break
        megahertz = sheet.max_mhz if clock == "max" else sheet.boost_mhz
        rates[shapes.compute_bytes == size] = rate * sheet.sms * megahertz * 1e6
    return rates


def _exponential_rate(sheet: DataSheet) -> float:
    return _EXPONENTIALS_PER_CYCLE_PER_SM * sheet.sms * sheet.boost_mhz * 1e6


def _checked(name: str, values: ArrayLike, low: float, high: float) -> FloatArray:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf" or not ((array >= low) & (array <= high)).all():
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {values!r}"[:200])
    return array.astype(np.float64)
