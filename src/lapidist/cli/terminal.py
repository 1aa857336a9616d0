"""Text that appears in the terminal as it is generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lapidist.engine.async_llm import AsyncLLM
    from lapidist.engine.engine import Prompt
    from lapidist.engine.outputs import RequestOutput
    from lapidist.engine.sampling_params import SamplingParams


async def print_stream(
    llm: AsyncLLM,
    prompt: Prompt,
    params: SamplingParams,
    at_first: Callable[[RequestOutput], None] | None = None,
) -> RequestOutput:
    """Generate one completion and print its text as it comes; returns the finished output.

    ``at_first`` is called with the first output, before any text is printed.
    """
    printed = 0
    async for output in llm.generate(prompt, params):
        if at_first is not None:
            at_first(output)
            at_first = None
        text = output.outputs[0].text
        typer.echo(text[printed:], nl=False)
        printed = len(text)
    typer.echo()
    return output
