"""The decoder: one program for every family, whose differences are data in ``ModelConfig``."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lapidist.kernels.embedding import Embedding
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax, SoftmaxMode
from lapidist.models.batch import Batch
from lapidist.models.config import ModelConfig
from lapidist.models.layer import Layer, LayerStep, Projection, project_heads, run_layer
from lapidist.models.rope import RotaryEmbedding
from lapidist.models.softmax_config import SoftmaxConfig

# Called with a layer's index, its queries [tokens, heads, head_dim] as attention gets them, the cache that has the keys
# and values of the same tokens already, and the layout.
AttentionObserver = Callable[[int, Tensor, PagedKVCache, PagedLayout], None]


@dataclass(frozen=True)
class DecoderWeights:
    """All operators that have weights."""

    embed: Embedding
    layers: tuple[Layer, ...]
    final_norm: RMSNorm
    lm_head: Projection


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
        hidden = self.embed(batch.token_ids)
        cos_sin = self.cos_sin(batch.positions, batch.rope_lengths)
        for index in range(self.config.num_layers):
            observe = None if observer is None else partial(observer, index)
            self.run_layer(index, hidden, cos_sin, batch.layout, cache, index, observe)
        return self.final_norm(hidden)

    # -- the pieces of a forward pass, for those who run a prompt layer by layer -------------------------------------

    def embed(self, token_ids: Tensor) -> Tensor:
        """What the first layer gets, ``[tokens, hidden_size]``."""
        hidden = self._weights.embed(token_ids)
        if self._embedding_scale != 1.0:
            hidden *= self._embedding_scale
        return hidden

    def cos_sin(self, positions: Tensor, rope_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of rotary embedding, each ``[tokens, 1, rotary_dim]``; the parameters are those of ``Batch``."""
        return self._rope.cos_sin(positions, rope_lengths, self.dtype)

    def run_layer(
        self,
        index: int,
        hidden: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        layout: PagedLayout,
        cache: PagedKVCache,
        place: int,
        observe: Callable[[Tensor, PagedKVCache, PagedLayout], None] | None = None,
    ) -> None:
        """Take ``hidden`` ``[tokens, hidden_size]`` through layer ``index``, in place.

        Parameters
        ----------
        place : which of the cache's layers holds the keys and values.
        observe : called with the queries as attention gets them, the cache and the layout.
        """
        step = LayerStep(self.config, cos_sin, layout, cache, place, self.softmax[index], observe)
        run_layer(self._weights.layers[index], hidden, step)

    def queries(self, index: int, hidden: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Layer ``index``'s queries alone, ``[tokens, num_heads, head_dim]``, as attention would get them."""
        heads = range(self.config.num_heads)
        return project_heads(self._weights.layers[index], hidden, self.config, cos_sin, heads)

    def keys(self, index: int, hidden: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Layer ``index``'s keys alone, ``[tokens, num_kv_heads, head_dim]``, as the cache would get them."""
        first = self.config.num_heads
        heads = range(first, first + self.config.num_kv_heads)
        return project_heads(self._weights.layers[index], hidden, self.config, cos_sin, heads)

    def final_norm(self, hidden: Tensor) -> Tensor:
        """What ``logits`` takes of what the last layer gave, ``[tokens, hidden_size]``."""
        return self._weights.final_norm(hidden)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """float32 ``[rows, vocab_size]`` of hidden states ``[rows, hidden_size]``."""
        logits = self._weights.lm_head(hidden).float()
        cap = self.config.final_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)
