"""The songs of a data set as a classifier sees them: lyrics, and the very answers that its shards teach or ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.evaluation.questions import TaskLabels, open_tokenizer, read_labels
from preprocess.check.frame import Frame, make_frame, read_lyrics
from preprocess.forest import PackedRow, example_paths, segment_starts
from preprocess.manifest import read_manifest
from preprocess.shards import open_split
from preprocess.tasks import generation
from preprocess.tasks.instruct import stated_themes

THEMES = "themes"


@dataclass(frozen=True, slots=True)
class LabelledLyrics:
    """A song as a classifier sees it.

    Attributes:
        song_id: Its id.
        lyrics: Its lyrics as the shards hold them.
        labels: Task ("artist", "genre", "context") → the name that its answer gives, of the tasks that it is asked.
        themes: The themes that its answer names, in lower case; None where it is not asked for them.
    """

    song_id: str
    lyrics: str
    labels: Mapping[str, str] = field(default_factory=dict)
    themes: tuple[str, ...] | None = None


def read_training_lyrics(data: Path) -> list[LabelledLyrics]:
    """The training songs of a data set with the very labels that training teaches, out of its shards.

    Raises:
        DataError: The folder is no data set, is damaged, or has no closed set of names.
        ConfigError: Its tokenizer cannot be read.
    """
    return read_labelled_lyrics(data, "train")


def read_labelled_lyrics(data: Path, split: str) -> list[LabelledLyrics]:
    """As `read_training_lyrics`, of any split; songs without lyrics in their prompts are left out."""
    manifest = read_manifest(data)
    frame = make_frame(*open_tokenizer(data, manifest))
    stems = _Stems(read_labels(data, manifest.tasks))
    lyrics: dict[str, str] = {}
    labels: dict[str, dict[str, str]] = {}
    themes: dict[str, tuple[str, ...]] = {}
    for row in open_split(data, split, manifest):
        lyrics |= read_lyrics(row, frame)
        for song_id, task, answer in _read_answers(row, manifest.tasks, frame):
            if task == THEMES:
                themes[song_id] = stated_themes(answer)
            name = stems.find_name(task, answer)
            if name is not None:
                labels.setdefault(song_id, {})[task] = name
    return [LabelledLyrics(id_, text, labels.get(id_, {}), themes.get(id_)) for id_, text in lyrics.items()]


def read_seen_lyrics(data: Path) -> list[tuple[str, str]]:
    """(song id, lyrics) of each training song whose lyrics training sees: in its prompts, else as an answer.

    The task `generation` answers with lyrics, and cuts long ones, so that a prompt's win. No closed set is needed.

    Raises:
        DataError: The folder is no data set, or damaged.
        ConfigError: Its tokenizer cannot be read.
    """
    manifest = read_manifest(data)
    frame = make_frame(*open_tokenizer(data, manifest))
    writes = generation.TASK.name in manifest.tasks
    asked: dict[str, str] = {}
    answered: dict[str, str] = {}
    for row in open_split(data, "train", manifest):
        asked |= read_lyrics(row, frame)
        answers = _read_answers(row, manifest.tasks, frame) if writes else ()
        answered |= {song_id: text for song_id, task, text in answers if task == generation.TASK.name}
    return list((answered | asked).items())


def _read_answers(row: PackedRow, tasks: tuple[str, ...], frame: Frame) -> Iterator[tuple[str, str, str]]:
    """(song id, task, answer) of a row's examples that end in the token that ends an answer."""
    starts = segment_starts(row)
    for *_, own in example_paths(row):
        span = slice(int(starts[own]), int(starts[own] + row.seq_lens[own]))
        ids = row.input_ids[span][row.label_mask[span]]
        yield row.song_ids[own], tasks[int(row.tasks[own])], frame.decode(ids[:-1]).strip()


class _Stems:
    """How the answers of the closed sets begin, and the names that follow."""

    def __init__(self, labels: Mapping[str, TaskLabels]) -> None:
        self._stems = {task: found.stem for task, found in labels.items()}
        self._names = {task: _by_length(found) for task, found in labels.items()}

    def find_name(self, task: str, answer: str) -> str | None:
        """The name that an answer gives; the longest, for "Dr. Dre" may stand beside "Dr"."""
        stem = self._stems.get(task)
        if stem is None or not answer.startswith(stem):
            return None
        told = answer.removeprefix(stem)
        return next((name for name in self._names[task] if f"{told}.".startswith(f"{name}.")), None)


def _by_length(labels: TaskLabels) -> list[str]:
    names: Iterable[str] = {*labels.train_counts, *labels.truth.values()}
    return sorted(names, key=lambda name: (-len(name), name))
