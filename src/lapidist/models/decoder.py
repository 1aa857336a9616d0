"""The decoder: one program for every family, whose differences are data in ``ModelConfig``."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lapidist.kernels.activation import gated_activation
from lapidist.kernels.attention import paged_attention
from lapidist.kernels.embedding import Embedding
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.linear import Linear
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.rope import apply_rope
from lapidist.kernels.softmax import Softmax, SoftmaxMode
from lapidist.models.batch import Batch
from lapidist.models.config import ModelConfig
from lapidist.models.rope import RotaryEmbedding
from lapidist.models.softmax_config import SoftmaxConfig

# Called with a layer's index, its queries [tokens, heads, head_dim] as attention gets them, the cache that has the keys
# and values of the same tokens already, and the layout.
AttentionObserver = Callable[[int, Tensor, PagedKVCache, PagedLayout], None]


@dataclass(frozen=True)
class Layer:
    """One layer's operators. ``qkv`` gives queries, keys and values side by side, ``gate_up`` gate then up."""

    input_norm: RMSNorm
    qkv: Linear
    qk_norm: RMSNorm | None
    o: Linear
    post_attention_norm: RMSNorm | None
    pre_mlp_norm: RMSNorm
    gate_up: Linear
    down: Linear
    post_mlp_norm: RMSNorm | None


@dataclass(frozen=True)
class DecoderWeights:
    """All operators that have weights."""

    embed: Embedding
    layers: tuple[Layer, ...]
    final_norm: RMSNorm
    lm_head: Linear


class Decoder:
    """A causal transformer decoder over a paged KV cache.

    Parameters
    ----------
    dtype : of the weights, the hidden states and, with 16 bits, the KV cache.
    softmax_mode : of attention; None is the checkpoint's, or lazy where it was not calibrated.
    kv_bits : of a number in the KV cache that the model is run with: 16, 8 or 4, see ``PagedKVCache``.

    Attributes
    ----------
    recomputed_rows : int64 ``[num_layers]``, rows (token, head) of attention that mode unified had to compute again.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: DecoderWeights,
        dtype: torch.dtype,
        device: torch.device,
        softmax_mode: SoftmaxMode | None = None,
        kv_bits: int = 16,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.device = device
        self.kv_bits = kv_bits
        self._weights = weights
        self.recomputed_rows = torch.zeros(config.num_layers, dtype=torch.long, device=device)
        self.softmax = self._softmax(softmax_mode)
        self._rope = RotaryEmbedding(config.rope, device)
        # Rounded to the compute dtype, as the model was trained.
        self._embedding_scale = torch.tensor(config.embedding_scale, dtype=dtype).item()

    def _softmax(self, mode: SoftmaxMode | None) -> tuple[Softmax, ...]:
        """Of each layer."""
        config = self.config
        calibrated = config.attention_softmax or SoftmaxConfig.uncalibrated(
            config.num_layers, config.num_heads
        )
        phi = torch.tensor(calibrated.phi, dtype=torch.float32, device=self.device)
        counts = self.recomputed_rows.split(1)
        return tuple(
            Softmax(calibrated.mode if mode is None else mode, own, count)
            for own, count in zip(phi, counts, strict=True)
        )

    def with_softmax(self, softmax: SoftmaxConfig) -> "Decoder":
        """The same weights under another softmax of attention, with counters of its own."""
        config = replace(self.config, attention_softmax=softmax)
        return Decoder(config, self._weights, self.dtype, self.device, kv_bits=self.kv_bits)

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: PagedKVCache, observer: AttentionObserver | None = None) -> Tensor:
        """Compute the batch's new tokens; their keys and values go to the cache.

        Parameters
        ----------
        observer : sees what goes into the attention of each layer, for calibration.

        Returns
        -------
        Hidden states after the final norm, ``[tokens, hidden_size]``.
        """
        hidden = self._weights.embed(batch.token_ids)
        if self._embedding_scale != 1.0:
            hidden *= self._embedding_scale
        cos_sin = self._rope.cos_sin(batch.positions, batch.rope_lengths, self.dtype)
        for index, layer in enumerate(self._weights.layers):
            attended = self._attention(
                index, layer, layer.input_norm(hidden), cos_sin, batch.layout, cache, observer
            )
            hidden += attended if layer.post_attention_norm is None else layer.post_attention_norm(attended)
            mixed = self._mlp(layer, layer.pre_mlp_norm(hidden))
            hidden += mixed if layer.post_mlp_norm is None else layer.post_mlp_norm(mixed)
        return self._weights.final_norm(hidden)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """float32 ``[rows, vocab_size]`` of hidden states ``[rows, hidden_size]``."""
        logits = self._weights.lm_head(hidden).float()
        cap = self.config.final_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)

    def _attention(
        self,
        index: int,
        layer: Layer,
        x: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        layout: PagedLayout,
        cache: PagedKVCache,
        observer: AttentionObserver | None,
    ) -> Tensor:
        config = self.config
        heads, kv_heads = config.num_heads, config.num_kv_heads
        qkv = layer.qkv(x).view(len(x), heads + 2 * kv_heads, config.head_dim)
        qk, values = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if layer.qk_norm is not None:
            qk = layer.qk_norm(qk)
        qk = apply_rope(qk, *cos_sin)
        cache.write(index, layout.slots, qk[:, heads:], values)
        query = qk[:, :heads]
        if observer is not None:
            observer(index, query, cache, layout)
        attended = paged_attention(
            query,
            cache,
            index,
            layout,
            config.attention_scale,
            config.sliding_windows[index],
            config.attention_softcap,
            self.softmax[index],
        )
        return layer.o(attended.view(len(x), -1))

    def _mlp(self, layer: Layer, x: Tensor) -> Tensor:
        return layer.down(gated_activation(layer.gate_up(x), self.config.hidden_act))
