"""How a song and a question become tokens: one renderer for training, evaluation and inference.

The lyrics come first and the question after them, so that all questions about a song share a prefix::

    system, user header, lyrics, "End of the lyrics"      the shared prefix
    question, end of turn, assistant header               a branch's prompt
    answer, end of turn                                   supervised

Each format holds no date and no default system message, so the same song gives the same ids on any day. The
prefix ends in a letter and a branch starts with a line break: every byte-level tokenizer splits there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from preprocess.errors import ConfigError
from preprocess.tokenizer import TextTokenizer

DEFAULT_SYSTEM = "You are an expert on song lyrics."
BEFORE_LYRICS = "Here are the lyrics of a song.\n\n"
AFTER_LYRICS = "\n\nEnd of the lyrics"
BEFORE_QUESTION = ".\n\n"

FormatName = Literal["chatml", "llama3", "plain"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered chat: ordinary text, or the name of one special token."""

    text: str
    special: bool = False


def _special(token: str) -> Piece:
    return Piece(token, special=True)


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """One family of chat templates.

    Attributes:
        name: Which family.
        before_system: What opens the chat, up to the system message.
        after_system: From the end of the system message to the start of the user's.
        after_question: From the end of the user's message to the start of the answer.
        stop_token: The special token that ends an answer, on which generation stops.
        system: The system message.
    """

    name: FormatName
    before_system: tuple[Piece, ...]
    after_system: tuple[Piece, ...]
    after_question: tuple[Piece, ...]
    stop_token: str
    system: str = DEFAULT_SYSTEM

    def prefix(self, lyrics: str) -> list[Piece]:
        """The shared prefix: everything up to and including the lyrics."""
        opening = [*self.before_system, Piece(self.system), *self.after_system]
        return [*opening, Piece(BEFORE_LYRICS + lyrics + AFTER_LYRICS)]

    def question(self, instruction: str) -> list[Piece]:
        """A branch's prompt: the question and everything up to the first token of the answer."""
        return [Piece(BEFORE_QUESTION + instruction), *self.after_question]

    def answer(self, text: str) -> list[Piece]:
        """The supervised part: the answer and the token that ends it."""
        return [Piece(text), _special(self.stop_token)]


def find_format(tokenizer: TextTokenizer, system: str = DEFAULT_SYSTEM) -> PromptFormat:
    """The chat format that a tokenizer's special tokens belong to.

    Raises:
        ConfigError: The tokenizer is of a family whose format is not known here.
    """
    if tokenizer.has_token("<|im_start|>") and tokenizer.has_token("<|im_end|>"):
        return _chatml(system)
    if tokenizer.has_token("<|start_header_id|>") and tokenizer.has_token("<|eot_id|>"):
        return _llama3(system)
    if tokenizer.has_token("[INST]"):
        raise ConfigError(
            f"tokenizer {tokenizer.source}: its chat format ([INST] … [/INST]) is not supported yet; "
            "supported are ChatML (<|im_start|>), Llama 3 (<|start_header_id|>) and base models"
        )
    for stop_token in ("<|endoftext|>", "<|end_of_text|>", "</s>"):
        if tokenizer.has_token(stop_token):
            return _plain(system, stop_token)
    raise ConfigError(
        f"tokenizer {tokenizer.source}: found no token that ends an answer (looked for <|im_end|>, <|eot_id|>, "
        "<|endoftext|>, <|end_of_text|>, </s>)"
    )


def _chatml(system: str) -> PromptFormat:
    turn = (_special("<|im_end|>"), Piece("\n"), _special("<|im_start|>"))
    return PromptFormat(
        name="chatml",
        before_system=(_special("<|im_start|>"), Piece("system\n")),
        after_system=(*turn, Piece("user\n")),
        after_question=(*turn, Piece("assistant\n")),
        stop_token="<|im_end|>",
        system=system,
    )


def _llama3(system: str) -> PromptFormat:
    def header(role: str) -> tuple[Piece, ...]:
        return (_special("<|start_header_id|>"), Piece(role), _special("<|end_header_id|>"), Piece("\n\n"))

    return PromptFormat(
        name="llama3",
        before_system=(_special("<|begin_of_text|>"), *header("system")),
        after_system=(_special("<|eot_id|>"), *header("user")),
        after_question=(_special("<|eot_id|>"), *header("assistant")),
        stop_token="<|eot_id|>",
        system=system,
    )


def _plain(system: str, stop_token: str) -> PromptFormat:
    return PromptFormat(
        name="plain",
        before_system=(),
        after_system=(Piece("\n\n"),),
        after_question=(Piece("\n\nAnswer:\n"),),
        stop_token=stop_token,
        system=system,
    )


def merge_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """Join neighbouring texts, so that a tokenizer sees each stretch between special tokens whole."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and not piece.special and not merged[-1].special:
            merged[-1] = Piece(merged[-1].text + piece.text)
        elif piece.text:
            merged.append(piece)
    return merged


def encode_pieces(tokenizer: TextTokenizer, pieces: Sequence[Piece]) -> list[int]:
    """Ids of a rendered stretch. Text never turns into a special token."""
    ids: list[int] = []
    for piece in merge_pieces(pieces):
        ids += [tokenizer.special_id(piece.text)] if piece.special else tokenizer.encode(piece.text)
    return ids
