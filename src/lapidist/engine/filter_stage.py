"""Where prompts are filtered before they are admitted: runs filters in order, and gives sequences their new prompts."""

from array import array
from collections.abc import Iterable
from dataclasses import asdict
from hashlib import blake2b

from lapidist.engine.memory import free_bytes
from lapidist.engine.prompt_filters.choice_memory import ChoiceMemory
from lapidist.engine.prompt_filters.filter_run import FilterRun
from lapidist.engine.prompt_filters.forecast import filter_memory
from lapidist.engine.prompt_filters.outcome import KeptKV, KeptTokens, Outcome
from lapidist.engine.prompt_filters.plan import FilterPlan, Lengths
from lapidist.engine.prompt_filters.report import FilterReport
from lapidist.engine.prompt_filters.spans import kept_spans
from lapidist.engine.request import Request
from lapidist.engine.runner import Runner
from lapidist.engine.sequence import Sequence
from lapidist.models.tokenizer import Tokenizer
from lapidist.workload.step import FilterStep

_MAJORITY = 0.5


class FilterStage:
    """One filter works at a time, so that one prompt's hidden states are in memory and no more.

    Parameters
    ----------
    lengths : what the engine has room for.
    chunk_tokens : tokens that run at once.

    Attributes
    ----------
    layer_tokens : tokens times layers that filters have computed.
    prompt_tokens, kept_tokens : of all prompts filtered so far, before and after.
    """

    def __init__(self, runner: Runner, tokenizer: Tokenizer, lengths: Lengths, chunk_tokens: int) -> None:
        self._runner = runner
        self._tokenizer = tokenizer
        self._lengths = lengths
        self._chunk_tokens = chunk_tokens
        self._runs: dict[Sequence, FilterRun] = {}
        self._choices = ChoiceMemory()
        self._work: list[FilterStep] = []
        self.layer_tokens = self.prompt_tokens = self.kept_tokens = 0

    def enter(self, request: Request) -> None:
        """Decide whether the prompt of a new request, which has a plan, must be filtered; else it is ready."""
        plan = _plan_of(request)
        if plan.bypassed is not None:
            request.filter_report = FilterReport(
                plan.options.method,
                plan.tokens,
                plan.tokens,
                plan.layer,
                bypassed=plan.bypassed,
                forecast_gain=plan.forecast_gain,
            )
            return
        choice = self._choices.find(request.prompt_token_ids, plan.options)
        if choice is not None:
            self._give_tokens(request, choice)
            request.filter_report = self._report(request, choice, None)
        else:
            request.completions[0].sequence.needs_filter = True

    def work(
        self, queue: Iterable[tuple[Sequence, Request]], tokens: int
    ) -> list[tuple[Sequence, str | None]]:
        """Run the filters of a queue in order, as much as so many tokens through all layers.

        Returns
        -------
        The sequences whose filters have ended, each with the reason if it failed.
        """
        config = self._runner.decoder.config
        left = tokens * config.num_layers
        ended: list[tuple[Sequence, str | None]] = []
        for sequence, request in queue:
            if left <= 0:
                break
            if sequence not in self._runs and (problem := self._lack_of_memory(_plan_of(request))):
                ended.append((sequence, problem))
                continue
            run = self._run(sequence, request)
            done = run.advance(left)
            self._work += run.work
            run.work.clear()
            self.layer_tokens += done
            left -= max(done, 1)
            if run.outcome is None:
                break
            del self._runs[sequence]
            self._hand_on(sequence, request, run)
            ended.append((sequence, None))
        return ended

    def take_work(self) -> list[FilterStep]:
        """What filters have computed since the last call."""
        taken, self._work = self._work, []
        return taken

    def forget(self, sequence: Sequence) -> None:
        """The sequence is gone; its filter, if any, gives back all memory."""
        self._runs.pop(sequence, None)
        self._runner.forget(sequence)

    def _run(self, sequence: Sequence, request: Request) -> FilterRun:
        if sequence not in self._runs:
            self._runs[sequence] = FilterRun(
                self._runner.decoder,
                request.prompt_token_ids,
                _plan_of(request),
                self._chunk_tokens,
                self._runner.page_size,
            )
        return self._runs[sequence]

    def _lack_of_memory(self, plan: FilterPlan) -> str | None:
        decoder = self._runner.decoder
        needed = filter_memory(decoder.config, plan.tokens, decoder.dtype.itemsize).total
        free = free_bytes(decoder.device)
        if needed <= free:
            return None
        return f"the prompt filter needs {needed} bytes for {plan.tokens} tokens, and {free} are free"

    def _hand_on(self, sequence: Sequence, request: Request, run: FilterRun) -> None:
        outcome, plan = run.outcome, _plan_of(request)
        assert outcome is not None
        if isinstance(outcome, KeptTokens):
            self._give_tokens(request, outcome)
            self._choices.add(request.prompt_token_ids, plan.options, outcome)
        elif sequence.num_restored:
            # It lost its pages after it had begun; the prompt is as it was.
            self._runner.hand_over(sequence, outcome)
            sequence.needs_filter = False
        else:
            self._give_kv(request, outcome)
        if request.filter_report is None:
            request.filter_report = self._report(request, outcome, run)

    def _give_tokens(self, request: Request, choice: KeptTokens) -> None:
        """The prompt becomes the kept tokens, for all completions."""
        plan, rope = _plan_of(request), self._runner.decoder.config.rope
        kept = len(choice.places)
        token_ids = [request.prompt_token_ids[place] for place in choice.places]
        salt = rope.cache_salt(kept)
        if choice.positions is not None:
            # Pages of equal tokens at other positions hold other keys.
            salt = rope.cache_salt(plan.tokens) + array("q", choice.positions).tobytes()
            salt = blake2b(salt, digest_size=16).digest()
        for completion in request.completions:
            sequence = completion.sequence
            sequence.begin(list(token_ids), self._max_length(request, kept), salt)
            if choice.positions is not None:
                sequence.prompt_positions = choice.positions
                sequence.position_offset = plan.tokens - kept
                sequence.rope_length = plan.tokens

    def _give_kv(self, request: Request, kept: KeptKV) -> None:
        """The prompt becomes keys and values that are there already, for all completions."""
        plan = _plan_of(request)
        for completion in request.completions:
            sequence = completion.sequence
            # The ids stand for no certain tokens: every head has its own.
            stand_ins = request.prompt_token_ids[-kept.tokens :]
            sequence.begin(stand_ins, self._max_length(request, kept.tokens), b"")
            sequence.num_restored = kept.tokens
            sequence.position_offset = plan.tokens - kept.tokens
            sequence.rope_length = plan.tokens
            self._runner.hand_over(sequence, kept)

    def _max_length(self, request: Request, kept: int) -> int:
        room = _plan_of(request).room(kept, self._lengths)
        return kept + min(room, request.params.max_tokens or room)

    def _report(self, request: Request, outcome: Outcome, run: FilterRun | None) -> FilterReport:
        plan = _plan_of(request)
        if isinstance(outcome, KeptTokens):
            kept, count, found = outcome.places, len(outcome.places), outcome.scores
        else:
            kept, count, found = None, outcome.tokens, outcome.shares
        scores, spans = None, None
        if plan.options.explain and found is not None:
            scores = found.tolist()
            shown = kept if kept is not None else [i for i, share in enumerate(scores) if share >= _MAJORITY]
            spans = kept_spans(request.prompt_token_ids, shown, scores, self._tokenizer)
        self.prompt_tokens += plan.tokens
        self.kept_tokens += count
        return FilterReport(
            plan.options.method,
            plan.tokens,
            count,
            outcome.layer,
            kept,
            outcome.bypassed if isinstance(outcome, KeptTokens) else None,
            from_memory=run is None,
            seconds=0.0 if run is None else run.seconds,
            scratch_bytes=0 if run is None else run.scratch_bytes,
            forecast_gain=plan.forecast_gain if outcome.forecast_gain is None else outcome.forecast_gain,
            policy=None if plan.policy is None else asdict(plan.policy),
            scores=scores,
            spans=spans,
        )


def _plan_of(request: Request) -> FilterPlan:
    assert request.filter_plan is not None
    return request.filter_plan
