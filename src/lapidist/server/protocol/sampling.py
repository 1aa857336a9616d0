"""The request fields that chat and text completions share."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.prompt_filters import PromptFilter, parse_prompt_filter
from lapidist.engine.sampling_params import SamplingParams, StructuredOutput
from lapidist.server.errors import ApiError
from lapidist.server.protocol.base import RequestModel

# What fits the engine's tensors; nobody means a larger number.
_INT32 = 2**31 - 1
_INT64 = 2**63 - 1

TokenId = Annotated[int, Field(ge=0, le=_INT32)]
StopString = Annotated[str, Field(min_length=1)]


class StreamOptions(RequestModel):
    """``include_usage`` adds a last chunk without choices that carries the token counts."""

    include_usage: bool | None = None


class NamedSchema(RequestModel):
    """The ``json_schema`` member of a response format."""

    name: str
    json_schema: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextFormat(RequestModel):
    type: Literal["text"]


class JsonObjectFormat(RequestModel):
    type: Literal["json_object"]


class JsonSchemaFormat(RequestModel):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(RequestModel):
    """vLLM's ``structured_outputs``: exactly one constraint. An unknown one must not go unnoticed."""

    model_config = ConfigDict(extra="forbid")

    json_schema: dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None


class SamplingFields(RequestModel):
    """Names, ranges and defaults as in the OpenAI API; below them what vLLM adds."""

    model: str = Field(description="A name listed by /v1/models.")
    n: int | None = Field(None, ge=1, le=_INT32)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: (
        dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(None, description="Token id to the bias added to its logit.")
    seed: int | None = Field(None, ge=-_INT64 - 1, le=_INT64)
    stop: StopString | list[StopString] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    response_format: ResponseFormat | None = None

    top_k: int | None = Field(None, ge=-1, le=_INT32, description="0 or -1 keeps all tokens.")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    stop_token_ids: Annotated[list[TokenId], Field(fail_fast=True)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(None, ge=0, le=_INT32)
    skip_special_tokens: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_regex: str | None = None
    guided_json: dict[str, Any] | None = None
    prompt_filter: dict[str, Any] | None = Field(
        None,
        description='Run a long prompt at a fraction of its cost: {"method": "gemfilter", "keep": 0.1} and options.',
    )

    @property
    def stop_strings(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling_params(
        self,
        defaults: SamplingParams,
        max_tokens: int | None,
        logprobs: int | None,
        prompt_logprobs: int | None = None,
    ) -> SamplingParams:
        """What the engine needs to know. ``defaults``, the checkpoint's advice, fill in what is unset.

        Raises
        ------
        InvalidRequestError : the values contradict each other.
        """
        given = {name: value for name in _PASSED_ON if (value := getattr(self, name)) is not None}
        if self.logit_bias is not None:
            given["logit_bias"] = {int(token_id): bias for token_id, bias in self.logit_bias.items()}
        return dataclasses.replace(
            defaults,
            max_tokens=max_tokens,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            structured_output=self._structured_output(),
            prompt_filter=self._prompt_filter(prompt_logprobs),
            **given,
        )

    def _prompt_filter(self, prompt_logprobs: int | None) -> PromptFilter | None:
        if self.prompt_filter is None:
            return None
        if prompt_logprobs is not None:
            message = (
                "prompt_filter cannot be combined with log-probabilities of the prompt (echo and logprobs)"
            )
            raise ApiError(400, message, param="prompt_filter")
        try:
            return parse_prompt_filter(self.prompt_filter)
        except InvalidRequestError as error:
            raise ApiError(400, str(error), param="prompt_filter") from None

    def _structured_output(self) -> StructuredOutput | None:
        named = [
            ("response_format", _from_response_format(self.response_format)),
            ("structured_outputs", _from_structured_outputs(self.structured_outputs)),
            (
                "guided_regex",
                None if self.guided_regex is None else StructuredOutput(regex=self.guided_regex),
            ),
            (
                "guided_json",
                None if self.guided_json is None else StructuredOutput(json_schema=self.guided_json),
            ),
        ]
        constraints = [(name, constraint) for name, constraint in named if constraint is not None]
        if len(constraints) > 1:
            names = " and ".join(name for name, _ in constraints)
            raise ApiError(
                400, f"{names} each constrain the output; give only one of them", param=constraints[1][0]
            )
        return constraints[0][1] if constraints else None


def _from_response_format(
    form: TextFormat | JsonObjectFormat | JsonSchemaFormat | None,
) -> StructuredOutput | None:
    if isinstance(form, JsonSchemaFormat):
        return StructuredOutput(json_schema=form.json_schema.json_schema)
    if isinstance(form, JsonObjectFormat):
        return StructuredOutput(json_schema={"type": "object"})
    return None


def _from_structured_outputs(outputs: StructuredOutputs | None) -> StructuredOutput | None:
    return None if outputs is None else StructuredOutput(json_schema=outputs.json_schema, regex=outputs.regex)


_PASSED_ON = (
    "n",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "top_k",
    "min_p",
    "repetition_penalty",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
)
