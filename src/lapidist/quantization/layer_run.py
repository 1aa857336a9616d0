"""One layer after another over the calibration sequences, by the same kernels that serve the model."""

from collections.abc import Callable

import torch
from torch import Tensor

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.linear import Linear
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax
from lapidist.models.config import ModelConfig
from lapidist.models.layer import Layer, LayerStep, Projection, attend, run_layer
from lapidist.models.rope import RotaryEmbedding
from lapidist.quantization.block import BlockWeights
from lapidist.quantization.statistics import AttentionStatistics, InputStatistics

# The projections of a layer, by the fields of ``BlockWeights`` that lie in each side by side.
PROJECTIONS = {"qkv": ("q", "k", "v"), "o": ("o",), "gate_up": ("gate", "up"), "down": ("down",)}

_PAGE_SIZE = 16
_TOKENS_AT_ONCE = 4096
_TRIED_TOKENS = 1024  # that a search tries each candidate on


class Observed:
    """A projection whose inputs somebody sees."""

    def __init__(self, projection: Projection, see: Callable[[Tensor], None]) -> None:
        self._projection = projection
        self._see = see

    def __call__(self, x: Tensor) -> Tensor:
        self._see(x)
        return self._projection(x)


def stacked_weight(block: BlockWeights, projection: str) -> Tensor:
    return torch.cat([getattr(block, field) for field in PROJECTIONS[projection]])


def stacked_bias(block: BlockWeights, projection: str) -> Tensor | None:
    biases = [getattr(block, f"{field}_bias") for field in PROJECTIONS[projection]]
    return None if biases[0] is None else torch.cat(biases)


def float_projection(block: BlockWeights, projection: str, dtype: torch.dtype) -> Linear:
    """A projection that is not quantized."""
    bias = stacked_bias(block, projection)
    weight = stacked_weight(block, projection).to(dtype)
    return Linear(weight, None if bias is None else bias.to(dtype))


def make_layer(
    config: ModelConfig, index: int, block: BlockWeights, project: Callable[[str], Projection]
) -> Layer:
    """A layer whose projections ``project`` makes, by their names in ``PROJECTIONS``."""

    def norm(weight: Tensor) -> RMSNorm:
        return RMSNorm(weight, config.norm_eps)

    qk_norm = None
    if block.q_norm is not None and block.k_norm is not None:
        heads = (block.q_norm.expand(config.num_heads, -1), block.k_norm.expand(config.num_kv_heads, -1))
        qk_norm = norm(torch.cat(heads))
    post_attention, post_mlp = block.post_attention_norm, block.post_mlp_norm
    return Layer(
        input_norm=norm(block.input_norm),
        qkv=project("qkv"),
        qk_norm=qk_norm,
        o=project("o"),
        post_attention_norm=None if post_attention is None else norm(post_attention),
        pre_mlp_norm=norm(block.pre_mlp_norm),
        gate_up=project("gate_up"),
        down=project("down"),
        post_mlp_norm=None if post_mlp is None else norm(post_mlp),
        window=config.sliding_windows[index],
    )


class LayerRun:
    """Runs layers over sequences of one length.

    Parameters
    ----------
    sequences, length : of the calibration tokens.
    """

    def __init__(self, config: ModelConfig, sequences: int, length: int, dtype: torch.dtype) -> None:
        self._config = config
        self._length = length
        self._dtype = dtype
        self._at_once = min(sequences, max(1, _TOKENS_AT_ONCE // length))
        self._pages = -(-length // _PAGE_SIZE)
        self._cos_sin = self._rotation()

    def observe(
        self,
        index: int,
        block: BlockWeights,
        hidden: Tensor,
        inputs: dict[str, InputStatistics],
        attention: AttentionStatistics,
    ) -> None:
        """Show the activations of a layer of floats to the statistics; ``hidden`` stays as it is.

        Parameters
        ----------
        hidden : ``[sequences, length, hidden_size]``, what the layer gets.
        """

        def project(name: str) -> Observed:
            # What the last one gives nobody sees.
            is_last = name == "down"
            projection = self._no_output if is_last else float_projection(block, name, self._dtype)
            return Observed(projection, inputs[name])

        layer = make_layer(self._config, index, block, project)
        cache = self._cache(16)
        for part in hidden.split(self._at_once):
            run_layer(layer, part.clone().flatten(0, 1), self._step(len(part), cache, attention))

    def advance(self, layer: Layer, hidden: Tensor, kv_bits: int) -> None:
        """Replace ``hidden`` by what the layer makes of it."""
        cache = self._cache(kv_bits)
        for part in hidden.split(self._at_once):
            run_layer(layer, part.flatten(0, 1), self._step(len(part), cache))

    def attended(self, index: int, block: BlockWeights, hidden: Tensor, kv_bits: int) -> Tensor:
        """What attention of a layer of floats gives over a cache of so many bits, for the first sequences: float32
        ``[tokens, num_heads * head_dim]``."""
        sample = hidden[: max(1, _TRIED_TOKENS // self._length)][: self._at_once]
        qkv = float_projection(block, "qkv", self._dtype)
        layer = make_layer(self._config, index, block, lambda name: qkv if name == "qkv" else self._no_output)
        return attend(layer, sample.flatten(0, 1), self._step(len(sample), self._cache(kv_bits))).float()

    def _no_output(self, x: Tensor) -> Tensor:
        """In place of a projection whose outputs do not matter: zeros."""
        return x.new_zeros(len(x), self._config.hidden_size)

    def _step(
        self, sequences: int, cache: PagedKVCache, observe: AttentionStatistics | None = None
    ) -> LayerStep:
        length = self._length
        pages = [range(first * self._pages, (first + 1) * self._pages) for first in range(sequences)]
        slots = [own[0] * _PAGE_SIZE + position for own in pages for position in range(length)]
        layout = PagedLayout.build(
            slots,
            [length] * sequences,
            [length] * sequences,
            [list(own) for own in pages],
            torch.device("cpu"),
        )
        cos, sin = (part[: sequences * length] for part in self._cos_sin)
        return LayerStep(self._config, (cos, sin), layout, cache, 0, Softmax(), observe)

    def _cache(self, bits: int) -> PagedKVCache:
        config, pages = self._config, self._at_once * self._pages
        shape = (1, pages, _PAGE_SIZE, config.num_kv_heads, config.head_dim)
        return PagedKVCache(*shape, self._dtype, bits=bits)

    def _rotation(self) -> tuple[Tensor, Tensor]:
        positions = torch.arange(self._length).repeat(self._at_once)
        lengths = torch.full_like(positions, self._length)
        rope = RotaryEmbedding(self._config.rope, torch.device("cpu"))
        return rope.cos_sin(positions, lengths, self._dtype)
