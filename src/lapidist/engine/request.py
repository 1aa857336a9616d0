"""A request in flight: its completions, their text, and when each one ends."""

from dataclasses import dataclass, field

from lapidist.engine.detokenizer import IncrementalDetokenizer
from lapidist.engine.outputs import (
    CompletionOutput,
    FinishReason,
    Logprob,
    RequestMetrics,
    RequestOutput,
    TokenLogprobs,
)
from lapidist.engine.prompt_filters.plan import FilterPlan
from lapidist.engine.prompt_filters.report import FilterReport
from lapidist.engine.sampler import SampledToken, SequenceSampling
from lapidist.engine.sampling_params import SamplingParams
from lapidist.engine.sequence import Sequence
from lapidist.engine.stop_strings import StopStringMatcher
from lapidist.engine.structured_output import GrammarState
from lapidist.models.tokenizer import Tokenizer


class Completion:
    """One of the ``n`` texts of a request, from sampled tokens to finished text."""

    def __init__(
        self,
        index: int,
        sequence: Sequence,
        params: SamplingParams,
        sampling: SequenceSampling,
        grammar: GrammarState | None,
        tokenizer: Tokenizer,
        eos_token_ids: frozenset[int],
    ) -> None:
        self.index = index
        self.sequence = sequence
        self.sampling = sampling
        self.grammar = grammar
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self.text = ""
        self.logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self.cumulative_logprob = 0.0
        self._params = params
        self._tokenizer = tokenizer
        self._eos_token_ids = frozenset() if params.ignore_eos else eos_token_ids
        self._stop_token_ids = frozenset(params.stop_token_ids or ())
        self._detokenizer = IncrementalDetokenizer(
            tokenizer,
            sequence.token_ids[: sequence.prompt_length],
            skip_special_tokens=params.skip_special_tokens,
        )
        self._stops = StopStringMatcher(params.stop_strings, params.include_stop_str_in_output)

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def num_generated(self) -> int:
        return self.sequence.num_tokens - self.sequence.prompt_length

    def append(self, token: SampledToken) -> None:
        """Take the next token: extend the text and decide whether the completion ends with it."""
        token_id = token.token_id
        self.sequence.token_ids.append(token_id)
        self.sampling.append(token_id)
        if self.logprobs is not None:
            self.logprobs.append(describe_logprobs(token.logprobs or [], self._tokenizer))
            self.cumulative_logprob += token.logprob
        if self.grammar is not None:
            self.grammar.accept(token_id)

        may_stop = self.num_generated >= self._params.min_tokens
        if may_stop and token_id in self._eos_token_ids:
            self._finish("stop")
        elif may_stop and token_id in self._stop_token_ids:
            if self._params.include_stop_str_in_output:
                self._extend(self._detokenizer.append(token_id), may_stop)
            self._finish("stop", token_id)
        else:
            self._extend(self._detokenizer.append(token_id), may_stop)
            if not self.finished and self.grammar is not None and self.grammar.is_terminated:
                self._finish("stop")
            if not self.finished and self.sequence.num_tokens >= self.sequence.max_length:
                self._finish("length")

    def abort(self) -> None:
        """End the completion with what there is; a finished one stays as it is."""
        if not self.finished:
            self._finish("abort")

    def fail(self, reason: str) -> None:
        """End the completion because the model gave nothing to sample from."""
        self._finish("error", reason)

    def output(self) -> CompletionOutput:
        """A snapshot that later tokens do not change."""
        return CompletionOutput(
            index=self.index,
            text=self.text,
            token_ids=self.sequence.token_ids[self.sequence.prompt_length :],
            cumulative_logprob=None if self.logprobs is None else self.cumulative_logprob,
            logprobs=None if self.logprobs is None else list(self.logprobs),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )

    def _extend(self, text: str, may_stop: bool, final: bool = False) -> None:
        if not may_stop:
            self.text += text
            return
        emitted, matched = self._stops.feed(text, final=final)
        self.text += emitted
        if matched is not None:
            self.finish_reason, self.stop_reason = "stop", matched

    def _finish(self, reason: FinishReason, stop_reason: int | str | None = None) -> None:
        # What was held back as the possible beginning of a character or of a stop string is text after all.
        self._extend(self._detokenizer.flush(), may_stop=True, final=True)
        if not self.finished:
            self.finish_reason, self.stop_reason = reason, stop_reason


@dataclass(eq=False)
class Request:
    """A prompt with its completions. ``prompt_logprobs`` fills up as the prompt is computed."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    completions: list[Completion]
    metrics: RequestMetrics
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    filter_plan: FilterPlan | None = None
    filter_report: FilterReport | None = None
    unforked: list[Completion] = field(default_factory=list)
    """Completions not queued yet: they start once the first one has put the prompt into the prefix cache."""

    @property
    def finished(self) -> bool:
        return all(completion.finished for completion in self.completions)

    def output(self) -> RequestOutput:
        """A snapshot that later tokens do not change."""
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=[completion.output() for completion in self.completions],
            finished=self.finished,
            metrics=self.metrics,
            prompt_logprobs=self.prompt_logprobs,
            num_cached_tokens=self.completions[0].sequence.num_cached_tokens,
            prompt_filter=self.filter_report,
        )


def describe_logprobs(entries: list[tuple[int, float, int]], tokenizer: Tokenizer) -> TokenLogprobs:
    """(token id, log-probability, rank) triples as the mapping that the API returns."""
    return {
        token_id: Logprob(logprob, rank, tokenizer.decode([token_id], skip_special_tokens=False))
        for token_id, logprob, rank in entries
    }
