"""LongBench's English tasks: prompt, room for the reply, score."""

import json
from dataclasses import dataclass
from importlib.resources import files

from lapidist.evaluation.longbench.metrics import (
    Metric,
    answer_f1,
    class_accuracy,
    code_similarity,
    number_share,
    paragraph_share,
    summary_rouge,
)


@dataclass(frozen=True)
class LongBenchTask:
    """One task.

    Attributes
    ----------
    category : the paper's; FastKV and others average over these first.
    prompt : the published one, with ``{context}`` and, in most tasks, ``{input}``.
    """

    category: str
    prompt: str
    max_new_tokens: int
    metric: Metric

    @property
    def first_line_only(self) -> bool:
        """Where examples show the format, what follows the first line is the model's next example."""
        return self.category == "few-shot"

    @property
    def takes_chat(self) -> bool:
        """Whether the prompt goes into a chat template where one is wanted; examples and code do not, as published."""
        return self.category not in ("few-shot", "code")


_PROMPTS: dict[str, str] = json.loads(files(__package__).joinpath("prompts.json").read_text("utf-8"))

_TASKS: tuple[tuple[str, str, int, Metric], ...] = (
    ("narrativeqa", "single-document", 128, answer_f1),
    ("qasper", "single-document", 128, answer_f1),
    ("multifieldqa_en", "single-document", 64, answer_f1),
    ("hotpotqa", "multi-document", 32, answer_f1),
    ("2wikimqa", "multi-document", 32, answer_f1),
    ("musique", "multi-document", 32, answer_f1),
    ("gov_report", "summarization", 512, summary_rouge),
    ("qmsum", "summarization", 512, summary_rouge),
    ("multi_news", "summarization", 512, summary_rouge),
    ("trec", "few-shot", 64, class_accuracy),
    ("triviaqa", "few-shot", 32, answer_f1),
    ("samsum", "few-shot", 128, summary_rouge),
    ("passage_count", "synthetic", 32, number_share),
    ("passage_retrieval_en", "synthetic", 32, paragraph_share),
    ("lcc", "code", 64, code_similarity),
    ("repobench-p", "code", 64, code_similarity),
)

TASKS = {
    name: LongBenchTask(category, _PROMPTS[name], tokens, metric) for name, category, tokens, metric in _TASKS
}

GEMFILTER_TASKS = tuple(name for name, task in TASKS.items() if task.category != "code")
"""The fourteen of GemFilter's table (arXiv 2409.17422), in its order; code is excluded there."""
