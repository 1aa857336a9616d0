"""``lapidist eval needle``: needles by depth and length, by the clean or the published protocol, method by method."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lapidist.evaluation.haystack import haystack_of
from lapidist.evaluation.long_context import needle_grid, published_needle
from lapidist.evaluation.long_context.case import Case
from lapidist.evaluation.long_context.evaluation_run import EvaluationRun, GeneratedPrompts
from lapidist.evaluation.long_context.haystack_files import read_haystack
from lapidist.evaluation.long_context.result import Evaluation
from lapidist.evaluation.needle import lengths_within
from lapidist.evaluation.text import joined
from lapidist.models.tokenizer import Tokenizer

PROTOCOLS = ("clean", "published")


@dataclass(frozen=True, kw_only=True)
class NeedleSettings(GeneratedPrompts):
    """What is hidden, and where. Without ``lengths`` they are four powers of two up to the context, or as published, as
    far as the context goes.

    Attributes
    ----------
    protocol : one of ``PROTOCOLS``.
    depths : in percent; None is the ten published ones.
    trials, needles, style, seed : of the clean protocol. Of ``needles`` facts one is asked for, the others are at
        random depths. ``style`` is one of ``needle_facts.STYLES``; None is chat if the model has a template, else
        number.
    """

    protocol: str = "clean"
    depths: tuple[int, ...] | None = None
    trials: int = 1
    needles: int = 1
    style: str | None = None


def evaluate_needle(run: EvaluationRun, settings: NeedleSettings) -> Evaluation:
    """Scores by depth (rows) and length (columns) of every method.

    Raises
    ------
    ValueError : a length does not suit the model, the needle or the haystack, a haystack cannot be read, or as
        ``EvaluationRun.evaluate``.
    """
    context, tokenizer = run.context, run.tokenizer
    clean = settings.protocol == "clean"
    default = needle_grid.default_lengths(context) if clean else published_needle.lengths_between(0, context)
    lengths = lengths_within(context, settings.lengths or default)
    if not lengths:
        raise ValueError(
            f"the model's context of {context} tokens is shorter than the shortest published length "
            f"({published_needle.LENGTHS[0]}): name lengths of your own"
        )
    documents = read_haystack(settings.haystack, max(lengths))
    if clean:
        cases_of, described = _clean(documents, tokenizer, settings)
    else:
        cases_of, described = _published(documents, tokenizer, settings, max(lengths))
    first = cases_of(str(min(lengths)))  # what does not fit is noticed before the model is loaded
    return run.evaluate(
        "needle",
        described | settings.described(joined(documents)),
        [str(length) for length in lengths],
        lambda column: first if column == str(min(lengths)) else cases_of(column),
        longest=min(context, max(lengths) + 256),
        notes=_notes(settings, described),
    )


def _clean(
    documents: Sequence[str], tokenizer: Tokenizer, settings: NeedleSettings
) -> tuple[Callable[[str], list[Case]], dict[str, Any]]:
    style = settings.style or ("chat" if tokenizer.has_chat_template else "number")
    depths = settings.depths or published_needle.DEPTHS
    haystack = haystack_of(joined(documents), tokenizer)

    def cases_of(column: str) -> list[Case]:
        return needle_grid.needle_cases(
            haystack,
            tokenizer,
            int(column),
            [depth / 100 for depth in depths],
            trials=settings.trials,
            seed=settings.seed,
            style=style,
            distractors=settings.needles - 1,
        )

    fields = asdict(settings)
    described = {name: fields[name] for name in ("protocol", "trials", "needles", "seed")}
    return cases_of, {**described, "style": style, "chat_template": style == "chat", "depths": list(depths)}


def _published(
    documents: Sequence[str], tokenizer: Tokenizer, settings: NeedleSettings, longest: int
) -> tuple[Callable[[str], list[Case]], dict[str, Any]]:
    if settings.trials != 1 or settings.needles != 1 or settings.style is not None:
        raise ValueError(
            "the published protocol has one needle and no styles: leave out trials, needles and style"
        )
    depths = settings.depths or published_needle.DEPTHS
    needle = published_needle.PublishedNeedle(documents, tokenizer, longest)
    described = {
        "protocol": settings.protocol,
        "chat_template": False,
        "depths": list(depths),
        "highest_score": published_needle.CEILING,
    }
    return lambda column: needle.cases(int(column), depths), described


def _notes(settings: NeedleSettings, described: dict[str, Any]) -> tuple[str, ...]:
    if settings.protocol == "published":
        return ("Published protocol: no chat template; no answer scores more than 91.7.",)
    frame = "in the chat template" if described["chat_template"] else "without a chat template"
    return (f"Clean protocol: {described['style']} asked for {frame}, exact answers count.",)
