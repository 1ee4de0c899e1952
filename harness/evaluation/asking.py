"""Put the questions to the model: before and after fine-tuning, and the base with examples in front."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from torch import nn

from harness.evaluation.questions import Question
from harness.evaluation.ranking import CandidateScorer, Ids, Scores, find_room, plan_forests
from harness.evaluation.results import System
from harness.generation.batch import MAX_SLOTS, Generated, Prompt, generate_batch
from harness.generation.reach import check_length
from harness.progress import LINE_EVERY_S
from harness.tuned import TunedModel, Version
from preprocess.terminal import make_progress


@dataclass(frozen=True, slots=True)
class Asking:
    """Questions for one system.

    Attributes:
        system: Which.
        version: The model that answers.
        questions: As this system gets them, in the order of the songs.
    """

    system: System
    version: Version
    questions: tuple[Question, ...]


@contextmanager
def counting(console: Console, what: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show how far something is: a bar on a terminal, a line now and then elsewhere.

    Yields:
        To be called with the number that is done.
    """
    last_line_s = time.monotonic()
    with make_progress(console) as progress:
        bar = progress.add_task(what, total=total, visible=shown)

        def advance(done: int) -> None:
            nonlocal last_line_s
            progress.update(bar, completed=done)
            if shown and not console.is_terminal and time.monotonic() - last_line_s > LINE_EVERY_S:
                last_line_s = time.monotonic()
                console.print(f"{what}: {done:,} of {total:,}", highlight=False)

        yield advance


def rank_names(
    model: TunedModel,
    askings: Sequence[Asking],
    candidates: Mapping[str, Sequence[Ids]],
    max_slots: int,
    advance: Callable[[int], None],
) -> dict[System, dict[tuple[str, str], list[float]]]:
    """The score of every name, by system and (song, task).

    Args:
        model: The models.
        askings: What is asked; questions of tasks without candidates are passed over.
        candidates: Ids of each name, by task.
        max_slots: Tokens of a forward pass beside the longest prompt; see `find_room`.
        advance: Told how many questions are done, over all systems.
    """
    scorer = CandidateScorer(model.causal)
    found: dict[System, dict[tuple[str, str], list[float]]] = {}
    done = 0
    for asking in askings:
        questions = in_rows(asking, candidates)
        room = find_room(questions, max_slots)
        scores: Scores = {}
        with model.as_version(asking.version):
            for forest in plan_forests(questions, candidates, room):
                scorer.score(forest, scores)
                advance(done + len(scores))
        done += len(scores)
        found[asking.system] = {(q.song_id, q.task): values for q, values in scores.items()}
    return found


def in_rows(asking: Asking, candidates: Mapping[str, Sequence[Ids]]) -> list[Question]:
    """The questions with candidates, those that share a prefix next to each other."""
    ranked = [question for question in asking.questions if question.task in candidates]
    return sorted(ranked, key=lambda question: question.task) if asking.system == "few_shot" else ranked


def write_answers(
    model: TunedModel,
    askings: Sequence[Asking],
    stop_id: int,
    max_new_tokens: int,
    max_slots: int | None,
    advance: Callable[[int], None],
) -> dict[System, dict[tuple[str, str], Generated]]:
    """The likeliest answer in words to every question, by system and (song, task).

    Args:
        model: The models.
        askings: What is asked.
        stop_id: Id of the token that ends an answer.
        max_new_tokens: At most so many tokens an answer, its end included.
        max_slots: See `harness.generation.batch.generate_batch`; None takes its own default.
        advance: Told how many questions are done, over all systems.
    """
    found: dict[System, dict[tuple[str, str], Generated]] = {}
    done = 0

    def note(index: int, answer: Generated) -> None:
        nonlocal done
        done += 1
        advance(done)

    for asking in askings:
        prompts = [Prompt(q.prefix, q.ids, max_new_tokens) for q in asking.questions]
        with model.as_version(asking.version) as causal:
            answers = generate_batch(
                causal,
                prompts,
                stop_id,
                max_slots=MAX_SLOTS if max_slots is None else max_slots,
                on_done=note,
            )
        keys = [(question.song_id, question.task) for question in asking.questions]
        found[asking.system] = dict(zip(keys, answers, strict=True))
    return found


def count_questions(askings: Iterable[Asking]) -> int:
    """Questions of all systems."""
    return sum(len(asking.questions) for asking in askings)


def check_lengths(causal: nn.Module, askings: Sequence[Asking], room: int) -> None:
    """Refuse prompts that are longer than the model's attention window or its positions.

    Args:
        causal: A `transformers` causal model.
        askings: What is asked.
        room: Tokens that an answer may take.

    Raises:
        ConfigError: A prompt with its answer is longer.
    """
    for asking in askings:
        longest = max((len(question.prompt) for question in asking.questions), default=0) + room
        few_shot, others = "take fewer examples with --few-shot", "build the data set with shorter rows"
        check_length(causal, longest, few_shot if asking.system == "few_shot" else others)
