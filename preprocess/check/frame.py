"""What stays the same in every prompt of a data set, and what a prompt holds between its fixed parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from preprocess.forest import PackedRow, segment_starts
from preprocess.prompt import (
    AFTER_LYRICS,
    BEFORE_LYRICS,
    BEFORE_QUESTION,
    Piece,
    PromptFormat,
    encode_pieces,
    merge_pieces,
)
from preprocess.schema import ROOT, Int32Array
from preprocess.tokenizer import TextTokenizer

SPACES = " a  b\n\n c "


@dataclass(frozen=True, slots=True)
class Frame:
    """What a rendered prompt must begin and end with.

    Attributes:
        tokenizer: Of the ids.
        prompt: The format.
        opening_ids: int32[K], ids from the start up to the last special token before the lyrics (K may be 0).
        opening: Text from the start up to the lyrics.
        header_ids: int32[H], ids between question and answer, empty where they may merge with the question.
        header: Text between question and answer.
        lossless: Whether decoding gives back every space.
    """

    tokenizer: TextTokenizer
    prompt: PromptFormat
    opening_ids: Int32Array
    opening: str
    header_ids: Int32Array
    header: str
    lossless: bool

    def decode(self, ids: Int32Array) -> str:
        """The text of some ids, special tokens by their names."""
        return self.tokenizer.decode(ids.tolist())


def make_frame(tokenizer: TextTokenizer, prompt: PromptFormat) -> Frame:
    """What prompts in this format begin and end with."""
    opening = [*prompt.before_system, Piece(prompt.system), *prompt.after_system, Piece(BEFORE_LYRICS)]
    last_special = max((i + 1 for i, piece in enumerate(opening) if piece.special), default=0)
    header_ids = encode_pieces(tokenizer, prompt.after_question)
    return Frame(
        tokenizer=tokenizer,
        prompt=prompt,
        opening_ids=np.array(encode_pieces(tokenizer, opening[:last_special]), dtype=np.int32),
        opening=tokenizer.decode(encode_pieces(tokenizer, opening)),
        header_ids=np.array(header_ids if prompt.after_question[0].special else [], dtype=np.int32),
        header=tokenizer.decode(header_ids),
        lossless=tokenizer.decode(tokenizer.encode(SPACES)) == SPACES,
    )


def hash_prompt(prompt: PromptFormat) -> str:
    """Hex digest of a chat as the format renders it, with fixed lyrics, question and answer.

    It changes when anything in the format does: special tokens, system message, the words around the lyrics.
    """
    pieces = [
        *prompt.prefix("A line of lyrics\nand another one"),
        *prompt.question("What is this song about?"),
        *prompt.answer("It is about rain."),
    ]
    rendered = json.dumps([[piece.text, piece.special] for piece in merge_pieces(pieces)])
    return hashlib.sha256(rendered.encode()).hexdigest()


def read_lyrics(row: PackedRow, frame: Frame) -> Iterator[tuple[str, str]]:
    """(song id, lyrics) of each tree of a row, as far as it holds lyrics."""
    for segment, start in enumerate(segment_starts(row).tolist()):
        if row.parents[segment] == ROOT:
            text = frame.decode(row.input_ids[start : start + int(row.seq_lens[segment])])
            lyrics, end, _ = text.removeprefix(frame.opening).rpartition(AFTER_LYRICS)
            if end and text.startswith(frame.opening):
                yield row.song_ids[segment], lyrics


def rendering_problem(example: PackedRow, frame: Frame) -> str | None:
    """What differs when an example is decoded, taken apart, and rendered by the format again.

    Args:
        example: Unpacked: one segment, its prefix repeated.
        frame: Of its format.
    """
    question, answer = example.input_ids[~example.label_mask], example.input_ids[example.label_mask]
    text = frame.decode(question)
    body = text.removeprefix(frame.opening).removesuffix(frame.header)
    lyrics, middle, instruction = body.rpartition(AFTER_LYRICS + BEFORE_QUESTION)
    if not middle:
        return f"has no question after its lyrics, but {text[-80:]!r}"
    pieces = [*frame.prompt.prefix(lyrics), *frame.prompt.question(instruction)]
    if not _same(question, encode_pieces(frame.tokenizer, pieces), frame):
        return f"asks {instruction[:60]!r} in other ids than the format renders"
    said = frame.decode(answer[:-1])
    if not _same(answer, encode_pieces(frame.tokenizer, frame.prompt.answer(said)), frame):
        return f"answers {said[:60]!r} in other ids than the format renders"
    return None


def _same(ids: Int32Array, rendered: list[int], frame: Frame) -> bool:
    """The same ids; or the same text, where decoding loses spaces, so that the text cannot give the ids back."""
    if ids.tolist() == rendered:
        return True
    return not frame.lossless and frame.decode(ids) == frame.tokenizer.decode(rendered)
