"""The questions as documents of the lm-evaluation-harness: one a question, with everything that its score needs.

A closed set is ranked by "multiple_choice" (the prompt as context, "The artist is X." as continuations), an answer in
words written by "generate_until". Prompts are text with special tokens by their names, which a Hugging Face tokenizer
reads back; a question whose text does not give its very ids again (lyrics that spell a special token) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from tokenizers import Tokenizer

from harness.evaluation.material import Asked
from harness.evaluation.questions import TaskLabels
from harness.evaluation.settings import Method
from preprocess.schema import Song
from preprocess.tokenizer import TextTokenizer

VERSION = 1
OUTPUT_TYPES: dict[Method, str] = {"rank": "multiple_choice", "generate": "generate_until"}

Document = dict[str, Any]


def name_task(task: str, method: Method, split: str) -> str:
    """Name of a task there, as in "lyrics_artist_rank"; of another split than eval the split's name behind it."""
    return f"lyrics_{task}_{method}" + ("" if split == "eval" else f"_{split}")


def spell_choices(labels: TaskLabels) -> list[str]:
    """What is ranked: each name in the form of an answer."""
    return [f"{labels.stem}{name}." for name in labels.train_counts]


def make_document(asked: Asked, prompt: str, method: Method, labels: TaskLabels | None) -> Document:
    """A question as a document.

    Args:
        asked: The question.
        prompt: Its text, special tokens by their names.
        method: How it is asked.
        labels: Its closed set, None for other tasks.
    """
    common = {"song_id": asked.question.song_id, "task": asked.question.task, "prompt": prompt}
    if method == "rank":
        assert labels is not None
        names = list(labels.train_counts)
        return {**common, "choices": spell_choices(labels), "label": names.index(asked.label or "")}
    return {
        **common,
        "question": asked.text,
        "expected": asked.truth.expected,
        "themes": list(asked.truth.themes),
        "names": list(asked.truth.names),
        "song": asdict(asked.truth.song),
    }


def song_of(document: Document) -> Song:
    """The song that a document is about."""
    return Song(**{**document["song"], "themes": tuple(document["song"]["themes"])})


def counted(asked: Iterable[Asked], task: str, method: Method) -> list[Asked]:
    """The questions of a task that count: those whose name training has seen, where there is one."""
    return [
        one
        for one in asked
        if one.question.task == task and one.is_seen and (method == "generate" or one.label is not None)
    ]


def read_backend(tokenizer: TextTokenizer) -> Tokenizer:
    """The tokenizer as transformers has it, which reads the names of special tokens in a text as those tokens."""
    backend = Tokenizer.from_str(tokenizer.to_json())
    backend.encode_special_tokens = False
    return backend


def gives_back(backend: Tokenizer, text: str, ids: Sequence[int]) -> bool:
    """Whether a text gives these ids there."""
    return list(backend.encode(text, add_special_tokens=False).ids) == list(ids)
