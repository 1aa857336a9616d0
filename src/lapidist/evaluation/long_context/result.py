"""Scores of a method, by row (a depth, a task) and by column (a length)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lapidist.evaluation.long_context.case import Outcome
from lapidist.evaluation.long_context.methods import Method


@dataclass(frozen=True)
class MethodResult:
    """All outcomes of a method, by column; the rows are those of the first column's outcomes, in their order."""

    method: Method
    outcomes: Mapping[str, Sequence[Outcome]]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.outcomes)

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.row for own in self.outcomes.values() for each in own))

    @property
    def grid(self) -> np.ndarray:
        """Mean scores, float64 ``[rows, columns]``."""
        return np.array([[self._mean(row, column) for column in self.columns] for row in self.rows])

    @property
    def mean(self) -> float:
        """Over the cells of ``grid``, whatever the number of cases in each."""
        return float(np.mean(self.grid))

    @property
    def kept(self) -> float:
        """Mean share of the prompts' tokens that the filter kept."""
        return float(
            np.mean([each.kept_tokens / each.prompt_tokens for own in self.outcomes.values() for each in own])
        )

    @property
    def bypassed(self) -> int:
        """Prompts that the filter let through whole."""
        return sum(each.bypassed is not None for own in self.outcomes.values() for each in own)

    def _mean(self, row: str, column: str) -> float:
        return float(np.mean([each.score for each in self.outcomes[column] if each.row == row]))


@dataclass(frozen=True)
class Evaluation:
    """Results of several methods on the same cases.

    Attributes
    ----------
    name : "needle", "ruler" or "longbench".
    settings : all that the scores depend on beside methods and columns, as JSON has it.
    notes : what the reader of the tables should know, a sentence each.
    """

    name: str
    settings: Mapping[str, Any]
    results: Sequence[MethodResult]
    notes: tuple[str, ...] = ()
