"""One evaluation, from the data set to the record: the order of its events, on every rank that shares it.

audit ─ share the songs ─ load ─ rank names ─ write answers ─ judge ─ gather ─┬─ baselines ─ figures ─ record   (rank 0)
         └─ each rank its own: nothing of a song is computed twice            └─ nothing                       (others)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from harness.evaluation.asking import Asking, check_lengths, counting, rank_names, write_answers
from harness.evaluation.baselines import LabelledLyrics, read_labelled_lyrics, read_training_lyrics
from harness.evaluation.few_shot import choose_shots, put_in_front
from harness.evaluation.judging import judge_answers, judge_ranking
from harness.evaluation.material import Asked, Material, open_material
from harness.evaluation.overlap import TrainingLyrics
from harness.evaluation.questions import Question
from harness.evaluation.ranking import encode_candidates
from harness.evaluation.record import Record, make_record
from harness.evaluation.reference import guess_answers
from harness.evaluation.results import Result, in_order, result_from_json
from harness.evaluation.settings import EvaluationSettings
from harness.evaluation.sharing import ALONE, Ranks
from harness.evaluation.truth import Knowledge, read_knowledge
from harness.memory.limit import tell_out_of_memory
from harness.tuned import TunedModel, load_tuned_model
from preprocess.manifest import read_manifest
from preprocess.shards import open_split


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
        lyrics: Their lyrics and labels.
        knowledge: Their facts.
        overlap: Their lyrics, ready to be looked for in; None where nothing is written.
    """

    lyrics: list[LabelledLyrics]
    knowledge: Knowledge
    overlap: TrainingLyrics | None


