"""How serving engines fill their steps, as far as they differ from ours; what a request waits for depends on it.

vLLM does as our scheduler does: decodes first, and what is left of a step's tokens goes to prompts, cut where they do
not fit (Sarathi-Serve, arXiv 2403.02310). SGLang stops decoding while prompts wait (``--enable-mixed-chunk`` is off
by default), so that clients whose answers end together stay together. TensorRT-LLM cuts no prompt unless asked to
(``enable_chunked_prefill``) and may let prompts wait for others (``batch_wait_timeout_iters``,
``batch_wait_max_tokens_ratio``).
"""

from dataclasses import dataclass

from lapidist.engine.page_pool import PagePool
from lapidist.engine.scheduler import ScheduledSequence, ScheduledStep, Scheduler
from lapidist.engine.sequence import Sequence


@dataclass(frozen=True)
class Batching:
    """The default is our engine's way, and vLLM's.

    Attributes
    ----------
    prefill_first : prompts get steps of their own, before any decode.
    whole_prompts : a prompt waits for a step that holds it whole; only one longer than any step is cut.
    wait_steps : decode steps that prompts wait for others at most.
    wait_share : of a step's tokens; so many, decodes included, end the wait.
    """

    prefill_first: bool = False
    whole_prompts: bool = False
    wait_steps: int = 0
    wait_share: float = 0.0

    def __post_init__(self) -> None:
        if self.wait_steps < 0 or not 0 <= self.wait_share <= 1:
            raise ValueError(
                f"wait_steps must be at least 0 and wait_share from 0 to 1, got {self.wait_steps} and "
                f"{self.wait_share:g}"
            )
        if self.prefill_first and self.wait_steps:
            raise ValueError(
                "prompts that go before decodes do not wait: set either prefill_first or wait_steps"
            )


MIXED = Batching()
BATCHING_BY_BACKEND = {"sglang": Batching(prefill_first=True), "trtllm": Batching(whole_prompts=True)}


class BatchingScheduler(Scheduler):
    """Our scheduler's queues, pages and preemption, with steps filled in another way."""

    def __init__(
        self,
        pool: PagePool,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        prefix_caching: bool,
        batching: Batching,
    ) -> None:
        super().__init__(pool, max_num_seqs, max_num_batched_tokens, prefix_caching)
        self.batching = batching
        self._waited = 0

    @property
    def holds_back(self) -> bool:
        """Whether a sequence may wait although there is room for it."""
        return self.batching.wait_steps > 0

    def steps_held_back(self, decodes: int) -> int:
        """For how many steps more nobody is admitted, unless somebody comes."""
        tokens = sum(sequence.num_tokens for sequence in self.waiting)
        enough = self.batching.wait_share * self.max_num_batched_tokens
        waits = decodes > 0 and tokens > 0 and decodes + tokens < enough
        return max(0, self.batching.wait_steps - self._waited) if waits else 0

    def hold_back(self, steps: int) -> None:
        """So many of them have passed."""
        self._waited += steps

    def schedule(self) -> ScheduledStep:
        """Choose the next step. Call ``complete`` once it has run."""
        found = ScheduledStep([])
        if self.batching.prefill_first:
            self._prefill(found, self.max_num_batched_tokens)
            if not found.scheduled:
                self._decode(found)
        else:
            self._decode(found)
            decodes = len(found.scheduled)
            if self.steps_held_back(decodes):
                self.hold_back(1)
            else:
                self._waited = 0
                self._prefill(found, self.max_num_batched_tokens - decodes)
        return found

    def _decode(self, step: ScheduledStep) -> None:
        for sequence in [each for each in self.running if each.num_uncomputed == 1]:
            if sequence not in step.preempted:
                step.preempted.extend(self._grow(sequence))
            if sequence not in step.preempted:
                step.scheduled.append(_tokens(sequence, 1))

    def _prefill(self, step: ScheduledStep, budget: int) -> None:
        for sequence in self.running:
            if budget > 0 and sequence.num_uncomputed > 1:
                step.scheduled.append(_tokens(sequence, budget))
                budget -= step.scheduled[-1].num_tokens
        while budget > 0 and not step.preempted and self.waiting and len(self.running) < self.max_num_seqs:
            sequence = self.waiting[0]
            whole = self.batching.whole_prompts and sequence.num_tokens <= self.max_num_batched_tokens
            if whole and sequence.num_tokens > budget and _has_prompt(step):
                break
            if not self._admit(sequence):
                break
            self.running.append(self.waiting.popleft())
            # Decodes, unlike other prompts, would be in the way for ever: the step takes them and the whole prompt.
            step.scheduled.append(_tokens(sequence, sequence.num_tokens if whole else budget))
            budget -= step.scheduled[-1].num_tokens


def _has_prompt(step: ScheduledStep) -> bool:
    return any(entry.num_tokens > 1 for entry in step.scheduled)


def _tokens(sequence: Sequence, budget: int) -> ScheduledSequence:
    """The next tokens of a sequence, at most ``budget``."""
    end = min(sequence.num_computed + budget, sequence.num_tokens)
    return ScheduledSequence(sequence, sequence.num_computed, end, samples=end == sequence.num_tokens)
