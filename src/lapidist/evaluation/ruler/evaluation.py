"""``lapidist eval ruler``: RULER's tasks by length, method by method."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lapidist.engine.llm import LLM
from lapidist.evaluation.long_context.case import Case
from lapidist.evaluation.long_context.haystack_files import read_haystack
from lapidist.evaluation.long_context.methods import Method
from lapidist.evaluation.long_context.needle_grid import default_lengths
from lapidist.evaluation.long_context.result import Evaluation
from lapidist.evaluation.long_context.run import Progress, run_methods
from lapidist.evaluation.long_context.store import OutcomeStore, fingerprint
from lapidist.evaluation.needle import lengths_within
from lapidist.evaluation.prompt_frame import chat_frame, plain_frame
from lapidist.evaluation.ruler.questions import read_questions
from lapidist.evaluation.ruler.tasks import Ruler, score_of, sentences_of
from lapidist.models.config import ModelConfig
from lapidist.models.tokenizer import Tokenizer

_SHORTEST_DEFAULT = 512  # into less the published prompts do not fit


@dataclass(frozen=True)
class RulerSettings:
    """What is asked.

    Attributes
    ----------
    lengths : of prompt and reply, in the model's tokens; None is the last powers of two up to the context, four at most
        and none below 512.
    tasks : None is all.
    samples : per task and length.
    phrasing : one of ``tasks.PHRASINGS``.
    chat : in the model's chat template; None is if it has one.
    haystack : file or folder of essays; None is generated prose.
    questions : files for the tasks of question answering, see ``questions.read_questions``.
    """

    lengths: tuple[int, ...] | None = None
    tasks: tuple[str, ...] | None = None
    samples: int = 10
    phrasing: str = "ruler"
    chat: bool | None = None
    seed: int = 0
    haystack: Path | None = None
    questions: tuple[Path, ...] = ()
    dtype: str = "auto"
    device: str = "cpu"


def evaluate_ruler(
    model: Path,
    methods: Sequence[Method],
    settings: RulerSettings,
    folder: Path | None = None,
    progress: Progress = lambda label, done, total: None,
) -> Evaluation:
    """Scores by task (rows) and length (columns) of every method.

    Parameters
    ----------
    folder : for outcomes, see ``store.OutcomeStore``.

    Raises
    ------
    ValueError : there is no such task, one does not fit into a length, a length exceeds the model's context, a file
        cannot be read, or as ``LLM``.
    """
    context = ModelConfig.from_directory(model).max_position_embeddings
    tokenizer = Tokenizer.from_directory(model)
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
    described = {
        "tasks": list(tasks),
        "samples": settings.samples,
        "phrasing": settings.phrasing,
        "chat_template": chat,
        "seed": settings.seed,
        "haystack": "generated" if settings.haystack is None else settings.haystack.name,
        "haystack_sha256": None if settings.haystack is None else _sha256(" ".join(sentences)),
        "questions": {each.name: _sha256(" ".join(each.documents)) for each in sources},
        "model": model.name,
        "fingerprint": fingerprint(model),
        "dtype": settings.dtype,
    }
    store = OutcomeStore(folder, described)
    for length in lengths:  # what does not fit is noticed before the model is loaded
        for task in tasks:
            ruler.samples(task, length, settings.seed, 0)
    llm = LLM(model, dtype=settings.dtype, device=settings.device, max_model_len=max(lengths))
    results = run_methods(
        llm,
        methods,
        [str(length) for length in lengths],
        lambda column: ruler_cases(ruler, tasks, int(column), settings.samples, settings.seed),
        store,
        progress,
    )
    return Evaluation("ruler", described, results, _notes(settings.phrasing, chat, bool(sources)))


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


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _notes(phrasing: str, chat: bool, has_questions: bool) -> tuple[str, ...]:
    frame = "in the chat template" if chat else "without a chat template"
    notes = [f"Phrasing: {phrasing}, {frame}."]
    if not has_questions:
        notes.append(
            "Question answering (qa_1, qa_2) is left out: it needs a file of questions (--questions)."
        )
    return tuple(notes)
