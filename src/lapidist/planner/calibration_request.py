"""Requests that an engine serves while it is measured."""

import random
import time
from dataclasses import dataclass

from lapidist.engine.async_llm import AsyncLLM
from lapidist.engine.engine import TokensPrompt
from lapidist.engine.sampling_params import SamplingParams


@dataclass(frozen=True)
class ServedRequest:
    """A request's times, by the clock of recorded steps (``time.monotonic``).

    Attributes
    ----------
    due : when it was meant to come; ``begun`` when its client began to make the prompt, ``came`` when it had.
    first_token : when its reader had it.
    """

    prompt_tokens: int
    due: float
    begun: float
    came: float
    first_token: float

    @property
    def first_token_seconds(self) -> float:
        """From when it was due."""
        return self.first_token - self.due


async def serve_request(
    llm: AsyncLLM, prompt_tokens: int, output_tokens: int, seed: int, due: float | None = None
) -> ServedRequest:
    """Serve one request to its end: a random prompt, which is made now as a client would, and greedy decoding.

    Parameters
    ----------
    due : the time that it waits from; None is now.
    """
    begun = time.monotonic()
    prompt = random.Random(seed).choices(range(llm.config.vocab_size), k=prompt_tokens)
    params = SamplingParams(temperature=0.0, max_tokens=output_tokens, ignore_eos=True)
    came, first_token = time.monotonic(), 0.0
    async for _ in llm.generate(TokensPrompt(prompt_token_ids=prompt), params):
        first_token = first_token or time.monotonic()
    return ServedRequest(prompt_tokens, begun if due is None else due, begun, came, first_token)
