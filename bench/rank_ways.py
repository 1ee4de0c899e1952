"""Three ways to the scores of closed sets of names: a pass a name, a batch a question, a forest of whole songs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from transformers import DynamicCache

from bench.material import FIVE_TASKS, make_byte_tokenizer, make_rows
from bench.prefix import Size
from bench.record import Figure, WrongResultError, compare, rates, summarize, time_in_turns
from harness.assembly import set_attention
from harness.evaluation.questions import Question, read_questions
from harness.evaluation.ranking import (
    CandidateScorer,
    Ids,
    Scores,
    common_prefix,
    encode_candidates,
    find_room,
    plan_forests,
)
from harness.evaluation.settings import EvaluationSettings
from harness.generation.plain import name_of_cache
from preprocess.corpus import ARTISTS, generate_songs
from preprocess.prompt import find_format
from preprocess.schema import GENRES
from preprocess.tasks.instruct import answer_stem
from preprocess.tokenizer import TextTokenizer

ONE_BY_ONE, CACHED, FOREST = "one name at a time", "transformers_cache", "harness_forest"
SCORE_TOLERANCE = 1e-3
"""Nats, of a sum over some twenty tokens in float32."""

RANK_SLOTS: int = EvaluationSettings.model_fields["rank_slots"].default

Names = Mapping[str, Sequence[Ids]]
"""The closed set of each task."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What is ranked.

    Attributes:
        size: Songs, model, timed turns.
        songs: About which all questions with a closed set are ranked.
        artists: In the closed set of artists.
    """

    size: Size
    songs: int
    artists: int


def encode_names(tokenizer: TextTokenizer, num_artists: int) -> dict[str, list[Ids]]:
    """The closed sets: some artists, all genres, the decades of some made-up songs."""
    decades = {song.decade for song in generate_songs(200, 0, length="short") if song.decade is not None}
    names = {
        "artist": [artist.name for artist in ARTISTS[:num_artists]],
        "genre": list(GENRES),
        "context": sorted(decades),
    }
    prompt = find_format(tokenizer)
    return {task: encode_candidates(tokenizer, prompt, answer_stem(task), own) for task, own in names.items()}


def choose_questions(tokenizer: TextTokenizer, work: Ranking, tasks: Sequence[str]) -> list[Question]:
    """The questions of some tasks about the first songs."""
    rows = make_rows(tokenizer, work.size.num_songs, work.size.seq_len, length=work.size.length)
    questions = [question for question in read_questions(rows, FIVE_TASKS) if question.task in tasks]
    songs = list(dict.fromkeys(question.song_id for question in questions))[: work.songs]
    return [question for question in questions if question.song_id in songs]


def rank_forest(scorer: CandidateScorer, questions: Sequence[Question], names: Names) -> list[list[float]]:
    """Each question's scores of all its names, as an evaluation takes them."""
    scores: Scores = {}
    for forest in plan_forests(questions, names, find_room(questions, RANK_SLOTS)):
        scorer.score(forest, scores)
    return [scores[question] for question in questions]


def log_probabilities(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """float64[..., T]: of the ids [..., T] under the logits [..., T, V]."""
    return logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0].double()


@torch.inference_mode()
def rank_plainly(model: torch.nn.Module, questions: Sequence[Question], names: Names) -> list[list[float]]:
    """The same, with a forward pass for each name."""

    def score(prompt: list[int], name: Ids) -> float:
        ids = torch.tensor([[*prompt, *name]])
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(name) + 1).logits[0, :-1]
        return float(log_probabilities(logits, torch.tensor(name)).sum())

    return [[score(question.prompt, name) for name in names[question.task]] for question in questions]


@torch.inference_mode()
def rank_from_cache(model: torch.nn.Module, questions: Sequence[Question], names: Names) -> list[list[float]]:
    """The same, each prompt computed once with what all names begin with, then the rest of them in one batch."""
    return [_rank_one(model, question.prompt, names[question.task]) for question in questions]


def _rank_one(model: torch.nn.Module, prompt: list[int], names: Sequence[Ids]) -> list[float]:
    shared = common_prefix(names)
    rests = [torch.tensor(name[len(shared) :]) for name in names]
    cache = DynamicCache(config=cast("Any", model).config)
    run = partial(model, use_cache=True, **{name_of_cache(model): cache})
    known = run(input_ids=torch.tensor([[*prompt, *shared]]), logits_to_keep=len(shared) + 1).logits[0]
    stem = log_probabilities(known[:-1], torch.tensor(shared, dtype=torch.int64)).sum()
    first = known[-1].expand(len(names), 1, -1)
    cache.batch_repeat_interleave(len(names))
    ids = torch.nn.utils.rnn.pad_sequence(rests, batch_first=True)  # no name sees what stands behind it
    logits = torch.cat([first, run(input_ids=ids).logits[:, :-1]], dim=1)
    is_own = torch.arange(ids.shape[1]) < torch.tensor([[len(rest)] for rest in rests])
    own = log_probabilities(logits, ids).masked_fill(~is_own, 0.0).sum(-1)
    found: list[float] = (stem + own).tolist()
    return found


def check_scores(found: Sequence[Sequence[float]], plain: Sequence[Sequence[float]]) -> float:
    """The largest difference of a name's score.

    Raises:
        WrongResultError: It is above `SCORE_TOLERANCE`, or a score is no number.
    """
    pairs = zip(found, plain, strict=True)
    difference = max(float(np.abs(np.array(one) - np.array(other)).max()) for one, other in pairs)
    if not difference <= SCORE_TOLERANCE:
        raise WrongResultError(
            f"a name's score is {difference:.3g} nats from that of {ONE_BY_ONE}; expected {SCORE_TOLERANCE:g}"
        )
    return difference


def time_ranking(model: torch.nn.Module, work: Ranking) -> tuple[dict[str, Figure], dict[str, Any]]:
    """Rank names every way.

    Returns:
        Figures, and the facts that they belong to.

    Raises:
        WrongResultError: A name gets another score.
    """
    tokenizer = make_byte_tokenizer()  # its ids are all in the small vocabulary
    names = encode_names(tokenizer, work.artists)
    asked = choose_questions(tokenizer, work, list(names))
    scorer = CandidateScorer(model)

    def rank(attention: Literal["auto", "sdpa"], way: Callable[..., list[list[float]]]) -> list[list[float]]:
        set_attention(model, attention, torch.device("cpu"))
        return way(asked, names)

    ways = {
        ONE_BY_ONE: partial(rank, "sdpa", partial(rank_plainly, model)),
        CACHED: partial(rank, "sdpa", partial(rank_from_cache, model)),
        FOREST: partial(rank, "auto", partial(rank_forest, scorer)),
    }
    ranked = time_in_turns(ways, work.size.num_turns)
    differences = [check_scores(ranked.results[way], ranked.results[ONE_BY_ONE]) for way in (CACHED, FOREST)]
    figures = {
        f"{way}: questions_ranked_per_s": summarize(rates(seconds, len(asked)), "questions/s")
        for way, seconds in ranked.seconds.items()
    }
    for other in (ONE_BY_ONE, CACHED):
        figures[f"{FOREST} / {other}"] = compare(ranked.seconds[other], ranked.seconds[FOREST])
    return figures, {
        "questions_ranked": len(asked),
        "names_ranked": sum(len(names[question.task]) for question in asked),
        "tokens_of_prompt_ranked": sum(len(question.prompt) for question in asked) / len(asked),
        "largest_score_difference": max(differences),
    }
