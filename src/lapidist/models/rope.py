"""Cosines and sines of rotary position embedding, with every scaling for long contexts."""

import math

import torch
from torch import Tensor

from lapidist.models.rope_config import RopeConfig


class RotaryEmbedding:
    """Angles of rotary position embedding, computed in float32.

    The scalings are those of ``transformers``: position interpolation ("linear", arXiv 2306.15595),
    NTK-aware scaling by the running length ("dynamic"), Llama 3.1's ("llama3", arXiv 2407.21783), YaRN
    (arXiv 2309.00071) and LongRoPE (arXiv 2402.13753).
    """

    def __init__(self, config: RopeConfig, device: torch.device) -> None:
        self._config = config
        self._exponents = torch.arange(0, config.rotary_dim, 2, device=device).float() / config.rotary_dim
        # longrope has a second set for sequences beyond the original context.
        self._frequencies = self._scaled_frequencies()
        self._long_frequencies = self._divided(config.long_factors)

    def cos_sin(self, positions: Tensor, rope_lengths: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Factors for ``kernels.rope.apply_rope``, ``[tokens, 1, rotary_dim]``.

        Parameters
        ----------
        positions : int64 ``[tokens]``.
        rope_lengths : int64 ``[tokens]``, see ``Batch``.
        """
        angles = positions[:, None].float() * self._frequencies_at(rope_lengths)
        scale = self._config.attention_factor
        cos, sin = (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)
        return torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]

    def _frequencies_at(self, rope_lengths: Tensor) -> Tensor:
        """``[rotary_dim / 2]``, or ``[tokens, rotary_dim / 2]`` where they depend on the length."""
        config = self._config
        if config.kind == "longrope":
            is_long = rope_lengths[:, None] > config.original_context
            return torch.where(is_long, self._long_frequencies, self._frequencies)
        if config.kind == "dynamic":
            context, dim = config.original_context, config.rotary_dim
            stretch = config.factor * rope_lengths.clamp(min=context) / context - (config.factor - 1)
            base = config.theta * stretch ** (dim / (dim - 2))
            return 1.0 / base[:, None] ** self._exponents
        return self._frequencies

    def _scaled_frequencies(self) -> Tensor:
        config = self._config
        if config.kind == "linear":
            return self._plain() / config.factor
        if config.kind == "llama3":
            return self._llama3()
        if config.kind == "yarn":
            return self._yarn()
        if config.kind == "longrope":
            return self._divided(config.short_factors)
        return self._plain()

    def _plain(self) -> Tensor:
        return 1.0 / self._config.theta**self._exponents

    def _divided(self, factors: tuple[float, ...]) -> Tensor:
        divisors = torch.tensor(factors, device=self._exponents.device)
        return 1.0 / (divisors * self._config.theta**self._exponents) if factors else divisors

    def _llama3(self) -> Tensor:
        """Long wavelengths are stretched, short ones kept, those between interpolated."""
        config, plain = self._config, self._plain()
        rotations = config.original_context * plain / (2 * math.pi)
        low, high = config.low_freq_factor, config.high_freq_factor
        kept = ((rotations - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * plain / config.factor + kept * plain

    def _yarn(self) -> Tensor:
        """Channels that rotate often over the original context are kept, slow ones stretched."""
        config, plain = self._config, self._plain()
        low = self._channel_of(config.beta_fast)
        high = self._channel_of(config.beta_slow)
        if config.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, config.rotary_dim - 1)
        # A range of no width would divide by zero.
        width = high - low or 0.001
        channels = torch.arange(config.rotary_dim // 2, device=plain.device).float()
        stretched = ((channels - low) / width).clamp(0, 1)
        return plain / config.factor * stretched + plain * (1 - stretched)

    def _channel_of(self, rotations: float) -> float:
        """The channel (a real number) that makes so many rotations over the original context."""
        config = self._config
        wavelength = config.original_context / rotations
        return config.rotary_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.theta))
