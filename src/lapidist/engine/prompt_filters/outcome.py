"""What a filter hands to the engine."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class KeptTokens:
    """The prompt is these of its tokens.

    Attributes
    ----------
    places : ascending positions in the prompt.
    positions : at which they run: None counts from 0.
    bypassed : why all are kept.
    scores : float ``[tokens]`` of the whole prompt.
    forecast_gain : where the filter found out itself, see ``FilterReport``.
    """

    places: list[int]
    positions: list[int] | None = None
    bypassed: str | None = None
    layer: int | None = None
    scores: Tensor | None = None
    forecast_gain: float | None = None


@dataclass
class KeptKV:
    """The prompt has been run; these keys and values are kept, of each head those of its own tokens.

    Attributes
    ----------
    keys, values : of each layer ``[kept, kv_heads, head_dim]``, rotated at the tokens' positions in the prompt; float32
        where the KV cache holds codes, for these to come out the same again.
    last_hidden : ``[1, hidden_size]`` after the final norm, from which the first token follows.
    shares : float ``[tokens]``, the share of (layer, head) pairs that kept each token.
    """

    keys: list[Tensor]
    values: list[Tensor]
    last_hidden: Tensor
    layer: int | None
    shares: Tensor
    forecast_gain: float | None = None

    @property
    def tokens(self) -> int:
        return len(self.keys[0])


Outcome = KeptTokens | KeptKV
