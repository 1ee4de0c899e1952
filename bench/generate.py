"""How many answers a second are written and ranked, against a plain loop?

Written: greedy answers. The plain loop computes the whole prompt again for every token; the harness keeps keys and
values, one prompt at a time; transformers' `generate` does the same with many prompts at once, padded on the left.
Ranked: the scores of a closed set of names. The plain loop computes prompt and name again for every name; the harness
hangs all of a song's questions and names under its lyrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from bench.material import FIVE_TASKS, make_byte_tokenizer, make_rows
from bench.prefix import VOCAB_SIZE, Size, make_model
from bench.record import Outcome, WrongResultError, compare, rates, summarize, time_in_turns
from harness.assembly import set_attention
from harness.evaluation.questions import Question, read_questions
from harness.evaluation.ranking import CandidateScorer, Ids, Scores, encode_candidates, plan_forests
from harness.generation.plain import generate_answer
from preprocess.corpus import ARTISTS
from preprocess.prompt import find_format

PLAIN, CACHED, BATCHED = "plain_loop", "harness_cached", "transformers_generate"
ONE_BY_ONE, FOREST = "one name at a time", "harness_forest"
SCORE_TOLERANCE = 1e-3
"""Nats, of a sum over some twenty tokens in float32."""

ROW_SLOTS = 4096


@dataclass(frozen=True, slots=True)
class Work:
    """What is measured.

    Attributes:
        size: Songs, model, timed turns.
        questions: That are answered.
        batch: Prompts at once in transformers' `generate`.
        new_tokens: Of an answer.
        ranked_songs: Whose artist is ranked.
        names: In the closed set.
    """

    size: Size
    questions: int
    batch: int
    new_tokens: int
    ranked_songs: int
    names: int


FULL = Work(Size(6, "short", 2048, 256, 4, 5), 24, 8, 32, 4, 24)
QUICK = Work(Size(2, "short", 1024, 64, 2, 3), 4, 4, 8, 1, 6)
STOP_ID = VOCAB_SIZE - 1


def open_model(size: Size) -> torch.nn.Module:
    """A random Llama with adapters inside, in evaluation mode; a byte's ids are a part of its vocabulary."""
    causal = make_model(size).causal
    set_attention(causal, "sdpa", torch.device("cpu"))
    return causal.eval()


@torch.inference_mode()
def answer_plainly(
    model: torch.nn.Module, ids: Sequence[int], stop_id: int, max_new_tokens: int
) -> list[int]:
    """The likeliest token each time, out of a forward pass over everything before it."""
    answer: list[int] = []
    while len(answer) < max_new_tokens:
        logits = model(input_ids=torch.tensor([[*ids, *answer]]), use_cache=False, logits_to_keep=1).logits
        token = int(logits[0, -1].argmax())
        if token == stop_id:
            break
        answer.append(token)
    return answer


Answer = Callable[[torch.nn.Module, Sequence[int], int, int], list[int]]


def answer_each(
    answer: Answer, model: torch.nn.Module, prompts: Sequence[Sequence[int]], limit: int
) -> list[list[int]]:
    """Prompt by prompt."""
    return [answer(model, prompt, STOP_ID, limit) for prompt in prompts]


@torch.inference_mode()
def answer_together(
    model: torch.nn.Module, prompts: Sequence[Sequence[int]], limit: int, batch: int
) -> list[list[int]]:
    """By transformers, so many at once, the shorter ones padded on the left."""
    answers: list[list[int]] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        width = max(map(len, part))
        ids = torch.tensor([[STOP_ID] * (width - len(one)) + list(one) for one in part])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in part])
        found = cast("Any", model).generate(
            ids,
            attention_mask=mask,
            max_new_tokens=limit,
            do_sample=False,
            use_cache=True,
            eos_token_id=STOP_ID,
            pad_token_id=STOP_ID,
        )
        answers += [[id_ for id_ in row if id_ != STOP_ID] for row in found[:, width:].tolist()]
    return answers


def check_answers(answers: Mapping[str, Sequence[Sequence[int]]]) -> int:
    """Tokens of all answers, after every way was found to give the same.

    Raises:
        WrongResultError: A way gives other answers than the plain loop, or all answers are empty.
    """
    expected = answers[PLAIN]
    for way, found in answers.items():
        differing = sum(list(one) != list(other) for one, other in zip(found, expected, strict=True))
        if differing:
            raise WrongResultError(f"{way}: {differing} of {len(expected)} answers are not those of {PLAIN}")
    if not (total := sum(map(len, expected))):
        raise WrongResultError("every answer is empty, so nothing is compared")
    return total


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


def measure(*, quick: bool) -> Outcome:
    """Write answers three ways, and rank names two ways.

    Raises:
        WrongResultError: Two ways give other answers, or other scores.
    """
    work = QUICK if quick else FULL
    tokenizer = make_byte_tokenizer()  # its ids are all in the small vocabulary
    rows = make_rows(tokenizer, work.size.num_songs, work.size.seq_len, length=work.size.length)
    questions = read_questions(rows, FIVE_TASKS)
    prompts = [question.prompt for question in questions[: work.questions]]
    asked = [question for question in questions if question.task == "artist"][: work.ranked_songs]
    artists = [artist.name for artist in ARTISTS[: work.names]]
    names = encode_candidates(tokenizer, find_format(tokenizer), "The artist is ", artists)
    model = open_model(work.size)
    scorer = CandidateScorer(model)
    written: dict[str, Callable[[], Any]] = {
        PLAIN: partial(answer_each, answer_plainly, model, prompts, work.new_tokens),
        CACHED: partial(answer_each, generate_answer, model, prompts, work.new_tokens),
        BATCHED: partial(answer_together, model, prompts, work.new_tokens, work.batch),
    }
    turns = time_in_turns(written, work.size.num_turns)
    num_tokens = check_answers(turns.results)
    model_for_forests = partial(set_attention, model, "auto", torch.device("cpu"))

    def forest() -> list[list[float]]:
        model_for_forests()
        return rank_forest(scorer, asked, names)

    def one_by_one() -> list[list[float]]:
        set_attention(model, "sdpa", torch.device("cpu"))
        return rank_plainly(model, asked, names)

    ranked = time_in_turns({ONE_BY_ONE: one_by_one, FOREST: forest}, work.size.num_turns)
    difference = check_scores(ranked.results[FOREST], ranked.results[ONE_BY_ONE])
    return Outcome(
        baseline=PLAIN,
        figures={
            f"{way}_answers_per_s": summarize(rates(seconds, len(prompts)), "answers/s")
            for way, seconds in turns.seconds.items()
        }
        | {
            f"{way}: questions_ranked_per_s": summarize(rates(seconds, len(asked)), "questions/s")
            for way, seconds in ranked.seconds.items()
        }
        | {f"{FOREST} / {ONE_BY_ONE}": compare(ranked.seconds[ONE_BY_ONE], ranked.seconds[FOREST])},
        ratios={way: compare(turns.seconds[PLAIN], turns.seconds[way]) for way in (CACHED, BATCHED)},
        facts={
            "model": f"a toy: random Llama, hidden {work.size.hidden_size}, {work.size.num_layers} layers, "
            "float32, LoRA r=16",
            "prompts": len(prompts),
            "prompt_tokens": sum(map(len, prompts)) / len(prompts),
            "answer_tokens": num_tokens / len(prompts),
            "prompts_at_once": work.batch,
            "names_ranked": len(names),
            "largest_score_difference": difference,
            "torch_threads": torch.get_num_threads(),
        },
    )
