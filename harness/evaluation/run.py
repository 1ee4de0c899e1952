"""One evaluation, from the data set to the record: the order of its events, on every rank that shares it.

audit ─ load ─ check ─ share the songs ─ rank names ─ write answers ─ judge ─ gather ─┬─ baselines ─ figures ─ files
                        └─ each rank its own: nothing of a song is computed twice     │  (rank 0)
                                                                                      └─ nothing (others)

What the user may have to mend is told of before the first answer; each split's files are written as soon as it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from rich.console import Console

from harness.evaluation.asking import (
    Asking,
    check_lengths,
    count_questions,
    counting,
    rank_names,
    write_answers,
)
from harness.evaluation.few_shot import MAX_SHOT_TOKENS, choose_shots, put_in_front
from harness.evaluation.judging import judge_answers, judge_ranking
from harness.evaluation.labelled_lyrics import read_labelled_lyrics, read_seen_lyrics, read_training_lyrics
from harness.evaluation.material import Asked, Material, limit_answers, open_material
from harness.evaluation.output import open_folders, write_results
from harness.evaluation.overlap import TrainingLyrics
from harness.evaluation.part import Corpus, Part
from harness.evaluation.questions import Question
from harness.evaluation.ranking import encode_candidates
from harness.evaluation.record import Record, make_record
from harness.evaluation.reference import guess_answers
from harness.evaluation.results import Key, Result, System, check_complete, in_order, result_from_json
from harness.evaluation.settings import EvaluationSettings, Method
from harness.evaluation.sharing import ALONE, Ranks
from harness.evaluation.truth import read_knowledge
from harness.memory.limit import tell_out_of_memory
from harness.tuned import TunedModel, load_tuned_model
from preprocess.manifest import read_manifest
from preprocess.shards import open_split
from preprocess.tasks import generation

LESS_MEMORY = "lower --batch-slots or --max-new-tokens, or take a smaller model"
"""What helps where memory runs out."""


@dataclass(slots=True)
class Evaluator:
    """One evaluation on one rank: what it holds, and its few events.

    Attributes:
        settings: What is to be done.
        console: Rank 0's terminal.
        ranks: Who shares the work.
    """

    settings: EvaluationSettings
    console: Console
    ranks: Ranks = ALONE
    _model: TunedModel | None = field(default=None, init=False)

    def go(self) -> list[Record]:
        """Evaluate every split and write its files; on other ranks than the first nothing comes back.

        Raises:
            DataError: The data set is missing, incomplete, damaged, or of another tokenizer than the model; or a
                folder cannot be written to.
            ConfigError: There is no such model, or a prompt is longer than the model reaches.
            CheckpointError: There is no such adapter, or it changes nothing, or the logits are not finite.
            OutOfMemoryError: See `answer`.
            NoSpaceError: The disk is full.
        """
        self.ranks.together(self.open_folders)
        corpus: Corpus = self.ranks.together(self.read_corpus)
        parts = [self.ranks.together(partial(self.open, split, corpus)) for split in self.settings.splits]
        self.ranks.together(lambda: self.check(parts))
        records = [self.evaluate(part) for part in parts]
        return [record for record in records if record is not None]

    def open_folders(self) -> None:
        """See that there is somewhere to write to; only rank 0 writes."""
        if self.ranks.is_main:
            open_folders(self.settings)

    def read_corpus(self) -> Corpus:
        """What the audit, the baselines and the checks know of the training songs."""
        data = self.settings.data
        lyrics = read_training_lyrics(data)
        writes = (
            generation.TASK.name in read_manifest(data).tasks
        )  # then some songs' lyrics are answers alone
        seen = read_seen_lyrics(data) if writes else [(song.song_id, song.lyrics) for song in lyrics]
        overlap = TrainingLyrics(seen) if "generate" in self.settings.methods else None
        return Corpus(lyrics, seen, read_knowledge(data), overlap)

    def check(self, parts: Sequence[Part]) -> None:
        """Load the model and see that it takes every prompt of this rank, before anything is computed.

        Raises:
            OutOfMemoryError: The model is too large.
        """
        with tell_out_of_memory(LESS_MEMORY):
            model = self.load(parts[0].material)
        for part in parts:
            longest = max((len(ids) for names in part.candidates.values() for ids in names), default=0)
            limit = limit_answers(self.settings, part.material)
            rooms: dict[Method, int] = {"rank": longest, "generate": limit}
            for method in self.settings.methods:
                askings = self.ask(model, part, self.own(part, method))
                check_lengths(model.causal, askings, rooms[method])

    def evaluate(self, part: Part) -> Record | None:
        """One split."""
        self.say_of_leaks(part.material)
        self.say_of_shots(part)
        results: list[Result] = self.ranks.together(lambda: self.answer(part))
        gathered = self.ranks.gather_records([result.to_json() for result in results])
        times = self.ranks.gather_records([asdict(part.seconds)])
        record: Record | None = self.ranks.together(lambda: self.finish(part, gathered, times))
        return record

    def finish(
        self, part: Part, gathered: Sequence[dict[str, Any]], times: list[dict[str, Any]]
    ) -> Record | None:
        """The figures of a split, written down; rank 0 alone."""
        if not self.ranks.is_main:
            return None
        found = in_order(map(result_from_json, gathered), part.material.song_ids)
        check_complete(found, self.list_keys(part))
        record = self.record(part, found, times)
        write_results(self.settings, record, self.say)
        return record

    def open(self, split: str, corpus: Corpus) -> Part:
        """The split, audited, with the examples to show."""
        material = open_material(self.settings.data, split, corpus.seen, max_songs=self.settings.songs)
        tokenizer, prompt = material.held_out.tokenizer, material.held_out.prompt
        candidates = {
            task: encode_candidates(tokenizer, prompt, labels.stem, labels.train_counts)
            for task, labels in material.labels.items()
        }
        return Part(split, corpus, material, candidates, self.choose_shots(material))

    def answer(self, part: Part) -> list[Result]:
        """This rank's part of the questions, asked and judged.

        Raises:
            OutOfMemoryError: The model, or what it computes, is too large.
        """
        with tell_out_of_memory(LESS_MEMORY):
            model = self.load(part.material)
            return [*self.rank(model, part), *self.generate(model, part)]

    def to_ask(self, part: Part, method: Method, song_ids: Sequence[str]) -> list[Asked]:
        """The questions about some songs that are asked by a method."""
        if method == "rank":
            return [one for one in part.material.of_songs(song_ids) if one.label is not None]
        chosen = set(part.material.song_ids[: self.settings.generate_songs])
        return part.material.of_songs([song_id for song_id in song_ids if song_id in chosen])

    def own(self, part: Part, method: Method) -> list[Asked]:
        """This rank's questions."""
        return self.to_ask(part, method, self.ranks.share(part.material.song_ids))

    def list_keys(self, part: Part) -> set[Key]:
        """What every question of all ranks will give, by every system."""
        versions: tuple[System, ...] = self.load(part.material).versions
        return {
            (system, method, one.question.task, one.question.song_id)
            for method in self.settings.methods
            for one in self.to_ask(part, method, part.material.song_ids)
            for system in (*versions, *part.shown(one.question.task))
        }

    def say_of_leaks(self, material: Material) -> None:
        """Say which questions are left out since they give their answers away."""
        audit = material.audit
        if audit.excluded:
            self.say(
                f"{len(audit.excluded):,} of {audit.num_checked:,} questions give their answers away and are left out "
                "of every score; evaluation.json names them"
            )

    def say_of_shots(self, part: Part) -> None:
        """Say which tasks have fewer examples than are wanted in front of them."""
        wanted = self.settings.few_shot
        for task in dict.fromkeys(one.question.task for one in part.material.asked):
            num_shots = len(part.shots.get(task, ()))
            if num_shots < wanted:
                self.say(
                    f"few-shot: {task} has {num_shots} of {wanted} examples, for training has no more of at most "
                    f"{MAX_SHOT_TOKENS} tokens" + ("" if num_shots else "; it is not asked so")
                )

    def load(self, material: Material) -> TunedModel:
        """The model, once for all splits."""
        if self._model is None:
            self._model = load_tuned_model(
                self.settings.model, material.held_out.manifest, self.settings.adapter
            )
        return self._model

    def choose_shots(self, material: Material) -> dict[str, list[Question]]:
        """Training examples of each task that has some, the same for every song; none where none are wanted."""
        if not self.settings.few_shot:
            return {}
        manifest = material.held_out.manifest
        rows = open_split(self.settings.data, "train", manifest)
        tasks = {one.question.task for one in material.asked}
        found = choose_shots(rows, manifest.tasks, tasks, self.settings.few_shot, self.settings.seed)
        return {task: shots for task, shots in found.items() if shots}

    def ask(self, model: TunedModel, part: Part, asked: Sequence[Asked]) -> list[Asking]:
        """The questions as each system gets them."""
        questions = tuple(one.question for one in asked)
        askings = [Asking(version, version, questions) for version in model.versions]
        if part.shots:
            shown = [
                put_in_front(one, part.shots[one.task], part.material.frame)
                for one in questions
                if one.task in part.shots
            ]
            askings.append(Asking("few_shot", "before", tuple(shown)))
        return askings

    def rank(self, model: TunedModel, part: Part) -> list[Result]:
        """The likeliest name for each of this rank's questions that ask for one."""
        if "rank" not in self.settings.methods:
            return []
        asked = self.own(part, "rank")
        askings = self.ask(model, part, asked)
        started_s = time.perf_counter()
        with self.counting("ranking names", count_questions(askings)) as advance:
            scores = rank_names(model, askings, part.candidates, self.settings.rank_slots, advance)
        part.seconds.rank = time.perf_counter() - started_s
        return judge_ranking(asked, scores)

    def generate(self, model: TunedModel, part: Part) -> list[Result]:
        """An answer in words to each of this rank's questions, judged."""
        material, corpus = part.material, part.corpus
        if "generate" not in self.settings.methods:
            return []
        asked = self.own(part, "generate")
        askings = self.ask(model, part, asked)
        limit = limit_answers(self.settings, material)
        stop_id = material.held_out.manifest.stop_token_id
        started_s = time.perf_counter()
        with self.counting("writing answers", count_questions(askings)) as advance:
            answers = write_answers(model, askings, stop_id, limit, self.settings.batch_slots, advance)
        part.seconds.generate = time.perf_counter() - started_s
        assert corpus.overlap is not None
        results = judge_answers(asked, answers, material.held_out.tokenizer, corpus.knowledge, corpus.overlap)
        part.seconds.judge = time.perf_counter() - started_s - part.seconds.generate
        return results

    def record(self, part: Part, results: list[Result], times: list[dict[str, Any]]) -> Record:
        """The figures of a split; rank 0 alone."""
        settings, corpus = self.settings, part.corpus
        labelled = read_labelled_lyrics(settings.data, part.split)
        fits = settings.baselines
        guesses = guess_answers(
            part.material.asked, corpus.lyrics, labelled, corpus.knowledge, settings.seed, fits=fits
        )
        return make_record(
            settings, part.split, part.material, corpus.knowledge, results, guesses, times, part.shots
        )

    def say(self, line: str) -> None:
        """A line on rank 0's terminal."""
        if self.ranks.is_main:
            self.console.print(line, highlight=False)

    def counting(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show how far this rank is, on rank 0's terminal."""
        return counting(self.console, what, total, shown=self.ranks.is_main)


def evaluate_model(settings: EvaluationSettings, console: Console, ranks: Ranks = ALONE) -> list[Record]:
    """Evaluate a model on held-out songs; every rank that shares the work calls this.

    Args:
        settings: What is to be done.
        console: Rank 0's terminal.
        ranks: Who shares the work.

    Returns:
        A record for each split on rank 0; nothing on the others. Their files are written.

    Raises:
        DataError: See `Evaluator.go`.
        ConfigError: Likewise.
        CheckpointError: Likewise.
        NoSpaceError: Likewise.
        OutOfMemoryError: Likewise.
    """
    read_manifest(settings.data)  # a folder that is no data set is told of before anything else
    return Evaluator(settings, console, ranks).go()
