"""``lapidist eval ruler``: RULER's tasks by length, method by method."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lapidist.evaluation.long_context.case import Case
from lapidist.evaluation.long_context.evaluation_run import EvaluationRun, GeneratedPrompts, sha256
from lapidist.evaluation.long_context.haystack_files import read_haystack
from lapidist.evaluation.long_context.needle_grid import default_lengths
from lapidist.evaluation.long_context.result import Evaluation
from lapidist.evaluation.needle import lengths_within
from lapidist.evaluation.prompt_frame import chat_frame, plain_frame
from lapidist.evaluation.ruler.questions import read_questions
from lapidist.evaluation.ruler.tasks import Ruler, score_of, sentences_of

_SHORTEST_DEFAULT = 512  # into less the published prompts do not fit


@dataclass(frozen=True, kw_only=True)
class RulerSettings(GeneratedPrompts):
    """What is asked. ``lengths`` are of prompt and reply; without them they are the last powers of two up to the
    context, four at most and none below 512.

    Attributes
    ----------
    tasks : None is all.
    samples : per task and length.
    phrasing : one of ``tasks.PHRASINGS``.
    chat : in the model's chat template; None is if it has one.
    questions : files for the tasks of question answering, see ``questions.read_questions``.
    """

    tasks: tuple[str, ...] | None = None
    samples: int = 10
    phrasing: str = "ruler"
    chat: bool | None = None
    questions: tuple[Path, ...] = ()


def evaluate_ruler(run: EvaluationRun, settings: RulerSettings) -> Evaluation:
    """Scores by task (rows) and length (columns) of every method.

    Raises
    ------
    ValueError : there is no such task, one does not fit into a length, a length exceeds the model's context, a file
        cannot be read, or as ``EvaluationRun.evaluate``.
    """
    context, tokenizer = run.context, run.tokenizer
    default = [length for length in default_lengths(context) if length >= _SHORTEST_DEFAULT] or [context]
    lengths = lengths_within(context, settings.lengths or default)
    chat = tokenizer.has_chat_template if settings.chat is None else settings.chat
    documents = read_haystack(settings.haystack, max(lengths))
    sentences = sentences_of(" ".join(documents))
    if not sentences:
        raise ValueError(f"{settings.haystack} has no text")
    sources = [read_questions(file) for file in settings.questions]
    frame = chat_frame(tokenizer) if chat else plain_frame(tokenizer)
    ruler = Ruler(tokenizer, frame, sentences, settings.phrasing, {each.name: each for each in sources})
    tasks = settings.tasks or ruler.tasks
    if unknown := next((task for task in tasks if task not in ruler.tasks), None):
        raise ValueError(f"there is no task {unknown!r}: name some of {', '.join(ruler.tasks)}")
    for length in lengths:  # what does not fit is noticed before the model is loaded
        for task in tasks:
            ruler.samples(task, length, settings.seed, 0)
    described = {
        "tasks": list(tasks),
        "samples": settings.samples,
        "phrasing": settings.phrasing,
        "chat_template": chat,
        "seed": settings.seed,
        "questions": {each.name: sha256(" ".join(each.documents)) for each in sources},
    }
    return run.evaluate(
        "ruler",
        described | settings.described(" ".join(sentences)),
        [str(length) for length in lengths],
        lambda column: ruler_cases(ruler, tasks, int(column), settings.samples, settings.seed),
        longest=max(lengths),
        notes=_notes(settings.phrasing, chat, bool(sources)),
    )


def ruler_cases(ruler: Ruler, tasks: Sequence[str], length: int, samples: int, seed: int) -> list[Case]:
    """``samples`` of each task; where the phrasing asks for one thing at a time, a sample is several cases."""
    return [
        Case(
            task,
            sample.prompt(ruler.tokenizer, ruler.frame),
            sample.reply_tokens(ruler.tokenizer),
            sample.outputs,
            score_of(task),
        )
        for task in tasks
        for index in range(samples)
        for sample in ruler.samples(task, length, seed, index)
    ]


def _notes(phrasing: str, chat: bool, has_questions: bool) -> tuple[str, ...]:
    frame = "in the chat template" if chat else "without a chat template"
    notes = [f"Phrasing: {phrasing}, {frame}."]
    if not has_questions:
        notes.append(
            "Question answering (qa_1, qa_2) is left out: it needs a file of questions (--questions)."
        )
    return tuple(notes)
