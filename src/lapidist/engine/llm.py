"""Offline inference: prompts in, finished outputs out. The names follow vLLM's ``LLM``."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from lapidist.engine.engine import Engine, EngineConfig, Prompt
from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.outputs import RequestOutput
from lapidist.engine.prompt_filters.config import PromptFilter, parse_prompt_filter
from lapidist.engine.request import Request
from lapidist.engine.sampling_params import SamplingParams

Message = dict[str, Any]


class LLM:
    """A model ready to generate. The options are those of ``EngineConfig``.

    Examples
    --------
    >>> from lapidist import LLM, SamplingParams
    >>> from lapidist.bundled import TINY
    >>> llm = LLM(TINY)
    >>> [output] = llm.generate("Once upon a time", SamplingParams(temperature=0, max_tokens=8))
    >>> len(output.outputs[0].token_ids)
    8

    Raises
    ------
    CheckpointError : the model cannot be loaded; one sentence naming file and key.
    ValueError : the options contradict each other or the machine's memory.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str | torch.dtype = "auto",
        device: str = "cpu",
        max_model_len: int | None = None,
        kv_cache_bytes: int | None = None,
        page_size: int = 16,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int = 512,
        enable_prefix_caching: bool = True,
        seed: int = 0,
        record: str | Path | None = None,
        attention_softmax: str = "auto",
    ) -> None:
        self.engine = Engine(
            EngineConfig(
                model,
                dtype,
                device,
                max_model_len,
                kv_cache_bytes,
                page_size,
                max_num_seqs,
                max_num_batched_tokens,
                enable_prefix_caching,
                seed,
                record,
                attention_softmax,
            )
        )
        self._request_ids = itertools.count()

    @property
    def max_model_len(self) -> int:
        return self.engine.max_model_len

    def default_sampling_params(self) -> SamplingParams:
        """What the checkpoint's ``generation_config.json`` recommends."""
        return self.engine.default_sampling_params()

    def get_tokenizer(self) -> Any:
        return self.engine.tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool | None = None,
        *,
        prompt_filter: PromptFilter | Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Complete every prompt; outputs come in the order of the prompts.

        Parameters
        ----------
        prompts : one prompt or several; each a string, ``{"prompt": str}`` or ``{"prompt_token_ids": list[int]}``.
        sampling_params : for all prompts, or one for each; None is the checkpoint's recommendation.
        use_tqdm : show a progress bar on stderr; None does so for several prompts on a terminal.
        prompt_filter : of all prompts, in place of those in ``sampling_params``.

        Raises
        ------
        InvalidRequestError : a prompt cannot be served; nothing is generated then.
        """
        batch = [prompts] if isinstance(prompts, (str, dict)) else list(prompts)
        params = sampling_params or self.default_sampling_params()
        each = [params] * len(batch) if isinstance(params, SamplingParams) else list(params)
        if len(each) != len(batch):
            raise InvalidRequestError(f"{len(batch)} prompts but {len(each)} sampling_params")
        if prompt_filter is not None:
            chosen = parse_prompt_filter(prompt_filter)
            each = [dataclasses.replace(own, prompt_filter=chosen) for own in each]
        requests: list[Request] = []
        try:
            for prompt, own in zip(batch, each, strict=True):
                requests.append(self.engine.prepare(str(next(self._request_ids)), prompt, own))
            for request in requests:
                self.engine.add(request)
            self._run(len(requests), use_tqdm)
        finally:
            # Only after an error or an interrupt is anything left to abort.
            for request in requests:
                self.engine.abort_request(request.request_id)
        return [request.output() for request in requests]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool | None = None,
        *,
        add_generation_prompt: bool = True,
        tools: list[dict[str, Any]] | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation (a list of messages) or several (a list of such lists).

        Raises
        ------
        ChatTemplateError : the checkpoint has no chat template, or it refuses the messages.
        InvalidRequestError : a conversation cannot be served.
        """
        conversations: list[list[Message]] = (
            [list(messages)] if messages and isinstance(messages[0], dict) else [list(m) for m in messages]  # type: ignore[arg-type]
        )
        prompts = [
            self.engine.chat_prompt(conversation, add_generation_prompt=add_generation_prompt, tools=tools)
            for conversation in conversations
        ]
        return self.generate(prompts, sampling_params, use_tqdm)

    def _run(self, num_requests: int, show_progress: bool | None) -> None:
        console = Console(stderr=True)
        if show_progress is None:
            show_progress = num_requests > 1 and console.is_terminal
        with Progress(console=console, disable=not show_progress) as progress:
            task = progress.add_task("Generating", total=num_requests)
            while self.engine.has_work():
                finished = sum(request.finished for request in self.engine.step())
                progress.advance(task, finished)
