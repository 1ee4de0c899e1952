"""What a split under evaluation is made of, and what its parts take."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.evaluation.baselines import LabelledLyrics
from harness.evaluation.material import Material
from harness.evaluation.overlap import TrainingLyrics
from harness.evaluation.questions import Question
from harness.evaluation.ranking import Ids
from harness.evaluation.results import System
from harness.evaluation.truth import Knowledge


@dataclass(slots=True)
class Seconds:
    """What the parts of an evaluation took on one rank."""

    rank: float = 0.0
    generate: float = 0.0
    judge: float = 0.0


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is known of the training songs.

    Attributes:
        lyrics: Their lyrics and labels, of those whose lyrics are asked about.
        seen: (song id, lyrics) of every one whose lyrics training sees, be it as an answer.
        knowledge: Their facts.
        overlap: Their lyrics, ready to be looked for in; None where nothing is written.
    """

    lyrics: list[LabelledLyrics]
    seen: list[tuple[str, str]]
    knowledge: Knowledge
    overlap: TrainingLyrics | None


@dataclass(frozen=True, slots=True)
class Part:
    """A split under evaluation.

    Attributes:
        split: Its name.
        corpus: What is known of the training songs.
        material: What is asked.
        candidates: Ids of each name that may be ranked, by task.
        shots: Task → examples to show in front; without the tasks that have none, empty without a few-shot system.
        seconds: What the parts took on this rank.
    """

    split: str
    corpus: Corpus
    material: Material
    candidates: dict[str, list[Ids]]
    shots: dict[str, list[Question]]
    seconds: Seconds = field(default_factory=Seconds)

    def shown(self, task: str) -> tuple[System, ...]:
        """The few-shot system, where it has examples of a task."""
        return ("few_shot",) if task in self.shots else ()
