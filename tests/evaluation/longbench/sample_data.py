"""A small LongBench of our own, in the files' format."""

import json
from pathlib import Path

from lapidist.evaluation.longbench.tasks import TASKS

LETTERS = "the cat sat on the mat and the dog ran after the cat {and} more"


def write_sample(directory: Path, examples: int = 3) -> Path:
    """Every task with ``examples`` lines."""
    directory.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        lines = []
        for index in range(examples):
            answer = {"trec": "Food", "passage_retrieval_en": f"Paragraph {index + 1}", "passage_count": "3"}
            lines.append(
                {
                    "input": f"what did the cat do {{{index}}}?",
                    "context": f"{LETTERS}. " * (2 + 10 * index),
                    "answers": [answer.get(task, "sat on the mat"), answer.get(task, "ran")],
                    "length": 100,
                    "dataset": task,
                    "language": "en",
                    "all_classes": ["Food", "Animal"] if task == "trec" else None,
                    "_id": f"{task}{index}",
                }
            )
        (directory / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory
