"""What evaluation.json says beside each task's ranked accuracy, from its version 2 on."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.json_lines import JsonObject

FORMAT_VERSIONS = (1, 2)
"""Versions of evaluation.json that can be read; version 1 carries no number."""

RANK, GENERATE = "rank", "generate"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of one system.

    Attributes:
        task: What was asked, as in "artist".
        metric: As in "acc".
        method: "rank" (the likeliest of all names), "generate" (the text that was written) or "baseline".
        system: Whose answers: "before", "after", "few_shot", "chance", "majority", "tfidf", or
            "expected" (the taught answer).
        value: The figure, 0 to 1; None where nothing could be counted.
        low: Lower end of its 95 % interval, or None.
        high: Upper end, or None.
        n: Songs.
        by: What the songs are sliced by, as in "genre"; "" for all songs.
        slice: Which slice, as in "Rock"; "" for all songs.
    """

    task: str
    metric: str
    method: str
    system: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    by: str = ""
    slice: str = ""


@dataclass(frozen=True, slots=True)
class Lead:
    """How far the tuned model is ahead of another system on the same songs.

    Attributes:
        task: What was asked.
        metric: As in "acc".
        method: "rank" or "generate".
        against: The other system.
        value: Mean difference over songs, -1 to 1; positive where the tuned model is better.
        low: Lower end of its 95 % interval (paired bootstrap).
        high: Upper end.
        n: Songs.
    """

    task: str
    metric: str
    method: str
    against: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers of about the same confidence.

    Attributes:
        confidence: Their mean confidence, 0 to 1.
        accuracy: Share of them that is right, 0 to 1.
        n: How many.
    """

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far a system's confidence agrees with how often it is right.

    Attributes:
        task: What was asked.
        system: Whose confidence.
        ece: Expected calibration error, 0 to 1.
        brier: Brier score.
        bins: Those that hold answers.
    """

    task: str
    system: str
    ece: float
    brier: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class TruthRates:
    """What the truth check found in one system's answers.

    Attributes:
        system: Whose answers.
        task: To which task, or "" for all.
        supported: Claims that agree with the catalogue.
        contradicted: Claims that it contradicts.
        not_checkable: Claims that it says nothing of.
        hallucination_rate: contradicted / (supported + contradicted); None where nothing was checkable.
        low: Lower end of its 95 % interval, or None.
        high: Upper end, or None.
    """

    system: str
    task: str
    supported: int
    contradicted: int
    not_checkable: int
    hallucination_rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class VerbatimOverlap:
    """The longest run of words that a system's answers have in common with the training lyrics.

    Attributes:
        system: Whose answers.
        longest_words: Words of that run.
        text: The run itself.
        song_id: The training song, or None.
        median_words: Median over the answers of their longest run.
    """

    system: str
    longest_words: int
    text: str
    song_id: str | None
    median_words: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A value that was set as the goal.

    Attributes:
        mark: What it is of, as in "artist".
        wanted: The goal, 0 to 1.
        value: What was reached, or None where it was not measured.
        is_reached: Whether it is at least the goal; None where it was not measured.
    """

    mark: str
    wanted: float
    value: float | None
    is_reached: bool | None


@dataclass(frozen=True, slots=True)
class LeakageFindings:
    """What the audit found before any score.

    Attributes:
        num_checked: Questions that were looked at.
        num_excluded: Those that were left out of every score.
        findings: One for each leak, as its writer chose.
    """

    num_checked: int
    num_excluded: int
    findings: tuple[JsonObject, ...]


@dataclass(slots=True)
class Scores:
    """All that version 2 adds.

    Attributes:
        measurements: Over all songs.
        slices: Over parts of the songs.
        leads: Of the tuned model over each other system.
        reliability: Of ranked answers.
        confusion: Task, then system, then true name to predicted name to songs.
        truth: Of generated answers, for each system over all tasks and by task.
        overlap: With the training lyrics.
        marks: Goals, and whether they were reached.
        leakage: None where no audit was made.
    """

    measurements: list[Measurement] = field(default_factory=list)
    slices: list[Measurement] = field(default_factory=list)
    leads: list[Lead] = field(default_factory=list)
    reliability: list[Reliability] = field(default_factory=list)
    confusion: dict[str, dict[str, dict[str, dict[str, int]]]] = field(default_factory=dict)
    truth: list[TruthRates] = field(default_factory=list)
    overlap: list[VerbatimOverlap] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    leakage: LeakageFindings | None = None

    @property
    def tasks(self) -> list[str]:
        """The tasks with a measurement, in the file's order."""
        return list(dict.fromkeys(one.task for one in self.measurements))
