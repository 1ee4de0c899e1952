"""Examples as ids: each question encoded once, answers in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from preprocess.prompt import PromptFormat, encode_pieces, encode_pieces_batch
from preprocess.schema import Example
from preprocess.tokenizer import TextTokenizer

_MAX_KEPT = 20_000
"""Questions whose ids are kept. The common ones are few; those that state a song's own facts are many."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One encoded example.

    Attributes:
        example: What was encoded.
        question: Ids from the end of the prefix (or, without lyrics, from the start) to the answer.
        answer: Ids of the answer and its end.
        task: Index of the task.
        is_exact: Whether the question's ids behind an empty prefix are those of the whole.
    """

    example: Example
    question: list[int]
    answer: list[int]
    task: int
    is_exact: bool

    @property
    def length(self) -> int:
        """Number of tokens of question and answer."""
        return len(self.question) + len(self.answer)


class Questions:
    """Encodes examples for one tokenizer and prompt format, and keeps the ids of their questions."""

    def __init__(self, tokenizer: TextTokenizer, prompt: PromptFormat, tasks: Sequence[str]) -> None:
        self.frame = encode_pieces(tokenizer, prompt.prefix(""))
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._task_index = {task: i for i, task in enumerate(tasks)}
        self._kept: dict[tuple[str, bool], tuple[list[int], bool]] = {}

    def encode(self, asked: Sequence[Sequence[Example]]) -> list[list[Branch]]:
        """The branches of some songs' examples."""
        examples = [example for own in asked for example in own]
        self._keep_questions(dict.fromkeys((e.instruction, e.with_lyrics) for e in examples))
        answers = encode_pieces_batch(self._tokenizer, [self._prompt.answer(e.answer) for e in examples])
        branches = map(self._make_branch, examples, answers)
        return [[next(branches) for _ in own] for own in asked]

    def _make_branch(self, example: Example, answer: list[int]) -> Branch:
        question, is_exact = self._kept[example.instruction, example.with_lyrics]
        return Branch(example, question, answer, self._task_index[example.task], is_exact)

    def _keep_questions(self, wanted: dict[tuple[str, bool], None]) -> None:
        if len(self._kept) > _MAX_KEPT:
            self._kept.clear()
        new = [question for question in wanted if question not in self._kept]
        following = [instruction for instruction, with_lyrics in new if with_lyrics]
        alone = [instruction for instruction, with_lyrics in new if not with_lyrics]
        frame = self._prompt.prefix("")
        questions = [self._prompt.question(instruction) for instruction in following]
        stretches = [*questions, *([*frame, *question] for question in questions)]
        stretches += [self._prompt.without_lyrics(instruction) for instruction in alone]
        ids = encode_pieces_batch(self._tokenizer, stretches)
        num = len(following)
        for instruction, own, whole in zip(following, ids[:num], ids[num : 2 * num], strict=True):
            self._kept[instruction, True] = own, whole == self.frame + own
        for instruction, own in zip(alone, ids[2 * num :], strict=True):
            self._kept[instruction, False] = own, True
