"""``POST /v1/chat/completions``."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from lapidist.engine.outputs import CompletionOutput, RequestOutput, TokenLogprobs
from lapidist.engine.sampling_params import SamplingParams
from lapidist.server.errors import ApiError
from lapidist.server.event_stream import STREAM_DOCUMENTATION, EventStream, event
from lapidist.server.generation import while_connected
from lapidist.server.json_route import JsonRoute
from lapidist.server.limits import check_limits, check_logprobs, check_model, completion_budget
from lapidist.server.logprobs import chat_logprobs
from lapidist.server.piece import Progress
from lapidist.server.prompts import PromptTokens, chat_prompt
from lapidist.server.protocol.chat import ChatCompletion, ChatCompletionRequest
from lapidist.server.protocol.prompt_filter import report_object
from lapidist.server.serving import Answer, Serving, count_usage

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAM_DOCUMENTATION)
async def chat_completions(request: Request, chat: ChatCompletionRequest) -> Response:
    """Continue a conversation. With ``stream`` the answer is a stream of server-sent events."""
    return await _ChatAnswer(request, chat).respond()


class _ChatAnswer:
    def __init__(self, request: Request, chat: ChatCompletionRequest) -> None:
        self._request = request
        self._chat = chat
        self._serving = Serving.of(request)
        self._answer = Answer.to(request, "chatcmpl", chat.model)

    async def respond(self) -> Response:
        params = self._sampling_params()
        prompt = await chat_prompt(
            self._serving.engine, self._serving.settings, self._chat, len(await self._request.body())
        )
        if self._chat.stream:
            return EventStream(self._events(prompt, params))
        work = self._serving.generator.finish([prompt], params, self._answer.id)
        [output] = await while_connected(self._request.receive, work)
        return Response(to_json(self._completion(output)), media_type="application/json")

    def _sampling_params(self) -> SamplingParams:
        chat, settings = self._chat, self._serving.settings
        check_model(chat.model, self._serving.names)
        check_limits(chat, 1, settings)
        check_logprobs("top_logprobs", chat.top_logprobs, settings)
        if chat.top_logprobs is not None and not chat.logprobs:
            raise ApiError(400, "top_logprobs is allowed only together with logprobs", param="top_logprobs")
        if chat.max_completion_tokens is not None:
            max_tokens = completion_budget("max_completion_tokens", chat.max_completion_tokens, settings)
        else:
            max_tokens = completion_budget("max_tokens", chat.max_tokens, settings)
        logprobs = (chat.top_logprobs or 0) if chat.logprobs else None
        return chat.sampling_params(self._serving.engine.default_sampling_params(), max_tokens, logprobs)

    def _completion(self, output: RequestOutput) -> dict[str, Any]:
        choices = [
            {
                "index": completion.index,
                "message": {"role": "assistant", "content": completion.text, "refusal": None},
                "logprobs": self._logprobs(completion.token_ids, completion.logprobs),
                "finish_reason": completion.finish_reason,
            }
            for completion in output.outputs
        ]
        usage = count_usage([output])
        answer = {"object": "chat.completion", **self._answer.header(), "choices": choices, "usage": usage}
        return answer | self._filter_report(output)

    async def _events(self, prompt: PromptTokens, params: SamplingParams) -> AsyncGenerator[bytes, None]:
        progress: defaultdict[int, Progress] = defaultdict(Progress)
        stream = self._serving.generator.stream([prompt], params, self._answer.id)
        output: RequestOutput | None = None
        async with aclosing(stream):
            async for _, output in stream:
                events = (
                    [] if progress else [self._opening(choice.index, output) for choice in output.outputs]
                )
                events += [self._chunk(choice, progress[choice.index]) for choice in output.outputs]
                if any(events):
                    yield b"".join(events)
        if output is not None and self._chat.includes_usage:
            yield self._event([], usage=count_usage([output]))

    def _opening(self, index: int, output: RequestOutput) -> bytes:
        delta = {"role": "assistant", "content": "", "refusal": None}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._event([choice], **(self._filter_report(output) if index == 0 else {}))

    @staticmethod
    def _filter_report(output: RequestOutput) -> dict[str, Any]:
        report = output.prompt_filter
        return {} if report is None else {"prompt_filter": report_object(report)}

    def _chunk(self, completion: CompletionOutput, progress: Progress) -> bytes:
        """The events that a completion's new tokens are worth; none, one, or two at its end."""
        new = progress.advance(completion)
        if new is None:
            return b""
        choice = {"index": completion.index, "delta": {}, "logprobs": None, "finish_reason": None}
        events = b""
        if new.text or new.logprobs:
            logprobs = self._logprobs(new.token_ids, new.logprobs)
            events = self._event([{**choice, "delta": {"content": new.text}, "logprobs": logprobs}])
        if completion.finish_reason is not None:
            events += self._event([{**choice, "finish_reason": completion.finish_reason}])
        return events

    def _event(self, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        # Clients that asked for usage expect the key, as null, in every chunk before the last.
        extra = {"usage": None, **extra} if self._chat.includes_usage else extra
        return event(
            {"object": "chat.completion.chunk", **self._answer.header(), "choices": choices, **extra}
        )

    def _logprobs(
        self, token_ids: Sequence[int], entries: Sequence[TokenLogprobs | None] | None
    ) -> dict[str, Any] | None:
        if entries is None:
            return None
        generated = [entry for entry in entries if entry is not None]
        return chat_logprobs(
            token_ids, generated, self._chat.top_logprobs or 0, self._serving.engine.tokenizer
        )
