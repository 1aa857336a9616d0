"""``POST /v1/completions``."""

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from lapidist.engine.outputs import CompletionOutput, RequestOutput
from lapidist.engine.sampling_params import SamplingParams
from lapidist.server.errors import ApiError
from lapidist.server.event_stream import STREAM_DOCUMENTATION, EventStream, event
from lapidist.server.generation import while_connected
from lapidist.server.json_route import JsonRoute
from lapidist.server.limits import check_limits, check_logprobs, check_model, completion_budget
from lapidist.server.logprobs import completion_logprobs
from lapidist.server.piece import Piece, Progress
from lapidist.server.prompts import PromptTokens, completion_prompts
from lapidist.server.protocol.completions import Completion, CompletionRequest
from lapidist.server.protocol.prompt_filter import report_object
from lapidist.server.serving import Answer, Serving, count_usage

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/completions", response_model=Completion, responses=STREAM_DOCUMENTATION)
async def completions(request: Request, completion: CompletionRequest) -> Response:
    """Continue texts. With ``stream`` the answer is a stream of server-sent events."""
    return await _CompletionAnswer(request, completion).respond()


class _CompletionAnswer:
    def __init__(self, request: Request, wanted: CompletionRequest) -> None:
        self._request = request
        self._wanted = wanted
        self._serving = Serving.of(request)
        self._answer = Answer.to(request, "cmpl", wanted.model)
        # The prompt's log-probabilities are wanted and nothing more.
        self._scores_only = wanted.max_tokens == 0

    async def respond(self) -> Response:
        params = self._sampling_params()
        prompts = await completion_prompts(
            self._serving.engine, self._serving.settings, self._wanted, len(await self._request.body())
        )
        if self._wanted.stream:
            return EventStream(self._events(prompts, params))
        work = self._serving.generator.finish(prompts, params, self._answer.id)
        outputs = await while_connected(self._request.receive, work)
        return Response(to_json(self._completion(prompts, outputs)), media_type="application/json")

    def _sampling_params(self) -> SamplingParams:
        wanted, settings = self._wanted, self._serving.settings
        check_model(wanted.model, self._serving.names)
        check_limits(wanted, len(wanted.prompts), settings)
        check_logprobs("logprobs", wanted.logprobs, settings)
        if wanted.suffix:
            raise ApiError(400, "suffix is not supported: text is continued, not filled in", param="suffix")
        if wanted.best_of is not None and wanted.best_of != (wanted.n or 1):
            raise ApiError(400, "best_of must equal n: completions are not ranked", param="best_of")
        if self._scores_only and not wanted.echo:
            raise ApiError(400, "max_tokens is 0, which makes sense only with echo", param="max_tokens")
        return wanted.sampling_params(
            self._serving.engine.default_sampling_params(),
            # The engine computes the prompt on its way to a token; _visible leaves that token out again.
            1 if self._scores_only else completion_budget("max_tokens", wanted.max_tokens, settings),
            wanted.logprobs,
            wanted.logprobs if wanted.echo else None,
        )

    def _completion(self, prompts: list[PromptTokens], outputs: list[RequestOutput]) -> dict[str, Any]:
        outputs = [self._visible(output) for output in outputs]
        choices = [
            self._choice(index, completion, Progress(self._echo(prompts[index], output)))
            for index, output in enumerate(outputs)
            for completion in output.outputs
        ]
        usage = count_usage(outputs)
        answer = {"object": "text_completion", **self._answer.header(), "choices": choices, "usage": usage}
        reports = [output.prompt_filter for output in outputs if output.prompt_filter is not None]
        return answer | ({"prompt_filter": [report_object(report) for report in reports]} if reports else {})

    async def _events(
        self, prompts: list[PromptTokens], params: SamplingParams
    ) -> AsyncGenerator[bytes, None]:
        sent: dict[tuple[int, int], Progress] = {}
        outputs: dict[int, RequestOutput] = {}
        reported: set[int] = set()
        stream = self._serving.generator.stream(prompts, params, self._answer.id)
        async with aclosing(stream):
            async for index, found in stream:
                output = outputs[index] = self._visible(found)
                events = []
                for completion in output.outputs:
                    key = (index, completion.index)
                    if key not in sent:
                        sent[key] = Progress(self._echo(prompts[index], output))
                    if choice := self._choice(index, completion, sent[key]):
                        events.append(self._event([choice], **self._first_report(index, output, reported)))
                if events:
                    yield b"".join(events)
        if self._wanted.includes_usage:
            yield self._event([], usage=count_usage(list(outputs.values())))

    @staticmethod
    def _first_report(index: int, output: RequestOutput, reported: set[int]) -> dict[str, Any]:
        """What a filter did to the prompt, once."""
        if output.prompt_filter is None or index in reported:
            return {}
        reported.add(index)
        return {"prompt_filter": [report_object(output.prompt_filter)]}

    def _choice(
        self, prompt_index: int, completion: CompletionOutput, sent: Progress
    ) -> dict[str, Any] | None:
        """What ``sent`` lacks of a choice; None if nothing."""
        piece = sent.advance(completion)
        if piece is None:
            return None
        logprobs = None
        if piece.logprobs is not None:
            tokenizer = self._serving.engine.tokenizer
            logprobs = completion_logprobs(piece.token_ids, piece.logprobs, tokenizer, piece.offset)
        return {
            # All choices of the first prompt come first.
            "index": prompt_index * (self._wanted.n or 1) + completion.index,
            "text": piece.text,
            "logprobs": logprobs,
            "finish_reason": completion.finish_reason,
        }

    def _event(self, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        # Clients that asked for usage expect the key, as null, in every chunk before the last.
        extra = {"usage": None, **extra} if self._wanted.includes_usage else extra
        return event({"object": "text_completion", **self._answer.header(), "choices": choices, **extra})

    def _echo(self, prompt: PromptTokens, output: RequestOutput) -> Piece | None:
        """The prompt, where it is wanted before the text."""
        if not self._wanted.echo:
            return None
        return Piece(prompt.text, prompt.token_ids, output.prompt_logprobs)

    def _visible(self, output: RequestOutput) -> RequestOutput:
        """The output without the token that nobody asked for."""
        if not self._scores_only:
            return output
        hidden = [
            dataclasses.replace(
                completion,
                text="",
                token_ids=[],
                logprobs=None if completion.logprobs is None else [],
                finish_reason=None if completion.finish_reason is None else "length",
            )
            for completion in output.outputs
        ]
        return dataclasses.replace(output, outputs=hidden)
