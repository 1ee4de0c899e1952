"""What scores and words of a model are worth: the likeliest name; each written answer read, checked and searched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from harness.evaluation.accuracy import choose
from harness.evaluation.material import Asked
from harness.evaluation.overlap import TrainingLyrics
from harness.evaluation.results import Result, System
from harness.evaluation.scoring import score_answer
from harness.evaluation.statistics import softmax
from harness.evaluation.truth import Knowledge, check_statements, count_claims
from harness.generation.batch import Generated
from preprocess.errors import CheckpointError
from preprocess.tokenizer import TextTokenizer

Key = tuple[str, str]


def judge_ranking(
    asked: Iterable[Asked], scores: Mapping[System, Mapping[Key, Sequence[float]]]
) -> list[Result]:
    """Each system's likeliest name for each question that names were ranked for.

    Raises:
        CheckpointError: A score is not a finite number, or an adapter changes not one of them.
    """
    check_scores(scores)
    known = {one.key: one for one in asked}
    return [
        _judge_scores(system, known[key], values)
        for system, found in scores.items()
        for key, values in found.items()
    ]


def _judge_scores(system: System, asked: Asked, scores: Sequence[float]) -> Result:
    names, label = list(asked.truth.names), asked.label or ""
    choice = choose(names, scores, label)
    return Result(
        system=system,
        method="rank",
        task=asked.question.task,
        song_id=asked.question.song_id,
        truth=asked.label,
        is_seen=asked.is_seen,
        values={"acc": float(choice.predicted == label)}
        | within_a_decade(asked.question.task, choice.predicted, label),
        answer=choice.predicted,
        confidence=max(softmax(scores)),
        margin=choice.margin,
        scores=tuple(scores),
    )


def within_a_decade(task: str, predicted: str, label: str) -> dict[str, float]:
    """For the decade of a song, whether it is at most one decade off; nothing for other tasks."""
    years = [name.removesuffix("s") for name in (predicted, label)]
    if task != "context" or not all(year.isdecimal() for year in years):
        return {}
    first, second = map(int, years)
    return {"within_decade": float(abs(first - second) <= 10)}


def check_scores(scores: Mapping[System, Mapping[Key, Sequence[float]]]) -> None:
    """Refuse scores that mean nothing.

    Raises:
        CheckpointError: A score is not a finite number, or an adapter changes not one of them.
    """
    for system, found in scores.items():
        _check_finite(system, (score for values in found.values() for score in values))
    if scores.get("after") and scores["after"] == scores.get("before"):
        raise _changes_nothing()


def check_answers(answers: Mapping[System, Mapping[Key, Generated]]) -> None:
    """Refuse written answers whose probabilities mean nothing.

    Raises:
        CheckpointError: A probability is not a finite number, or an adapter changes not one of the answers, nor how
            likely it is.
    """
    for system, found in answers.items():
        _check_finite(system, (logprob for answer in found.values() for logprob in answer.logprobs))
    if answers.get("after") and answers["after"] == answers.get("before"):
        raise _changes_nothing()


def _check_finite(system: System, scores: Iterable[float]) -> None:
    if not all(map(math.isfinite, scores)):
        tuned = system == "after"
        why = "the adapter is damaged" if tuned else "its weights overflow in this precision"
        raise CheckpointError(
            f"the model {'after' if tuned else 'before'} fine-tuning gives scores that are not finite numbers: {why}. "
            "Try model.precision fp32, or another checkpoint"
        )


def _changes_nothing() -> CheckpointError:
    return CheckpointError(
        "the adapter changes nothing: with and without it every score is the same to the last bit. Its weights "
        "are zero (not trained) or do not belong to this model's layers; give the adapter folder of a trained run"
    )


def judge_answers(
    asked: Iterable[Asked],
    answers: Mapping[System, Mapping[Key, Generated]],
    tokenizer: TextTokenizer,
    knowledge: Knowledge | None,
    training: TrainingLyrics,
) -> list[Result]:
    """Each written answer read strictly, its claims checked, its longest overlap with training lyrics found.

    Raises:
        CheckpointError: As `check_answers`.
    """
    check_answers(answers)
    known = {one.key: one for one in asked}
    return [
        _judge_answer(system, known[key], answer, tokenizer, knowledge, training)
        for system, found in answers.items()
        for key, answer in found.items()
    ]


def _judge_answer(
    system: System,
    asked: Asked,
    answer: Generated,
    tokenizer: TextTokenizer,
    knowledge: Knowledge | None,
    training: TrainingLyrics,
) -> Result:
    text = tokenizer.decode(answer.ids, skip_special_tokens=True).strip()
    song = asked.truth.song
    claims = [] if knowledge is None else check_statements(text, song, knowledge, introduced=asked.text)
    score = score_answer(asked.question.task, text, asked.truth, knowledge, claims)
    counts = count_claims(claims)
    overlap = training.longest(text)
    return Result(
        system=system,
        method="generate",
        task=asked.question.task,
        song_id=song.id,
        truth=asked.label,
        is_seen=asked.is_seen,
        values=score.values,
        answer=score.answer,
        confidence=_mean_probability(answer.logprobs),
        text=text,
        num_tokens=len(answer.logprobs),
        is_finished=answer.is_finished,
        claims=(counts.supported, counts.contradicted, counts.not_checkable),
        overlap_words=overlap.num_words,
        overlap_text=overlap.text,
        overlap_song=overlap.song_id,
    )


def _mean_probability(logprobs: Sequence[float]) -> float | None:
    return sum(map(math.exp, logprobs)) / len(logprobs) if logprobs else None
