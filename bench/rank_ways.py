"""Two ways to the scores of a closed set of names: a pass for each name, or all of a song's in one forest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.material import FIVE_TASKS, make_byte_tokenizer, make_rows
from bench.prefix import Size
from bench.record import Figure, WrongResultError, compare, rates, summarize, time_in_turns
from harness.assembly import set_attention
from harness.evaluation.questions import Question, read_questions
from harness.evaluation.ranking import CandidateScorer, Ids, Scores, encode_candidates, plan_forests
from preprocess.corpus import ARTISTS
from preprocess.prompt import find_format

ONE_BY_ONE, FOREST = "one name at a time", "harness_forest"
SCORE_TOLERANCE = 1e-3
"""Nats, of a sum over some twenty tokens in float32."""

ROW_SLOTS = 4096


@dataclass(frozen=True, slots=True)
class Ranking:
    """What is ranked.

    Attributes:
        size: Songs, model, timed turns.
        songs: Whose artist is ranked.
        names: In the closed set.
    """

    size: Size
    songs: int
    names: int


def rank_forest(
    scorer: CandidateScorer, questions: Sequence[Question], names: Sequence[Ids]
) -> list[list[float]]:
    """Each question's scores of all names, as an evaluation takes them."""
    scores: Scores = {}
    for forest in plan_forests(questions, {question.task: names for question in questions}, ROW_SLOTS):
        scorer.score(forest, scores)
    return [scores[question] for question in questions]


@torch.inference_mode()
def rank_plainly(
    model: torch.nn.Module, questions: Sequence[Question], names: Sequence[Ids]
) -> list[list[float]]:
    """The same, with a forward pass for each name."""

    def score(prompt: list[int], name: Ids) -> float:
        ids = torch.tensor([[*prompt, *name]])
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(name) + 1).logits[0, :-1]
        chosen = logits.float().log_softmax(-1).gather(-1, torch.tensor(name)[:, None])
        return float(chosen.double().sum())

    return [[score(question.prompt, name) for name in names] for question in questions]


def check_scores(forest: Sequence[Sequence[float]], plain: Sequence[Sequence[float]]) -> float:
    """The largest difference of a name's score.

    Raises:
        WrongResultError: It is above `SCORE_TOLERANCE`, or a score is no number.
    """
    difference = np.abs(np.array(forest) - np.array(plain)).max()
    if not difference <= SCORE_TOLERANCE:
        raise WrongResultError(
            f"a name's score is {difference:.3g} nats from that of {ONE_BY_ONE}; expected {SCORE_TOLERANCE:g}"
        )
    return float(difference)


def time_ranking(model: torch.nn.Module, work: Ranking) -> tuple[dict[str, Figure], dict[str, Any]]:
    """Rank names both ways.

    Returns:
        Figures, and the facts that they belong to.

    Raises:
        WrongResultError: A name gets another score.
    """
    tokenizer = make_byte_tokenizer()  # its ids are all in the small vocabulary
    rows = make_rows(tokenizer, work.size.num_songs, work.size.seq_len, length=work.size.length)
    questions = read_questions(rows, FIVE_TASKS)
    asked = [question for question in questions if question.task == "artist"][: work.songs]
    artists = [artist.name for artist in ARTISTS[: work.names]]
    names = encode_candidates(tokenizer, find_format(tokenizer), "The artist is ", artists)
    scorer = CandidateScorer(model)

    def forest() -> list[list[float]]:
        set_attention(model, "auto", torch.device("cpu"))
        return rank_forest(scorer, asked, names)

    def one_by_one() -> list[list[float]]:
        set_attention(model, "sdpa", torch.device("cpu"))
        return rank_plainly(model, asked, names)

    ranked = time_in_turns({ONE_BY_ONE: one_by_one, FOREST: forest}, work.size.num_turns)
    difference = check_scores(ranked.results[FOREST], ranked.results[ONE_BY_ONE])
    figures = {
        f"{way}: questions_ranked_per_s": summarize(rates(seconds, len(asked)), "questions/s")
        for way, seconds in ranked.seconds.items()
    }
    figures[f"{FOREST} / {ONE_BY_ONE}"] = compare(ranked.seconds[ONE_BY_ONE], ranked.seconds[FOREST])
    return figures, {"names_ranked": len(names), "largest_score_difference": difference}
