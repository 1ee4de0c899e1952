"""Accuracy before and after fine-tuning: each held-out song's likeliest answer out of all that training knew."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.config import ModelSettings
from harness.evaluation.accuracy import Accuracy, SongResult, TaskEvaluation, choose, summarize_task
from harness.evaluation.questions import HeldOut, Question, TaskLabels, open_held_out, read_labels
from harness.evaluation.ranking import CandidateScorer, Ids, Scores, encode_candidates, plan_forests
from harness.json_lines import encode_line
from harness.progress import LINE_EVERY_S
from harness.tuned import TunedModel, Version, load_tuned_model
from preprocess.durable import make_folder, write_text_durably
from preprocess.errors import CheckpointError, ConfigError, DataError
from preprocess.terminal import make_progress

EVALUATION_FILE = "evaluation.json"
SAMPLES_FILE = "evaluation_samples.jsonl"
"""Both for the eval split; the files of another one carry its name besides."""

MAX_SLOTS = 1024
"""Slots of one forward pass: several short songs with their candidates."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation. `seconds` is what scoring took, loading left out."""

    model: str
    adapter: str | None
    split: str
    num_songs: int
    seconds: float
    tasks: dict[str, TaskEvaluation]
    songs: list[SongResult]

    def to_json(self) -> dict[str, Any]:
        """The summary, in the form of `evaluation.json`: everything but the single songs."""
        value = asdict(self)
        del value["songs"]
        return value


def evaluate(
    settings: ModelSettings,
    data: Path,
    adapter: Path | None,
    console: Console,
    *,
    max_songs: int | None = None,
    max_slots: int = MAX_SLOTS,
    split: str = "eval",
) -> Evaluation:
    """Rank the known answers for each held-out song, with the base model and with the adapter on it.

    Args:
        settings: The base model.
        data: Folder of the data set.
        adapter: Folder of a peft adapter, or None for the base alone.
        console: For progress.
        max_songs: Only so many songs; None for all.
        max_slots: Slots of one forward pass.
        split: Which held-out songs; see `harness.evaluation.questions.open_held_out`.

    Raises:
        DataError: The data set is missing, incomplete, or of another tokenizer than the model.
        ConfigError: There is no such model, or `max_songs` is below 1.
        CheckpointError: There is no such adapter, or it changes nothing.
    """
    if max_songs is not None and max_songs < 1:
        raise ConfigError(f"{max_songs} songs: expected 1 or more")
    held_out = open_held_out(data, split)
    labels = read_labels(data, held_out.manifest.tasks)
    questions = choose_questions(held_out, labels, max_songs)
    model = load_tuned_model(settings, held_out.manifest, adapter)
    candidates = {
        task: encode_candidates(held_out.tokenizer, held_out.prompt, found.stem, found.train_counts)
        for task, found in labels.items()
    }
    started_s = time.perf_counter()
    scores = score_questions(model, questions, candidates, console, max_slots)
    seconds = time.perf_counter() - started_s
    songs = judge_songs(questions, labels, scores)
    not_asked = count_not_asked(questions, labels)
    return Evaluation(
        model=settings.path,
        adapter=None if adapter is None else str(adapter),
        split=split,
        num_songs=len({question.song_id for question in questions}),
        seconds=seconds,
        tasks={
            task: summarize_task([song for song in songs if song.task == task], found, not_asked[task])
            for task, found in labels.items()
        },
        songs=songs,
    )


def count_not_asked(questions: Sequence[Question], labels: Mapping[str, TaskLabels]) -> Counter[str]:
    """By task: songs among those asked about whose true name is known, but which are not asked for it."""
    asked = {(question.task, question.song_id) for question in questions}
    songs = {question.song_id for question in questions}
    return Counter(
        task
        for task, found in labels.items()
        for song_id in found.truth.keys() & songs
        if (task, song_id) not in asked
    )


def choose_questions(
    held_out: HeldOut, labels: Mapping[str, TaskLabels], max_songs: int | None
) -> list[Question]:
    """The questions to rank, those of a song next to each other.

    Raises:
        DataError: There are none, or the labels are not those of the shards.
    """
    known = [question for question in held_out.questions if question.task in labels]
    songs = sorted({question.song_id for question in known}, key=spread)[:max_songs]
    place = {song_id: i for i, song_id in enumerate(songs)}
    questions = [question for question in known if question.song_id in place]
    questions.sort(key=lambda question: place[question.song_id])
    if not questions:
        raise DataError(
            f"{held_out.folder}: its held-out songs are asked none of {', '.join(labels)}; build it with one of them"
        )
    for question in questions:
        if question.song_id not in labels[question.task].truth:
            raise DataError(
                f"{held_out.folder / 'labels.json'}: does not say what is true of song {question.song_id!r} "
                f"({question.task}), which the shards ask; build the data set again"
            )
    return questions