@dataclass(frozen=True, slots=True)
class Part:
    """A split under evaluation.

    Attributes:
        split: Its name.
        corpus: What is known of the training songs.
        material: What is asked.
        shots: Task → examples to show in front; empty without a few-shot system.
        seconds: What the parts took on this rank.
    """

    split: str
    corpus: Corpus
    material: Material
    shots: dict[str, list[Question]]
    seconds: Seconds = field(default_factory=Seconds)


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
        """Evaluate every split; on other ranks than the first nothing comes back.

        Raises:
            DataError: The data set is missing, incomplete, damaged, or of another tokenizer than the model.
            ConfigError: There is no such model, or a prompt is longer than the model reaches.
            CheckpointError: There is no such adapter, or it changes nothing, or the logits are not finite.
            OutOfMemoryError: See `answer`.
        """
        corpus: Corpus = self.ranks.together(self.read_corpus)
        records = [self.evaluate(split, corpus) for split in self.settings.splits]
        return [record for record in records if record is not None]

    def read_corpus(self) -> Corpus:
        """What the audit, the baselines and the checks know of the training songs."""
        data = self.settings.data
        lyrics = read_training_lyrics(data)
        pairs = ((song.song_id, song.lyrics) for song in lyrics)
        overlap = TrainingLyrics(pairs) if "generate" in self.settings.methods else None
        return Corpus(lyrics, read_knowledge(data), overlap)

    def evaluate(self, split: str, corpus: Corpus) -> Record | None:
        """One split."""
        part: Part = self.ranks.together(lambda: self.open(split, corpus))
        self.say_of_leaks(part.material)
        results: list[Result] = self.ranks.together(lambda: self.answer(part))
        gathered = self.ranks.gather_records([result.to_json() for result in results])
        times = self.ranks.gather_records([asdict(part.seconds)])
        if not self.ranks.is_main:
            return None
        found = in_order(map(result_from_json, gathered), part.material.song_ids)
        return self.record(part, found, times)

    def open(self, split: str, corpus: Corpus) -> Part:
        """The split, audited, with the examples to show."""
        pairs = ((song.song_id, song.lyrics) for song in corpus.lyrics)
        material = open_material(self.settings.data, split, pairs, max_songs=self.settings.songs)
        return Part(split, corpus, material, self.choose_shots(material))

    def answer(self, part: Part) -> list[Result]:
        """This rank's part of the questions, asked and judged.

        Raises:
            OutOfMemoryError: The model, or what it computes, is too large.
        """
        with tell_out_of_memory("lower --batch-slots or --max-new-tokens, or take a smaller model"):
            model = self.load(part.material)
            own = self.ranks.share(part.material.song_ids)
            return [*self.rank(model, part, own), *self.generate(model, part, own)]

    def say_of_leaks(self, material: Material) -> None:
        """Say which questions are left out since they give their answers away."""
        audit = material.audit
        if audit.excluded:
            self.say(
                f"{len(audit.excluded):,} of {audit.num_checked:,} questions give their answers away and are left out "
                "of every score; evaluation.json names them"
            )

    def load(self, material: Material) -> TunedModel:
        """The model, once for all splits."""
        if self._model is None:
            self._model = load_tuned_model(
                self.settings.model, material.held_out.manifest, self.settings.adapter
            )
        return self._model

    def choose_shots(self, material: Material) -> dict[str, list[Question]]:
        """Training examples of each task, the same for every song; none where none are wanted."""
        if not self.settings.few_shot:
            return {}
        manifest = material.held_out.manifest
        rows = open_split(self.settings.data, "train", manifest)
        tasks = {one.question.task for one in material.asked}
        return choose_shots(rows, manifest.tasks, tasks, self.settings.few_shot, self.settings.seed)

    def ask(self, model: TunedModel, part: Part, asked: Sequence[Asked]) -> list[Asking]:
        """The questions as each system gets them."""
        questions = tuple(one.question for one in asked)
        askings = [Asking(version, version, questions) for version in model.versions]
        if part.shots:
            shown = [put_in_front(one, part.shots[one.task], part.material.frame) for one in questions]
            askings.append(Asking("few_shot", "before", tuple(shown)))
        return askings

    def rank(self, model: TunedModel, part: Part, song_ids: Sequence[str]) -> list[Result]:
        """The likeliest name for each of this rank's questions that ask for one."""
        material = part.material
        if "rank" not in self.settings.methods:
            return []
        asked = [one for one in material.of_songs(song_ids) if one.label is not None]
        askings = self.ask(model, part, asked)
        candidates = {
            task: encode_candidates(
                material.held_out.tokenizer, material.held_out.prompt, labels.stem, labels.train_counts
            )
            for task, labels in material.labels.items()
        }
        longest = max((len(ids) for names in candidates.values() for ids in names), default=0)
        check_lengths(model.causal, askings, longest)
        started_s = time.perf_counter()
        with self.counting("ranking names", len(asked) * len(askings)) as advance:
            scores = rank_names(model, askings, candidates, self.settings.rank_slots, advance)
        part.seconds.rank = time.perf_counter() - started_s
        return judge_ranking(asked, scores)

    def generate(self, model: TunedModel, part: Part, song_ids: Sequence[str]) -> list[Result]:
        """An answer in words to each of this rank's questions, judged."""
        material, corpus = part.material, part.corpus
        if "generate" not in self.settings.methods:
            return []
        chosen = set(material.song_ids[: self.settings.generate_songs])
        asked = material.of_songs([song_id for song_id in song_ids if song_id in chosen])
        askings = self.ask(model, part, asked)
        limit = self.settings.max_new_tokens
        check_lengths(model.causal, askings, limit)
        stop_id = material.held_out.manifest.stop_token_id
        started_s = time.perf_counter()
        with self.counting("writing answers", len(asked) * len(askings)) as advance:
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
        guesses = guess_answers(part.material.asked, corpus.lyrics, labelled, settings.seed, fits=fits)
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
        A record for each split on rank 0; nothing on the others.

    Raises:
        DataError: See `Evaluator.go`.
        ConfigError: Likewise.
        CheckpointError: Likewise.
        OutOfMemoryError: Likewise.
    """
    read_manifest(settings.data)  # a folder that is no data set is told of before anything else
    return Evaluator(settings, console, ranks).go()
