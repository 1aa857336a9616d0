"""Replay against an engine in this process."""

from collections.abc import Callable

from lapidist.engine.async_llm import AsyncLLM
from lapidist.engine.engine import TokensPrompt
from lapidist.engine.errors import EngineDeadError, InvalidRequestError, QueueFullError
from lapidist.engine.sampling_params import SamplingParams
from lapidist.evaluation.serving.prompts import Prompt
from lapidist.evaluation.serving.target import Completed, RequestFailedError


class EngineTarget:
    """Greedy completions by ``llm`` that go on past end-of-text tokens, so that lengths are the trace's."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm

    async def prepare(self) -> None:
        """Run one short request, so that the first measured one does not pay for lazy set-up."""
        await self.complete([0] * 16, 4, lambda: None)

    async def complete(self, prompt: Prompt, output_tokens: int, on_chunk: Callable[[], None]) -> Completed:
        params = SamplingParams(temperature=0.0, max_tokens=output_tokens, ignore_eos=True)
        given = prompt if isinstance(prompt, str) else TokensPrompt(prompt_token_ids=prompt)
        prompt_tokens = generated = 0
        try:
            async for output in self._llm.generate(given, params):
                prompt_tokens = len(output.prompt_token_ids)
                if len(output.outputs[0].token_ids) > generated:
                    generated = len(output.outputs[0].token_ids)
                    on_chunk()
        except (InvalidRequestError, QueueFullError, EngineDeadError) as error:
            raise RequestFailedError(str(error)) from error
        return Completed(prompt_tokens, generated)
