"""A decoder of any family in a few lines of NumPy: the truth that meshes are compared with."""

from dataclasses import dataclass
from math import erf

import numpy as np

from lapidist.hardware.wafer.decoder_weights import DecoderWeights, LayerWeights, layer_sides
from lapidist.hardware.wafer.rope import Rope

_ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + np.vectorize(erf)(x / 2**0.5)) / 2,
    "gelu_pytorch_tanh": lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
}


@dataclass(frozen=True)
class SmallShape:
    """A decoder's shape as ``workload.lowering.DecoderShape`` wants it, and what families add to it."""

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
    attention_softcap: float | None = None
    final_softcap: float | None = None
    query_scalar: float = 0.0
    rotary_dim: int = 0

    @property
    def attention_scale(self) -> float:
        return (self.query_scalar or self.head_dim) ** -0.5


def frequencies(shape: SmallShape) -> np.ndarray:
    """Radians a position of each rotated pair."""
    channels = shape.rotary_dim or shape.head_dim
    return 10000.0 ** (-np.arange(channels // 2) * 2 / channels)


def random_weights(shape: SmallShape, seed: int = 0, kind: type = np.float32) -> DecoderWeights:
    """Parameters with which activations keep their size and greedy choices are far apart."""
    rng = np.random.default_rng(seed)
    gains = {"query": 1.5, "key": 1.5}

    def parameter(name: str, sides: tuple[int, ...]) -> np.ndarray:
        if "norm" in name:
            return rng.uniform(0.5, 1.5, sides).astype(kind)
        if name.endswith("bias"):
            return rng.standard_normal(sides).astype(kind)
        return (rng.standard_normal(sides) * gains.get(name, 1.0) * sides[-1] ** -0.5).astype(kind)

    layers = [
        LayerWeights(**{name: parameter(name, sides) for name, sides in layer_sides(shape).items()})
        for _ in range(shape.num_layers)
    ]
    vocabulary = (shape.vocab_size, shape.hidden_size)
    return DecoderWeights(
        embedding=rng.standard_normal(vocabulary).astype(kind),
        layers=layers,
        norm=parameter("norm", (shape.hidden_size,)),
        head=(rng.standard_normal(vocabulary) * 3.0 * shape.hidden_size**-0.5).astype(kind),
        rope=Rope.plain(frequencies(shape)),
        norm_eps=1e-5,
    )


def dense_logits(shape: SmallShape, weights: DecoderWeights, tokens: list[int]) -> np.ndarray:
    """Logits of every token of a sequence, ``[tokens, vocab_size]``, in double precision."""
    x = weights.embedding[tokens].astype(np.float64) * shape.embedding_scale
    eps = weights.norm_eps
    windows = shape.sliding_windows or (None,) * shape.num_layers
    for layer, window in zip(weights.layers, windows, strict=True):
        attended = _attention(shape, weights, layer, window, _norm(x, layer.norm1, eps))
        x = x + (attended if layer.post_norm1 is None else _norm(attended, layer.post_norm1, eps))
        inner = _norm(x, layer.norm2, eps)
        gate = _linear(inner, layer.gate, layer.gate_bias)
        wide = _ACTIVATIONS[shape.hidden_act](gate) * _linear(inner, layer.up, layer.up_bias)
        mixed = _linear(wide, layer.down, layer.down_bias)
        x = x + (mixed if layer.post_norm2 is None else _norm(mixed, layer.post_norm2, eps))
    return _capped(_linear(_norm(x, weights.norm, eps), weights.head, None), shape.final_softcap)


def _linear(x: np.ndarray, matrix: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    y = x @ matrix.T.astype(np.float64)
    return y if bias is None else y + bias


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps) * weight


def _capped(x: np.ndarray, cap: float | None) -> np.ndarray:
    return x if cap is None else cap * np.tanh(x / cap)


def _attention(
    shape: SmallShape, weights: DecoderWeights, layer: LayerWeights, window: int | None, x: np.ndarray
) -> np.ndarray:
    count = len(x)
    query = _linear(x, layer.query, layer.query_bias).reshape(count, shape.num_heads, shape.head_dim)
    key = _linear(x, layer.key, layer.key_bias).reshape(count, shape.num_kv_heads, shape.head_dim)
    value = _linear(x, layer.value, layer.value_bias).reshape(count, shape.num_kv_heads, shape.head_dim)
    if layer.query_norm is not None and layer.key_norm is not None:
        query = _norm(query, layer.query_norm, weights.norm_eps)
        key = _norm(key, layer.key_norm, weights.norm_eps)
    angles = np.arange(count)[:, None] * frequencies(shape)
    query, key = _rotate(query, angles), _rotate(key, angles)
    shared = shape.num_heads // shape.num_kv_heads
    scores = np.einsum("qhd,khd->hqk", query, key.repeat(shared, axis=1)) * shape.attention_scale
    seen = np.tri(count, dtype=bool)
    if window is not None:
        seen &= ~np.tri(count, k=-window, dtype=bool)
    scores = np.where(seen, _capped(scores, shape.attention_softcap), -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    merged = np.einsum("hqk,khd->qhd", scores, value.repeat(shared, axis=1)).reshape(count, -1)
    return _linear(merged, layer.output, layer.output_bias)


def _rotate(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    half = angles.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)
