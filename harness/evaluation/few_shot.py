"""Training examples in front of a question: what a base model does when it is shown how answers look.

The same examples stand in front of all songs, so they are computed once for as many as a pass takes::

    example 1 · example 2 ─┬─ lyrics of song a, question
                           └─ lyrics of song b, question

Each is a whole turn of a chat, the next one opened as the chat format opens a turn; the system message comes once,
where it is a turn of its own.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.evaluation.questions import Question, read_questions
from preprocess.check.frame import Frame
from preprocess.forest import PackedRow
from preprocess.prompt import Piece, PromptFormat, encode_pieces
from preprocess.tokenizer import TextTokenizer

MAX_SHOT_TOKENS = 600
"""A longer example is passed over: it would stand in front of every question."""

Ids = tuple[int, ...]


def choose_shots(
    rows: Iterable[PackedRow], tasks: Sequence[str], wanted: Iterable[str], num: int, seed: int
) -> dict[str, list[Question]]:
    """Some training examples of each wanted task, drawn by a hash of the seed and the song.

    Args:
        rows: Of the train split; read once, a row in memory at a time.
        tasks: The manifest's tasks.
        wanted: Tasks.
        num: Examples of each; fewer where there are no more.
        seed: Of the draw.
    """
    kept: dict[str, list[Question]] = {task: [] for task in sorted(set(wanted))}
    for row in rows:
        for question in read_questions([row], tasks):
            if question.task in kept and len(question.prompt) + len(question.answer) <= MAX_SHOT_TOKENS:
                kept[question.task].append(question)
        for task, found in kept.items():
            kept[task] = heapq.nsmallest(num, found, key=lambda one: draw(one, seed))
    return kept


def draw(question: Question, seed: int) -> str:
    """A sort key that mixes songs, the same in every process."""
    return hashlib.sha256(f"{seed}\x1f{question.song_id}\x1f{question.task}".encode()).hexdigest()


def put_in_front(question: Question, shots: Sequence[Question], frame: Frame) -> Question:
    """The question with examples before it; as it is without any.

    Returns:
        Its prefix are the examples, which all questions of the task share; the lyrics are among its own ids.
    """
    if not shots:
        return question
    opening = turn_opening(frame.tokenizer, frame.prompt)
    first, *others = shots
    front = (*first.prompt, *first.answer)
    for shot in others:
        front = (*front, *opening, *without_opening(shot.prompt, frame), *shot.answer)
    return replace(question, prefix=tuple(front), ids=(*opening, *without_opening(question.prompt, frame)))


def without_opening(prompt: Sequence[int], frame: Frame) -> Ids:
    """A prompt's ids after what opens a chat, up to its last special token before the lyrics."""
    opening = frame.opening_ids.tolist()
    return tuple(prompt[len(opening) :] if list(prompt[: len(opening)]) == opening else prompt)


def turn_opening(tokenizer: TextTokenizer, prompt: PromptFormat) -> Ids:
    """What opens a further turn in the place of the chat's opening, up to its last special token.

    The first special token of the chat's opening ends the system message's turn (or begins the text), which the stop
    token of the answer before has done.
    """
    pieces: Sequence[Piece] = prompt.after_system
    if not any(piece.special for piece in pieces):
        pieces = prompt.before_system
    places = [i for i, piece in enumerate(pieces) if piece.special]
    return tuple(encode_pieces(tokenizer, pieces[places[0] + 1 : places[-1] + 1])) if places else ()
