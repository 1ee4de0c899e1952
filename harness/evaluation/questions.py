"""The questions that a data set asks about its held-out songs, in the very ids that training would use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from preprocess.errors import DataError
from preprocess.forest import PackedRow, example_paths, segment_starts
from preprocess.manifest import Manifest, read_manifest
from preprocess.outside_text import parse_json
from preprocess.prompt import FormatName, PromptFormat, find_format
from preprocess.shards import open_split
from preprocess.tokenizer import TextTokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one song.

    Attributes:
        song_id: The song.
        task: What is asked, as in "artist".
        prefix: Ids that the song's questions share (the lyrics); empty for a question that is stored whole.
        ids: The question's own ids, up to the first token of the answer.
        answer: The supervised ids: the expected answer and the stop token.
    """

    song_id: str
    task: str
    prefix: tuple[int, ...]
    ids: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def prompt(self) -> list[int]:
        """Everything that comes before the answer."""
        return [*self.prefix, *self.ids]


def read_questions(rows: Iterable[PackedRow], tasks: Sequence[str]) -> list[Question]:
    """The questions of some rows, in the order of the rows.

    Args:
        rows: Rows of a split.
        tasks: The manifest's tasks, which the rows name by index.
    """
    return [question for row in rows for question in _questions_of_row(row, tasks)]


def _questions_of_row(row: PackedRow, tasks: Sequence[str]) -> list[Question]:
    starts = segment_starts(row)
    spans = [
        slice(int(start), int(start + length)) for start, length in zip(starts, row.seq_lens, strict=True)
    ]
    questions = []
    for path in example_paths(row):
        *above, own = path
        mask = row.label_mask[spans[own]]
        num_prompt = int(np.argmax(mask)) if mask.any() else len(mask)
        ids = row.input_ids[spans[own]].tolist()
        questions.append(
            Question(
                song_id=row.song_ids[own],
                task=tasks[int(row.tasks[own])],
                prefix=tuple(id_ for segment in above for id_ in row.input_ids[spans[segment]].tolist()),
                ids=tuple(ids[:num_prompt]),
                answer=tuple(ids[num_prompt:]),
            )
        )
    return questions


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a data set folder holds for asking a model.

    Attributes:
        folder: The data set.
        manifest: As read.
        tokenizer: The one that the ids belong to.
        prompt: The chat format of the ids.
        questions: All questions of one split.
    """

    folder: Path
    manifest: Manifest
    tokenizer: TextTokenizer
    prompt: PromptFormat
    questions: list[Question]


def open_tokenizer(folder: Path, manifest: Manifest) -> tuple[TextTokenizer, PromptFormat]:
    """The tokenizer that a data set's ids belong to, and its chat format.

    Raises:
        DataError: The tokenizer beside the shards is another one.
        ConfigError: There is none, or it cannot be read.
    """
    tokenizer = load_tokenizer(folder / "tokenizer")
    if tokenizer.sha256 != manifest.tokenizer_sha256:
        raise DataError(
            f"{folder / 'tokenizer'}: not the tokenizer that the shards were made with (sha256 "
            f"{tokenizer.sha256[:12]}…, the manifest says {manifest.tokenizer_sha256[:12]}…). Copy the data set's "
            "own tokenizer folder back, or build the data set again"
        )
    return tokenizer, find_format(tokenizer, manifest.system, cast(FormatName, manifest.prompt_format))


def open_held_out(folder: Path, split: str = "eval") -> HeldOut:
    """Open a data set's held-out songs.

    Args:
        folder: The data set.
        split: "eval" (new songs by artists of the training songs) or "eval_unseen" (songs by other artists).

    Raises:
        DataError: The folder is no data set, holds no such split, or is damaged.
        ConfigError: Its tokenizer cannot be read.
    """
    manifest = read_manifest(folder)
    if split not in manifest.splits or manifest.splits[split].num_examples == 0:
        setting = f"{split}_fraction"
        raise DataError(
            f"{folder}: holds no {split} split, so there are no held-out songs to ask about. Build the data set with "
            f"--set sample.{setting}=0.05 or more"
        )
    tokenizer, prompt = open_tokenizer(folder, manifest)
    questions = read_questions(open_split(folder, split, manifest), manifest.tasks)
    return HeldOut(folder, manifest, tokenizer, prompt, questions)


@dataclass(frozen=True, slots=True)
class TaskLabels:
    """A task's closed set of answers.

    Attributes:
        stem: What every answer begins with.
        train_counts: Training songs of each name.
        truth: What is true of each held-out song, by its id.
    """

    stem: str
    train_counts: dict[str, int]
    truth: dict[str, str]

    @property
    def majority(self) -> str:
        """The most frequent training name; the first in the alphabet among equals."""
        return min(self.train_counts, key=lambda name: (-self.train_counts[name], name))


def read_labels(folder: Path, tasks: Sequence[str]) -> dict[str, TaskLabels]:
    """Read the closed sets of a data set, those of its own tasks.

    Raises:
        DataError: There is no `labels.json`, it is damaged, or it holds no task that could be ranked.
    """
    path = folder / "labels.json"
    if not path.is_file():
        raise DataError(f"{path}: missing, so there are no names to rank. Build the data set again")
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        labels = {
            task: TaskLabels(str(value["stem"]), dict(value["train_counts"]), dict(value["truth"]))
            for task, value in content.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged ({type(error).__name__}: {error}); build the data set again"
        ) from error
    usable = {
        task: found for task, found in labels.items() if task in tasks and found.train_counts and found.truth
    }
    if not usable:
        raise DataError(
            f"{path}: no task with known names to rank. The data set has the tasks {', '.join(tasks)}; build it with "
            "artist, genre or context, from songs that have these facts"
        )
    return usable