def spread(song_id: str) -> str:
    """A sort key that mixes songs, so that the first few are no special ones; the same in every process."""
    return hashlib.sha256(song_id.encode()).hexdigest()


def score_questions(
    model: TunedModel,
    questions: Sequence[Question],
    candidates: Mapping[str, Sequence[Ids]],
    console: Console,
    max_slots: int = MAX_SLOTS,
) -> dict[Version, Scores]:
    """The scores of every candidate of every question, by each model.

    Raises:
        CheckpointError: There is an adapter, and not one score differs from the base model's.
    """
    scorer = CandidateScorer(model.causal)
    scores: dict[Version, Scores] = {version: {} for version in model.versions}
    last_line_s = time.monotonic()
    with make_progress(console) as progress:
        bar = progress.add_task("ranking answers", total=len(questions))
        for forest in plan_forests(questions, candidates, max_slots):
            for version in model.versions:
                with model.as_version(version):
                    scorer.score(forest, scores[version])
            done = len(scores["before"])
            progress.update(bar, completed=done)
            if not console.is_terminal and time.monotonic() - last_line_s > LINE_EVERY_S:
                last_line_s = time.monotonic()
                console.print(f"ranking answers: {done:,} of {len(questions):,} questions", highlight=False)
    check_scores(scores)
    return scores


def check_scores(scores: Mapping[Version, Scores]) -> None:
    """Refuse scores that mean nothing.

    Raises:
        CheckpointError: A score is not a finite number, or an adapter changes not one of them.
    """
    for version, found in scores.items():
        if not all(math.isfinite(score) for candidates in found.values() for score in candidates):
            raise CheckpointError(
                f"the model {version} fine-tuning gives scores that are not finite numbers: "
                + (
                    "its weights overflow in this precision"
                    if version == "before"
                    else "the adapter is damaged"
                )
                + ". Try model.precision fp32, or another checkpoint"
            )
    if "after" in scores and scores["after"] == scores["before"]:
        raise CheckpointError(
            "the adapter changes nothing: with and without it every score is the same to the last bit. Its weights "
            "are zero (not trained) or do not belong to this model's layers; give the adapter folder of a trained run"
        )


def judge_songs(
    questions: Sequence[Question], labels: Mapping[str, TaskLabels], scores: Mapping[Version, Scores]
) -> list[SongResult]:
    """What each model chose for each question."""
    results = []
    for question in questions:
        names = list(labels[question.task].train_counts)
        truth = labels[question.task].truth[question.song_id]
        choices = {version: choose(names, found[question], truth) for version, found in scores.items()}
        is_seen = truth in labels[question.task].train_counts
        results.append(
            SongResult(
                question.task, question.song_id, truth, is_seen, choices["before"], choices.get("after")
            )
        )
    return results


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write the summary and a line for each song and task into a folder, made if it is missing.

    Those of another split than "eval" go into evaluation_<split>.json and evaluation_samples_<split>.jsonl.

    Raises:
        DataError: The folder cannot be written to.
        NoSpaceError: The disk is full.
    """
    make_folder(folder)
    lines = "".join(encode_line(asdict(song)) for song in evaluation.songs)
    write_text_durably(folder / _name(SAMPLES_FILE, evaluation.split), lines)
    text = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_durably(folder / _name(EVALUATION_FILE, evaluation.split), text + "\n")


def _name(file: str, split: str) -> str:
    path = Path(file)
    return file if split == "eval" else f"{path.stem}_{split}{path.suffix}"


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """A table of the tasks, and what the reader must know to read it."""
    who = "held-out songs" if evaluation.split == "eval" else "songs by artists that training never saw"
    table = Table(title=f"Right answers of {evaluation.num_songs:,} {who}")
    for column in ("task", "songs", "names", "before", "after", "chance", "majority", "p"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, result in evaluation.tasks.items():
        shown = result.before
        table.add_row(
            Text(task),
            f"{shown.total if shown else 0:,}",
            f"{result.num_candidates:,}",
            spell_accuracy(result.before),
            spell_accuracy(result.after),
            f"{result.chance:.1%}",
            "-" if result.majority is None else f"{result.majority:.1%}",
            "-" if result.p_value is None else f"{result.p_value:.2g}",
        )
    console.print(table)
    for task, result in evaluation.tasks.items():
        for count, what in (
            (result.unseen, "a name that training never saw"),
            (result.not_asked, "no question"),
        ):
            if count:
                console.print(
                    f"{task}: {count:,} more songs with {what}, not counted", markup=False, highlight=False
                )
    console.print(
        f"In brackets 95 % intervals (Wilson); p: exact sign test of before against after. "
        f"{evaluation.seconds:.1f} s of scoring.",
        markup=False,
        highlight=False,
    )


def spell_accuracy(accuracy: Accuracy | None) -> str:
    """As in "41.5% [38.0, 45.1]"."""
    if accuracy is None:
        return "-"
    return f"{accuracy.accuracy:.1%} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"
