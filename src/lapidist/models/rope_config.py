"""Parameters of rotary position embedding and of the ways to stretch it, as numbers ready to use."""

from dataclasses import dataclass
from typing import Literal

RopeKind = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding.

    Attributes
    ----------
    kind : how frequencies are scaled for long contexts.
    theta : base of the wavelengths.
    rotary_dim : channels of a head that are rotated, an even number.
    original_context : tokens of context before stretching.
    factor : by how much the context is stretched (linear, dynamic, llama3, yarn).
    attention_factor : factor on cosine and sine (yarn, longrope).
    low_freq_factor, high_freq_factor : rotations over the original context between which llama3 goes from
        full scaling to none.
    beta_fast, beta_slow : rotations over the original context between which yarn goes from no scaling to
        full.
    truncate : yarn rounds that range to whole channels.
    short_factors, long_factors : longrope's divisor of each frequency, up to and beyond the original context.
    """

    kind: RopeKind
    theta: float
    rotary_dim: int
    original_context: int
    factor: float = 1.0
    attention_factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()

    def cache_salt(self, prompt_length: int) -> bytes:
        """Keys of equal tokens at equal positions are equal for prompts of equal salt.

        Only scaling that looks at the prompt's length tells prompts apart, and only beyond the original
        context.
        """
        if self.kind not in ("dynamic", "longrope") or prompt_length <= self.original_context:
            return b""
        return b"longrope" if self.kind == "longrope" else prompt_length.to_bytes(8, "little")
