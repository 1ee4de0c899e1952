"""What a task folder calls to score a written answer: the same strict scoring as `harness evaluate` uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.evaluation.lm_eval.documents import Document, song_of
from harness.evaluation.scoring import Truth, score_answer
from harness.evaluation.truth import Knowledge, check_statements, read_knowledge
from preprocess.errors import DataError
from preprocess.outside_text import parse_json

LOWER_IS_BETTER = frozenset({"refused", "empty"})

METRICS: dict[str, tuple[str, ...]] = {
    "artist": ("acc", "refused", "empty"),
    "genre": ("acc", "refused", "empty"),
    "context": ("acc", "within_decade", "supported", "refused", "empty"),
    "themes": ("precision", "recall", "f1", "evidence", "refused", "empty"),
    "similar": ("real", "near", "not_same", "precision_at_k", "supported", "refused", "empty"),
    "analysis": ("complete", "supported", "refused", "empty"),
    "other": ("supported", "refused", "empty"),
}
"""The metrics of each task's written answers."""


def score_text(
    task: str, text: str, truth: Truth, question: str, knowledge: Knowledge | None
) -> dict[str, float]:
    """Every metric of one answer; a metric of which it has nothing to measure is missing."""
    claims = [] if knowledge is None else check_statements(text, truth.song, knowledge, introduced=question)
    return score_answer(task, text, truth, knowledge, claims).values


def scorer_of(folder: Path) -> Callable[[Document, Sequence[str]], dict[str, float]]:
    """The function of a task folder that scores a document's answer."""

    def process_results(document: Document, results: Sequence[str]) -> dict[str, float]:
        truth = Truth(
            song_of(document), tuple(document["themes"]), document["expected"], tuple(document["names"])
        )
        knowledge = _knowledge_of(folder)
        return score_text(document["task"], results[0].strip(), truth, document["question"], knowledge)

    return process_results


@cache
def _knowledge_of(folder: Path) -> Knowledge:
    """What the folder's data set knows.

    Raises:
        DataError: The folder does not name it, or it is not there.
    """
    path = folder / "source.json"
    try:
        source: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        data = Path(source["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: does not name a data set ({error}); write the task folder again") from error
    return read_knowledge(data)
