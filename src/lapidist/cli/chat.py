"""``lapidist chat``: a conversation in the terminal."""

import asyncio
import dataclasses
from typing import Annotated

import typer

from lapidist.cli import options
from lapidist.cli.terminal import print_stream


def chat(
    model: options.Model,
    system: Annotated[str | None, typer.Option(help="System message that opens the conversation.")] = None,
    max_tokens: options.MaxTokens = 512,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    seed: options.Seed = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
    max_model_len: options.MaxModelLen = None,
    attention_softmax: options.AttentionSoftmax = "auto",
) -> None:
    """Talk with MODEL. /clear forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer.

    Example: lapidist chat tiny --temperature 0
    """
    from lapidist.bundled import resolve_model
    from lapidist.engine.async_llm import AsyncLLM

    llm = AsyncLLM(
        resolve_model(model),
        dtype=dtype,
        device=device,
        max_model_len=max_model_len,
        max_num_seqs=1,
        attention_softmax=attention_softmax,
    )
    try:
        params = dataclasses.replace(
            llm.default_sampling_params(),
            max_tokens=max_tokens,
            **options.given(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed),
        )
        opening = [{"role": "system", "content": system}] if system else []
        messages = list(opening)
        while (line := _read_line()) is not None:
            if line == "/clear":
                messages = list(opening)
            elif line:
                messages.append({"role": "user", "content": line})
                prompt = llm.chat_prompt(messages)
                try:
                    output = asyncio.run(print_stream(llm, prompt, params))
                    messages.append({"role": "assistant", "content": output.outputs[0].text})
                except KeyboardInterrupt:
                    messages.pop()
                    typer.secho(" [stopped]", dim=True)
    finally:
        llm.shutdown()


def _read_line() -> str | None:
    """The next line from the user; None at the end."""
    try:
        line = input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        typer.echo()
        return None
    return None if line == "/exit" else line
