"""Names, order and colours of what is compared, the same in every table and chart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.report.evaluation.records import GENERATE, RANK, Measurement

SYSTEMS = {
    "chance": ("chance", "s6"),
    "majority": ("most frequent answer", "s6"),
    "tfidf": ("TF-IDF + logistic regression", "s2"),
    "before": ("before", "s7"),
    "few_shot": ("few-shot", "s4"),
    "after": ("after", "s1"),
    "expected": ("the taught answer", "s6"),
}
"""System to its name and colour, from the weakest expectation to the strongest."""

SHORT_NAMES = {"majority": "most frequent", "tfidf": "TF-IDF"}
"""System to its name where there is little room."""

METHODS = {RANK: "ranked", GENERATE: "generated", "baseline": ""}
"""Method to how an answer came about; a baseline has one way alone."""

HEADLINES = {
    "artist": "acc",
    "genre": "acc",
    "themes": "f1",
    "context": "within_decade",
    "similar": "precision_at_k",
    "analysis": "complete",
    "structure": "supported",
    "style": "supported",
}
"""Task to the metric that stands for it where there is room for one; another task's first one does."""

METRICS = {
    "acc": "accuracy",
    "f1": "F1",
    "within_decade": "era within a decade",
    "precision_at_k": "precision@k",
    "near": "near by the stated traits",
    "real": "real songs",
    "not_same": "not the same song",
    "evidence": "quoted words that are sung",
    "complete": "format complete",
    "supported": "statements supported",
    "refused": "refused",
    "empty": "empty",
}
"""Metric to its name; another one's is its own."""

LOWER_IS_BETTER = frozenset({"refused", "empty"})


@dataclass(frozen=True, slots=True, order=True)
class Contestant:
    """A system and how its answers came about."""

    place: int
    system: str
    method: str

    @property
    def label(self) -> str:
        """As in "after, ranked"."""
        name, method = SYSTEMS.get(self.system, (self.system, ""))[0], METHODS.get(self.method, self.method)
        return f"{name}, {method}" if method else name

    @property
    def role(self) -> str:
        """Its colour."""
        return SYSTEMS.get(self.system, ("", "s5"))[1]


def place_of(system: str) -> int:
    """Where a system stands in the order of `SYSTEMS`; an unknown one comes last."""
    return list(SYSTEMS).index(system) if system in SYSTEMS else len(SYSTEMS)


def contestant_of(one: Measurement) -> Contestant:
    """Whose figure it is."""
    return Contestant(place_of(one.system), one.system, one.method)


def list_contestants(measurements: Iterable[Measurement]) -> list[Contestant]:
    """Everybody who was measured, the weakest expectation first, what was ranked after what was generated."""
    return sorted({contestant_of(one) for one in measurements})


def headline_of(task: str, measurements: Iterable[Measurement]) -> str | None:
    """The metric that stands for a task, or None where the task has none."""
    metrics = list(dict.fromkeys(one.metric for one in measurements if one.task == task))
    wanted = HEADLINES.get(task)
    return wanted if wanted in metrics else next(iter(metrics), None)


def name_briefly(one: Contestant) -> str:
    """Its name where there is little room."""
    return SHORT_NAMES.get(one.system, one.label)


def name_metric(metric: str) -> str:
    """A metric's name for a reader."""
    return METRICS.get(metric, metric.replace("_", " "))


def name_system(system: str) -> str:
    """A system's name for a reader."""
    return SYSTEMS.get(system, (system, ""))[0]
