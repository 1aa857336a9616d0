"""Text that appears in the terminal as it is generated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lapidist.engine.async_llm import AsyncLLM
    from lapidist.engine.engine import Prompt
    from lapidist.engine.outputs import RequestOutput
    from lapidist.engine.sampling_params import SamplingParams


async def print_stream(llm: AsyncLLM, prompt: Prompt, params: SamplingParams) -> RequestOutput:
    """Generate one completion and print its text as it comes; returns the finished output."""
    printed = 0
    async for output in llm.generate(prompt, params):
        text = output.outputs[0].text
        typer.echo(text[printed:], nl=False)
        printed = len(text)
    typer.echo()
    return output
