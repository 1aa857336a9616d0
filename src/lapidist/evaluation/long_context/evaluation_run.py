"""What all evaluations of long prompts have in common: model, methods, where replies are kept, and the loop."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lapidist.engine.llm import LLM
from lapidist.evaluation.long_context.case import Case
from lapidist.evaluation.long_context.methods import Method
from lapidist.evaluation.long_context.result import Evaluation
from lapidist.evaluation.long_context.run import Progress, run_methods
from lapidist.evaluation.long_context.store import OutcomeStore, fingerprint
from lapidist.models.config import ModelConfig
from lapidist.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class EvaluationRun:
    """What is evaluated, whatever is asked.

    Parameters
    ----------
    folder : for outcomes, see ``store.OutcomeStore``.
    dtype, device : as ``LLM`` has them.
    """

    model: Path
    methods: Sequence[Method]
    folder: Path | None = None
    dtype: str = "auto"
    device: str = "cpu"
    progress: Progress = lambda label, done, total: None

    @cached_property
    def context(self) -> int:
        """The model's, in tokens."""
        return ModelConfig.from_directory(self.model).max_position_embeddings

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_directory(self.model)

    def evaluate(
        self,
        name: str,
        settings: Mapping[str, Any],
        columns: Sequence[str],
        cases_of: Callable[[str], list[Case]],
        longest: int,
        notes: tuple[str, ...] = (),
    ) -> Evaluation:
        """Scores of every method.

        Parameters
        ----------
        settings : all that the cases depend on beside their column.
        longest : tokens of a prompt with its reply.

        Raises
        ------
        ValueError : as ``run_methods`` and ``LLM`` do, or the folder cannot be used.
        """
        described = {
            **settings,
            "model": self.model.name,
            "fingerprint": fingerprint(self.model),
            "dtype": self.dtype,
        }
        store = OutcomeStore(self.folder, described)
        llm = LLM(self.model, dtype=self.dtype, device=self.device, max_model_len=longest)
        results = run_methods(llm, self.methods, columns, cases_of, store, self.progress)
        return Evaluation(name, described, results, notes)


@dataclass(frozen=True, kw_only=True)
class GeneratedPrompts:
    """Prompts that are made of a text at will.

    Attributes
    ----------
    lengths : in the model's tokens; None is up to the model.
    seed : equal seeds give equal prompts.
    haystack : file or folder of text; None is generated prose.
    """

    lengths: tuple[int, ...] | None = None
    seed: int = 0
    haystack: Path | None = None

    def described(self, text: str) -> dict[str, Any]:
        """The haystack, whose ``text`` is known now, as a result has it."""
        known = self.haystack is not None
        return {
            "haystack": self.haystack.name if self.haystack is not None else "generated",
            "haystack_sha256": sha256(text) if known else None,
        }


def sha256(text: str) -> str:
    """The beginning of the hash of a text that results depend on."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
