"""What a split of a data set gives to an evaluation: questions, what is true, and which give themselves away."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from harness.evaluation.leakage import LeakageAudit, Prompted, audit_leakage
from harness.evaluation.questions import HeldOut, Question, TaskLabels, open_held_out, read_labels
from harness.evaluation.scoring import Truth
from harness.evaluation.settings import EvaluationSettings
from harness.json_lines import JsonObject, read_json_lines
from preprocess.check.frame import Frame, make_frame, take_apart
from preprocess.errors import DataError
from preprocess.measure.song import measure_song
from preprocess.schema import Song
from preprocess.tasks.main_themes import main_themes

UNSCORED = frozenset({"generation"})
"""Tasks whose answers are neither right nor wrong: lyrics in a style."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A held-out question and what is true.

    Attributes:
        question: In ids.
        text: The question as text, with what it states before it.
        label: The name that is asked for, of a closed set; None for other tasks.
        is_seen: Whether training has seen that name (True for other tasks): what was never seen cannot be told.
        truth: Of the song as the model sees it.
    """

    question: Question
    text: str
    label: str | None
    is_seen: bool
    truth: Truth

    @property
    def key(self) -> tuple[str, str]:
        """Song and task."""
        return self.question.song_id, self.question.task


@dataclass(frozen=True, slots=True)
class Material:
    """A split, ready to be asked.

    Attributes:
        held_out: The data set's split.
        labels: The closed sets, by task.
        frame: What all its prompts begin and end with.
        asked: Every question that does not give its answer away, those of a song next to each other.
        known: All questions of the chosen songs, also those that do.
        audit: What gives answers away.
    """

    held_out: HeldOut
    labels: Mapping[str, TaskLabels]
    frame: Frame
    asked: tuple[Asked, ...]
    known: tuple[Question, ...]
    audit: LeakageAudit

    @property
    def song_ids(self) -> list[str]:
        """Songs that are asked about, in their order."""
        return list(dict.fromkeys(asked.question.song_id for asked in self.asked))

    def of_songs(self, song_ids: Collection[str]) -> list[Asked]:
        """The questions about some songs."""
        wanted = set(song_ids)
        return [asked for asked in self.asked if asked.question.song_id in wanted]


def limit_answers(settings: EvaluationSettings, material: Material) -> int:
    """Tokens of a written answer, at most: as asked for, or as the longest answer takes that the split expects.

    Which songs are chosen makes no difference, so that answers about few of them are those about all.
    """
    if settings.max_new_tokens is not None:
        return settings.max_new_tokens
    return max(len(one.answer) for one in material.held_out.questions if one.task not in UNSCORED)


def open_material(
    data: Path, split: str, training: Iterable[tuple[str, str]], *, max_songs: int | None = None
) -> Material:
    """Open a split and audit it.

    Args:
        data: Folder of the data set.
        split: "eval" or "eval_unseen".
        training: (song id, lyrics) of the training songs, for the audit.
        max_songs: Only so many songs, drawn by a hash of their ids.

    Raises:
        DataError: The data set is missing, incomplete or damaged.
        ConfigError: Its tokenizer cannot be read.
    """
    held_out = open_held_out(data, split)
    labels = read_labels(data, held_out.manifest.tasks)
    known = order_questions(held_out.questions, max_songs)
    if not known:
        raise DataError(
            f"{data}: its {split} split asks nothing that can be scored; build it with more tasks than "
            f"{', '.join(sorted(UNSCORED))}"
        )
    frame = make_frame(held_out.tokenizer, held_out.prompt)
    everything = complete(known, read_held_out_songs(data, split), labels, frame)
    audit = audit_leakage([as_prompted(asked) for asked in everything], training)
    asked = tuple(one for one in everything if one.key not in audit.excluded)
    return Material(held_out, labels, frame, asked, tuple(known), audit)


def order_questions(questions: Iterable[Question], max_songs: int | None) -> list[Question]:
    """The questions that can be scored about so many songs, those of a song next to each other."""
    known = [question for question in questions if question.task not in UNSCORED]
    songs = sorted({question.song_id for question in known}, key=spread)[:max_songs]
    place = {song_id: i for i, song_id in enumerate(songs)}
    chosen = [question for question in known if question.song_id in place]
    return sorted(chosen, key=lambda question: place[question.song_id])


def spread(song_id: str) -> str:
    """A sort key that mixes songs, so that the first few are no special ones; the same in every process."""
    return hashlib.sha256(song_id.encode()).hexdigest()


def read_held_out_songs(data: Path, split: str) -> dict[str, Song]:
    """The songs of a held-out split with their facts, by id.

    Raises:
        DataError: There is no such file, or it is damaged.
    """
    path = data / f"{split}_songs.jsonl"
    if not path.is_file():
        raise DataError(
            f"{path}: missing, so nothing is known of the held-out songs. Build the data set again"
        )
    return {song.id: song for song in (_read_song(path, line) for line in read_json_lines(path))}


def _read_song(path: Path, line: JsonObject) -> Song:
    names = {field.name for field in fields(Song)}
    try:
        return Song(**{name: line[name] for name in names & line.keys()} | {"themes": tuple(line["themes"])})
    except (TypeError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); build the data set again") from error


def complete(
    questions: Sequence[Question], songs: Mapping[str, Song], labels: Mapping[str, TaskLabels], frame: Frame
) -> list[Asked]:
    """Questions with what is true.

    Raises:
        DataError: A song or its label is not told.
    """
    return [_complete(question, songs, labels.get(question.task), frame) for question in questions]


def _complete(
    question: Question, songs: Mapping[str, Song], labels: TaskLabels | None, frame: Frame
) -> Asked:
    if question.song_id not in songs:
        raise DataError(f"song {question.song_id!r} is asked about but not told of; build the data set again")
    lyrics, text = take_apart(frame.decode(np.array(question.prompt, dtype=np.int32)), frame)
    song = replace(songs[question.song_id], lyrics=lyrics or "")
    label = None if labels is None else labels.truth.get(song.id)
    if labels is not None and label is None:
        raise DataError(
            f"labels.json does not say what is true of song {song.id!r} ({question.task}), which the shards ask; "
            "build the data set again"
        )
    expected = frame.tokenizer.decode(question.answer, skip_special_tokens=True).strip()
    names = () if labels is None else tuple(labels.train_counts)
    themes = tuple(found.theme for found in main_themes(song, measure_song(song.lyrics, song.language)))
    is_seen = labels is None or label in labels.train_counts
    return Asked(question, text, label, is_seen, Truth(song, themes, expected, names))


def as_prompted(asked: Asked) -> Prompted:
    """The question as the audit reads it."""
    song = asked.truth.song
    return Prompted(song, asked.question.task, song.lyrics, asked.text, asked.label)
