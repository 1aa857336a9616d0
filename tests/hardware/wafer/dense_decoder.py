"""A Llama decoder in a few lines of NumPy: the truth that meshes are compared with."""

from dataclasses import dataclass

import numpy as np

from lapidist.hardware.wafer.decoder_weights import DecoderWeights, LayerWeights


@dataclass(frozen=True)
class SmallShape:
    """A decoder's shape as ``workload.lowering.DecoderShape`` wants it."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_layers: int = 2
    vocab_size: int = 101
    hidden_act: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sandwich_norms: bool = False
    sliding_windows: tuple[int | None, ...] = ()
    embedding_scale: float = 1.0
    final_softcap: float | None = None


def random_weights(shape: SmallShape, seed: int = 0, kind: type = np.float32) -> DecoderWeights:
    """Parameters with which activations keep their size and greedy choices are far apart."""
    rng = np.random.default_rng(seed)

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> np.ndarray:
        return (rng.standard_normal((outputs, inputs)) * gain * inputs**-0.5).astype(kind)

    def norm() -> np.ndarray:
        return rng.uniform(0.5, 1.5, shape.hidden_size).astype(kind)

    def bias(channels: int) -> np.ndarray | None:
        return rng.standard_normal(channels).astype(kind) if shape.qkv_bias else None

    hidden, wide = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    layers = [
        LayerWeights(
            norm1=norm(),
            query=matrix(queries, hidden, 1.5),
            key=matrix(keys, hidden, 1.5),
            value=matrix(keys, hidden),
            output=matrix(hidden, queries),
            norm2=norm(),
            gate=matrix(wide, hidden),
            up=matrix(wide, hidden),
            down=matrix(hidden, wide),
            query_bias=bias(queries),
            key_bias=bias(keys),
            value_bias=bias(keys),
        )
        for _ in range(shape.num_layers)
    ]
    return DecoderWeights(
        embedding=matrix(shape.vocab_size, hidden, hidden**0.5),
        layers=layers,
        norm=norm(),
        head=matrix(shape.vocab_size, hidden, 3.0),
        rope_frequencies=10000.0 ** (-np.arange(shape.head_dim // 2) * 2 / shape.head_dim),
        norm_eps=1e-5,
    )


def dense_logits(shape: SmallShape, weights: DecoderWeights, tokens: list[int]) -> np.ndarray:
    """Logits of every token of a sequence, ``[tokens, vocab_size]``, in double precision."""
    x = weights.embedding[tokens].astype(np.float64)
    windows = shape.sliding_windows or (None,) * shape.num_layers
    for layer, window in zip(weights.layers, windows, strict=True):
        x = x + _attention(shape, weights, layer, window, _norm(x, layer.norm1, weights.norm_eps))
        inner = _norm(x, layer.norm2, weights.norm_eps)
        gate = inner @ layer.gate.T.astype(np.float64)
        x = x + (gate / (1 + np.exp(-gate)) * (inner @ layer.up.T)) @ layer.down.T
    return _norm(x, weights.norm, weights.norm_eps) @ weights.head.T.astype(np.float64)


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps) * weight


def _attention(
    shape: SmallShape, weights: DecoderWeights, layer: LayerWeights, window: int | None, x: np.ndarray
) -> np.ndarray:
    count = len(x)
    query, key, value = x @ layer.query.T, x @ layer.key.T, x @ layer.value.T
    if shape.qkv_bias:
        query, key, value = query + layer.query_bias, key + layer.key_bias, value + layer.value_bias
    query = query.reshape(count, shape.num_heads, shape.head_dim)
    key = key.reshape(count, shape.num_kv_heads, shape.head_dim)
    value = value.reshape(count, shape.num_kv_heads, shape.head_dim)
    angles = np.arange(count)[:, None] * weights.rope_frequencies
    query, key = _rotate(query, angles), _rotate(key, angles)
    shared = shape.num_heads // shape.num_kv_heads
    scores = np.einsum("qhd,khd->hqk", query, key.repeat(shared, axis=1)) * shape.head_dim**-0.5
    seen = np.tri(count, dtype=bool)
    if window is not None:
        seen &= ~np.tri(count, k=-window, dtype=bool)
    scores = np.where(seen, scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    merged = np.einsum("hqk,khd->qhd", scores, value.repeat(shared, axis=1)).reshape(count, -1)
    return merged @ layer.output.T


def _rotate(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
