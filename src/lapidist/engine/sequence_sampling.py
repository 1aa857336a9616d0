"""What sampling has to remember about one sequence between steps."""

import random
from collections.abc import Collection, Iterable, Sequence

import torch

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.sampling_params import SamplingParams


class SequenceSampling:
    """Sampling state of one completion: how often each token occurred, and its own random stream.

    It outlives a preemption, and nothing in it depends on the rest of the batch.

    Parameters
    ----------
    index : which of the request's ``n`` completions; seeded completions differ by it.
    eos_token_ids : the model's end-of-text tokens, which ``min_tokens`` holds off.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        vocab_size: int,
        index: int = 0,
        *,
        eos_token_ids: Iterable[int],
    ) -> None:
        self.params = params
        self.num_generated = 0
        self.top_k = params.top_k if 0 < params.top_k < vocab_size else vocab_size
        self.seen: SeenTokens | None = None
        if params.repetition_penalty != 1:
            self.seen = SeenTokens(prompt_token_ids)
        elif params.presence_penalty or params.frequency_penalty:
            self.seen = SeenTokens(())
        self._ends = sorted({*eos_token_ids, *(params.stop_token_ids or ())})
        self._random = None if params.seed is None else random.Random(params.seed + index)

    def append(self, token_id: int) -> None:
        """Count a generated token."""
        self.num_generated += 1
        if self.seen is not None:
            self.seen.add(token_id)

    @property
    def forbidden(self) -> Collection[int]:
        """Tokens that may not come next: those that would end the text before ``min_tokens``."""
        return self._ends if self.num_generated < self.params.min_tokens else ()

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the next token is simply the likeliest one."""
        return self.params.greedy and self.seen is None and not (self.forbidden or self.params.logit_bias)

    def uniform(self, shared: random.Random) -> float:
        """A number from [0, 1): of the sequence's own stream if it is seeded, else of ``shared``."""
        return (self._random or shared).random()


class SeenTokens:
    """The distinct tokens of a text and how often each was generated, as tensors that grow with it.

    ``ids`` (int64) and ``counts`` (float32) are [distinct tokens] on the CPU; prompt tokens count zero.
    """

    def __init__(self, prompt_token_ids: Iterable[int]) -> None:
        self._position = {token_id: i for i, token_id in enumerate(dict.fromkeys(prompt_token_ids))}
        self._ids = torch.tensor(list(self._position), dtype=torch.int64)
        self._counts = torch.zeros(len(self._position))

    @property
    def ids(self) -> torch.Tensor:
        return self._ids[: len(self._position)]

    @property
    def counts(self) -> torch.Tensor:
        return self._counts[: len(self._position)]

    def add(self, token_id: int) -> None:
        position = self._position.setdefault(token_id, len(self._position))
        if position == len(self._ids):
            spare = max(64, position)
            self._ids = torch.cat([self._ids, self._ids.new_zeros(spare)])
            self._counts = torch.cat([self._counts, self._counts.new_zeros(spare)])
        self._ids[position] = token_id
        self._counts[position] += 1


def validate_against_vocabulary(params: SamplingParams, vocab_size: int) -> None:
    """Check what only makes sense for a certain vocabulary.

    Raises
    ------
    InvalidRequestError : ``logit_bias`` or ``stop_token_ids`` has an unknown token, or a bias is not
        from -100 to 100.
    """
    for name, token_ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
        for token_id in token_ids or ():
            if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < vocab_size:
                raise InvalidRequestError(
                    f"{name}: {token_id!r} is no token id of this model (0 to {vocab_size - 1})"
                )
    for token_id, bias in (params.logit_bias or {}).items():
        number = isinstance(bias, (int, float)) and not isinstance(bias, bool)
        if not number or not -100 <= bias <= 100:
            raise InvalidRequestError(f"logit_bias: token {token_id} must get -100 to 100, not {bias!r}")
