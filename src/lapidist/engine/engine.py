"""The engine: requests in, tokens out, one step at a time."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.filter_stage import FilterStage
from lapidist.engine.memory import plan_kv_cache
from lapidist.engine.outputs import RequestMetrics
from lapidist.engine.page_pool import PagePool
from lapidist.engine.prompt_filters.plan import Lengths, plan_filter
from lapidist.engine.recorder import StepRecorder
from lapidist.engine.request import Completion, Request, describe_logprobs
from lapidist.engine.runner import Runner, StepResult
from lapidist.engine.sampler import (
    SampledToken,
    Sampler,
    SequenceSampling,
    token_logprobs,
    validate_against_vocabulary,
)
from lapidist.engine.sampling_params import SamplingParams
from lapidist.engine.scheduler import ScheduledStep, Scheduler
from lapidist.engine.sequence import Sequence
from lapidist.engine.structured_output import GrammarCompiler
from lapidist.models.checkpoint_parts import checkpoint_parts
from lapidist.models.generation_config import load_generation_defaults
from lapidist.models.load import load_decoder, resolve_device, resolve_dtype
from lapidist.models.softmax_config import resolve_softmax_mode
from lapidist.models.tokenizer import Tokenizer


class TextPrompt(TypedDict):
    prompt: str


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]
    prompt: NotRequired[str]  # only echoed back


Prompt = str | TextPrompt | TokensPrompt


@dataclass(frozen=True)
class EngineConfig:
    """How the engine runs a model.

    Parameters
    ----------
    model : directory of a Hugging Face checkpoint.
    dtype : "auto" (the checkpoint's), "float32", "bfloat16" or "float16".
    device : "cpu", "cuda" or "cuda:N".
    max_model_len : prompt and generated tokens at most; None is the model's context, as far as the KV cache holds it.
    kv_cache_bytes : size of the KV cache; None takes what full batches can use, at most a quarter of free memory.
    page_size : tokens per KV page.
    max_num_seqs : sequences that run at once.
    max_num_batched_tokens : tokens computed per step; longer prompts are cut into chunks.
    enable_prefix_caching : reuse the KV pages of equal prefixes.
    seed : of the random stream that requests without their own seed draw from.
    record : file that gets one JSON line per step (``lapidist.workload.Step``).
    attention_softmax : "auto" (the checkpoint's, lazy unless it was calibrated), "online", "lazy" or "unified", see
        ``lapidist.kernels.softmax``.
    """

    model: str | Path
    dtype: str | torch.dtype = "auto"
    device: str = "cpu"
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    page_size: int = 16
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    enable_prefix_caching: bool = True
    seed: int = 0
    record: str | Path | None = None
    attention_softmax: str = "auto"

    def __post_init__(self) -> None:
        for name in (
            "max_model_len",
            "kv_cache_bytes",
            "page_size",
            "max_num_seqs",
            "max_num_batched_tokens",
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        resolve_softmax_mode(self.attention_softmax)
        resolve_device(self.device)


@dataclass(frozen=True)
class EngineStats:
    """Counters since the start and gauges of this moment.

    Attributes
    ----------
    pages_used : pages that a sequence refers to.
    filtering : sequences whose prompts are being filtered, or wait for it.
    filtered_prompt_tokens, filter_kept_tokens : of prompts that went through a filter, before and after it.
    attention_rows : rows (token, head) of attention in all layers.
    attention_rows_recomputed : per layer, those that mode unified of attention's softmax computed a second time.
    """

    running: int
    waiting: int
    pages_total: int
    pages_used: int
    prefix_queried_tokens: int
    prefix_hit_tokens: int
    preemptions: int
    prompt_tokens: int
    generated_tokens: int
    steps: int
    filtering: int
    filtered_prompt_tokens: int
    filter_kept_tokens: int
    attention_rows: int
    attention_rows_recomputed: tuple[int, ...]


class Engine:
    """Continuous batching over one decoder. Not thread-safe: one caller drives it.

    Raises
    ------
    CheckpointError : the model cannot be loaded; one sentence naming file and key.
    ValueError : the options contradict each other or the machine's memory.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.decoder = load_decoder(
            Path(config.model),
            resolve_dtype(config.dtype),
            config.device,
            resolve_softmax_mode(config.attention_softmax),
        )
        self.config = self.decoder.config
        self.parts = checkpoint_parts(Path(config.model))
        self.tokenizer = Tokenizer.from_directory(Path(config.model))
        self.generation_defaults = load_generation_defaults(Path(config.model))
        self.eos_token_ids = frozenset(self.generation_defaults.eos_token_ids)
        plan = plan_kv_cache(
            self.config,
            self.decoder.dtype,
            self.decoder.device,
            max_model_len=config.max_model_len,
            kv_cache_bytes=config.kv_cache_bytes,
            page_size=config.page_size,
            max_num_seqs=config.max_num_seqs,
            kv_bits=self.decoder.kv_bits,
        )
        self.max_model_len = plan.max_model_len
        self.max_context = plan.max_context
        self.lengths = Lengths(plan.max_context, plan.max_model_len)
        self.runner = Runner(self.decoder, plan.num_pages, config.page_size)
        self.pool = PagePool(plan.num_pages, config.page_size)
        self.scheduler = Scheduler(
            self.pool, config.max_num_seqs, config.max_num_batched_tokens, config.enable_prefix_caching
        )
        self._filters = FilterStage(self.runner, self.tokenizer, self.lengths, config.max_num_batched_tokens)
        self._sampler = Sampler(config.seed)
        self._grammars = GrammarCompiler(self.tokenizer, self.config.vocab_size, self.eos_token_ids)
        self._recorder = StepRecorder(Path(config.record)) if config.record is not None else None
        self._requests: dict[str, Request] = {}
        self._completions: dict[Sequence, tuple[Request, Completion]] = {}
        self._prompt_tokens = self._generated_tokens = self._computed_tokens = self._steps = 0

    # -- requests ------------------------------------------------------------------------------------------------

    def prepare(self, request_id: str, prompt: Prompt, params: SamplingParams) -> Request:
        """Make a request of a prompt: tokenize, validate, compile its grammar. Touches nothing that ``step`` uses,
        so that another thread may call it while the engine steps.

        Raises
        ------
        InvalidRequestError : the request can never be served.
        """
        text, prompt_token_ids = self._encode(prompt)
        validate_against_vocabulary(params, self.config.vocab_size)
        tokens, plan = len(prompt_token_ids), None
        if params.prompt_filter is not None:
            plan = plan_filter(params.prompt_filter, tokens, self.config, self.lengths, params.max_tokens)
        if plan is not None and plan.bypassed is None:
            # Of what the filter will make of it.
            room = plan.room(plan.kept, self.lengths)
            max_length = plan.kept + min(room, params.max_tokens or room)
        else:
            room = self.max_model_len - tokens
            if room < 1:
                raise InvalidRequestError(
                    f"the prompt has {tokens} tokens; with at least one generated token it exceeds "
                    f"the maximum length of {self.max_model_len} tokens"
                )
            max_length = tokens + min(room, params.max_tokens or room)
        completions = [self._completion(i, prompt_token_ids, max_length, params) for i in range(params.n)]
        return Request(
            request_id,
            text,
            prompt_token_ids,
            params,
            completions,
            RequestMetrics(arrival_time=time.monotonic()),
            prompt_logprobs=None if params.prompt_logprobs is None else [None],
            filter_plan=plan,
            unforked=completions[:0:-1],
        )

    def add(self, request: Request) -> None:
        """Queue a prepared request.

        Raises
        ------
        InvalidRequestError : its id is in use.
        """
        if request.request_id in self._requests:
            raise InvalidRequestError(f"request id {request.request_id!r} is already in use")
        self._requests[request.request_id] = request
        for completion in request.completions:
            self._completions[completion.sequence] = (request, completion)
        self._prompt_tokens += len(request.prompt_token_ids)
        if request.filter_plan is not None:
            self._filters.enter(request)
        self.scheduler.add(request.completions[0].sequence)

    def abort_request(self, request_id: str) -> Request | None:
        """End a request and free its pages at once; None if it is not (or no longer) known."""
        request = self._requests.get(request_id)
        if request is not None:
            for completion in request.completions:
                completion.abort()
                self._retire(completion)
            self._close(request)
        return request

    def has_work(self) -> bool:
        return self.scheduler.has_work()

    def stats(self) -> EngineStats:
        """Costs a step nothing, but on a GPU it waits for the step under way: the kernels count there."""
        return EngineStats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            pages_total=self.pool.num_pages,
            pages_used=self.pool.num_held,
            prefix_queried_tokens=self.scheduler.prefix_queried_tokens,
            prefix_hit_tokens=self.scheduler.prefix_hit_tokens,
            preemptions=self.scheduler.num_preemptions,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            steps=self._steps,
            filtering=len(self.scheduler.filtering),
            filtered_prompt_tokens=self._filters.prompt_tokens,
            filter_kept_tokens=self._filters.kept_tokens,
            attention_rows=(self._computed_tokens * self.config.num_layers + self._filters.layer_tokens)
            * self.config.num_heads,
            attention_rows_recomputed=tuple(self.decoder.recomputed_rows.tolist()),
        )

    def default_sampling_params(self) -> SamplingParams:
        """What the checkpoint's ``generation_config.json`` recommends."""
        recommended = self.generation_defaults
        values: dict[str, Any] = {
            "temperature": recommended.temperature,
            "top_k": recommended.top_k,
            "top_p": recommended.top_p,
            "min_p": recommended.min_p,
            "repetition_penalty": recommended.repetition_penalty,
            "max_tokens": recommended.max_new_tokens,
        }
        return SamplingParams(**{name: value for name, value in values.items() if value is not None})

    def chat_prompt(self, messages: list[dict[str, Any]], **variables: Any) -> TokensPrompt:
        """The prompt that the checkpoint's chat template makes of a conversation.

        Raises
        ------
        ChatTemplateError : the checkpoint has no chat template, or it refuses the messages.
        """
        text = self.tokenizer.apply_chat_template(messages, **variables)
        # The template has written the special tokens itself.
        return {"prompt": text, "prompt_token_ids": self.tokenizer.encode(text, add_special_tokens=False)}

    def age_cache(self, seed: int = 0) -> None:
        """Leave the KV cache as long service does, for measurements: pages scattered, and all memory in place, which
        the system gives a process only as it writes to it.
        """
        self.pool.scatter(seed)
        for numbers in (*self.runner.cache.keys, *self.runner.cache.values):
            numbers.mul_(1)

    def close(self) -> None:
        """Flush the step recording."""
        if self._recorder is not None:
            self._recorder.close()

    # -- one step ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Run one forward pass; returns the requests that got a token or finished, each once."""
        start = time.monotonic()
        step = self.scheduler.schedule()
        for sequence in self._sequences_of(step):
            metrics = self._completions[sequence][0].metrics
            if metrics.first_scheduled_time is None:
                metrics.first_scheduled_time = start
        result = self.runner.run(step)
        prompt_rows = self._collect_prompt_logprobs(step, result)
        entries = result.sampling_entries
        sampled = self._sample(result)
        self.scheduler.complete(step)
        now = time.monotonic()
        changed: dict[str, Request] = {}
        for entry, token in zip(entries, sampled, strict=True):
            request, completion = self._completions[entry.sequence]
            changed[request.request_id] = request
            if token.error is not None:
                completion.fail(token.error)
            else:
                completion.append(token)
                self._generated_tokens += 1
            if request.metrics.first_token_time is None:
                request.metrics.first_token_time = now
            self._fork(request)
            if completion.finished:
                self._retire(completion)
                if request.finished:
                    self._close(request)
        failed = self._run_filters(step.filter_tokens)
        changed |= {request.request_id: request for request in failed}
        self._steps += 1
        self._computed_tokens += sum(entry.num_tokens for entry in step.scheduled)
        work = self._filters.take_work()
        if self._recorder is not None and (step.scheduled or work):
            duration = time.monotonic() - start
            self._recorder.write(step.workload(prompt_rows, duration, start, work, result.restored_tokens))
        return list(changed.values())

    def _sequences_of(self, step: ScheduledStep) -> list[Sequence]:
        """All that a step works on."""
        filtering = [self.scheduler.filtering[0]] if step.filter_tokens else []
        return [entry.sequence for entry in step.scheduled] + filtering

    def _run_filters(self, tokens: int) -> list[Request]:
        """The share of prompt filters in a step; returns the requests that failed."""
        queue = [(sequence, self._completions[sequence][0]) for sequence in self.scheduler.filtering]
        failed = []
        for sequence, problem in self._filters.work(queue, tokens):
            if problem is None:
                self.scheduler.filtered(sequence)
            else:
                request = self._completions[sequence][0]
                for completion in request.completions:
                    completion.fail(problem)
                    self._retire(completion)
                self._close(request)
                failed.append(request)
        return failed

    def _sample(self, result: StepResult) -> list[SampledToken]:
        completions = [self._completions[entry.sequence][1] for entry in result.sampling_entries]
        if not completions:
            return []
        return self._sampler.sample(
            result.sampling_logits(),
            [completion.sampling for completion in completions],
            [completion.grammar for completion in completions],
        )

    def _collect_prompt_logprobs(self, step: ScheduledStep, result: StepResult) -> int:
        """Fill in the prompt log-probabilities that this step can tell; returns how many logit rows that took."""
        rows = 0
        for index, entry in enumerate(step.scheduled):
            request, completion = self._completions[entry.sequence]
            known, k = request.prompt_logprobs, request.params.prompt_logprobs
            if known is None or k is None or completion.index > 0:
                continue
            # After a preemption the prompt is computed again; what is known already is kept.
            if len(known) >= min(entry.end + 1, completion.sequence.prompt_length):
                continue
            for part in result.prompt_logits(index):
                rows += len(part.logits)
                chosen = request.prompt_token_ids[part.first : part.first + len(part.logits)]
                new = [
                    describe_logprobs(row, self.tokenizer) for row in token_logprobs(part.logits, chosen, k)
                ]
                known += new[len(known) - part.first :]
        return rows

    def _fork(self, request: Request) -> None:
        """Queue the other completions of a request whose prompt is now in the prefix cache."""
        while request.unforked:
            self.scheduler.add(request.unforked.pop().sequence, front=True)

    def _retire(self, completion: Completion) -> None:
        self.scheduler.remove(completion.sequence)
        self._filters.forget(completion.sequence)
        self._completions.pop(completion.sequence, None)

    def _close(self, request: Request) -> None:
        request.metrics.finished_time = time.monotonic()
        del self._requests[request.request_id]

    # -- pieces of prepare ---------------------------------------------------------------------------------------

    def _encode(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        """The prompt as text (if it came as text) and as token ids."""
        # Callers come from outside: nothing is taken for granted about the value.
        parts: dict[str, Any] = dict(prompt) if isinstance(prompt, dict) else {"prompt": prompt}
        text, token_ids = parts.get("prompt"), parts.get("prompt_token_ids")
        if isinstance(token_ids, (list, tuple)):
            self._check_token_ids(token_ids)
        elif token_ids is None and isinstance(text, str):
            token_ids = self.tokenizer.encode(text)
        else:
            raise InvalidRequestError(
                'a prompt is a string, {"prompt": string} or {"prompt_token_ids": [integers]}, '
                f"got {type(prompt).__name__} {prompt!r:.80}"
            )
        if not token_ids:
            raise InvalidRequestError("the prompt is empty: it must have at least one token")
        return text, list(token_ids)

    def _check_token_ids(self, token_ids: Iterable[object]) -> None:
        vocab_size = self.config.vocab_size
        for token_id in token_ids:
            whole = isinstance(token_id, int) and not isinstance(token_id, bool)
            if not whole or not 0 <= token_id < vocab_size:  # type: ignore[operator]
                raise InvalidRequestError(
                    f"prompt_token_ids must be integers from 0 to {vocab_size - 1}, got {token_id!r}"
                )

    def _completion(
        self, index: int, prompt_token_ids: list[int], max_length: int, params: SamplingParams
    ) -> Completion:
        sequence = Sequence(
            token_ids=list(prompt_token_ids),
            prompt_length=len(prompt_token_ids),
            max_length=max_length,
            reads_prefix_cache=params.prompt_logprobs is None or index > 0,
            cache_salt=self.config.rope.cache_salt(len(prompt_token_ids)),
        )
        constraint = params.structured_output
        return Completion(
            index,
            sequence,
            params,
            SequenceSampling(
                params, prompt_token_ids, self.config.vocab_size, index, eos_token_ids=self.eos_token_ids
            ),
            None if constraint is None else self._grammars.compile(constraint),
            self.tokenizer,
            self.eos_token_ids,
        )
