"""Runs the cases of an evaluation through the engine, by one method after the other."""

from collections.abc import Callable, Sequence
from functools import partial

from lapidist.engine.engine import Prompt
from lapidist.engine.llm import LLM
from lapidist.engine.outputs import RequestOutput
from lapidist.engine.sampling_params import SamplingParams
from lapidist.evaluation.long_context.case import Case, Outcome
from lapidist.evaluation.long_context.methods import Method
from lapidist.evaluation.long_context.result import MethodResult
from lapidist.evaluation.long_context.store import OutcomeStore

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and all."""

BATCH = 16
"""Prompts that are given to the engine at once."""


def run_methods(
    llm: LLM,
    methods: Sequence[Method],
    columns: Sequence[str],
    cases_of: Callable[[str], list[Case]],
    store: OutcomeStore,
    progress: Progress = lambda label, done, total: None,
) -> list[MethodResult]:
    """Every method on the cases of every column, the same ones for all. Columns that the store has are not run again.

    Raises
    ------
    ValueError : as ``cases_of`` and ``store`` do, or the engine cannot serve a prompt.
    """
    found: dict[str, dict[str, list[Outcome]]] = {method.label: {} for method in methods}
    for column in columns:
        cases: list[Case] | None = None
        for method in methods:
            outcomes = store.load(method, column)
            if outcomes is None:
                cases = cases_of(column) if cases is None else cases
                outcomes = run_cases(llm, method, cases, partial(progress, f"{method.label}, {column}"))
                store.save(method, column, outcomes)
            found[method.label][column] = outcomes
    return [MethodResult(method, found[method.label]) for method in methods]


def run_cases(
    llm: LLM,
    method: Method,
    cases: Sequence[Case],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Greedy replies, scored, in the order of ``cases``."""
    outcomes: list[Outcome] = []
    progress(0, len(cases))
    for start in range(0, len(cases), BATCH):
        batch = cases[start : start + BATCH]
        prompts: list[Prompt] = [{"prompt_token_ids": case.prompt} for case in batch]
        params = [
            SamplingParams(temperature=0, max_tokens=case.max_new_tokens, prompt_filter=method.prompt_filter)
            for case in batch
        ]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        outcomes += [_outcome(case, output) for case, output in zip(batch, outputs, strict=True)]
        progress(len(outcomes), len(cases))
    return outcomes


def _outcome(case: Case, output: RequestOutput) -> Outcome:
    text, report = output.outputs[0].text, output.prompt_filter
    tokens = len(case.prompt)
    return Outcome(
        case.row,
        case.score(text, case.expected),
        text,
        case.expected,
        tokens,
        tokens if report is None else report.kept_tokens,
        None if report is None else report.bypassed,
    )
