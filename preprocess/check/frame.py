"""What stays the same in every prompt of a data set, and what a prompt holds between its fixed parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from preprocess.forest import PackedRow, segment_starts
from preprocess.prompt import (
    BEFORE_LYRICS,
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
        bare_opening: Text from the start up to a question that follows no lyrics; `opening` begins with it.
        header_ids: int32[H], ids between question and answer, empty where they may merge with the question.
        header: Text between question and answer.
        lossless: Whether decoding gives back every space.
    """

    tokenizer: TextTokenizer
    prompt: PromptFormat
    opening_ids: Int32Array
    opening: str
    bare_opening: str
    header_ids: Int32Array
    header: str
    lossless: bool

    def decode(self, ids: Int32Array) -> str:
        """The text of some ids, special tokens by their names."""
        return self.tokenizer.decode(ids.tolist())

    @property
    def seam(self) -> str:
        """Text between lyrics and question."""
        return self.prompt.after_lyrics + self.prompt.before_question


def make_frame(tokenizer: TextTokenizer, prompt: PromptFormat) -> Frame:
    """What prompts in this format begin and end with."""
    bare = [*prompt.before_system, Piece(prompt.system), *prompt.after_system]
    last_special = max((i + 1 for i, piece in enumerate(bare) if piece.special), default=0)
    header_ids = encode_pieces(tokenizer, prompt.after_question)
    return Frame(
        tokenizer=tokenizer,
        prompt=prompt,
        opening_ids=np.array(encode_pieces(tokenizer, bare[:last_special]), dtype=np.int32),
        opening=tokenizer.decode(encode_pieces(tokenizer, [*bare, Piece(BEFORE_LYRICS)])),
        bare_opening=tokenizer.decode(encode_pieces(tokenizer, bare)),
        header_ids=np.array(header_ids if prompt.after_question[0].special else [], dtype=np.int32),
        header=tokenizer.decode(header_ids),
        lossless=tokenizer.decode(tokenizer.encode(SPACES)) == SPACES,
    )


def hash_prompt(prompt: PromptFormat) -> str:
    """Hex digest of a chat as the format renders it, with fixed lyrics, question and answer.

    It changes when anything in the format does: special tokens, system message, the words around the lyrics.
    """
    question = "What is this song about?"
    chats = [
        [*prompt.prefix("[VERSE]\nA line of lyrics\nand another one"), *prompt.question(question)],
        prompt.without_lyrics(question),
        prompt.answer("[VERSE]\nIt is about rain."),
    ]
    rendered = json.dumps(
        [[[piece.text, piece.special, piece.continues] for piece in merge_pieces(chat)] for chat in chats]
    )
    return hashlib.sha256(rendered.encode()).hexdigest()


def read_lyrics(row: PackedRow, frame: Frame) -> Iterator[tuple[str, str]]:
    """(song id, lyrics) of each tree of a row, as far as it holds lyrics."""
    for segment, start in enumerate(segment_starts(row).tolist()):
        if row.parents[segment] == ROOT:
            text = frame.decode(row.input_ids[start : start + int(row.seq_lens[segment])])
            lyrics, end, _ = text.removeprefix(frame.opening).rpartition(frame.prompt.after_lyrics)
            if end and text.startswith(frame.opening):
                yield row.song_ids[segment], lyrics


def rendering_problem(example: PackedRow, frame: Frame) -> str | None:
    """What differs when an example is decoded, taken apart, and rendered by the format again.

    Args:
        example: Unpacked: one segment, its prefix repeated.
        frame: Of its format.
    """
    question, answer = example.input_ids[~example.label_mask], example.input_ids[example.label_mask]
    lyrics, instruction = take_apart(frame.decode(question), frame)
    rendered = encode_pieces(frame.tokenizer, _render(lyrics, instruction, frame.prompt))
    if not _same(question, rendered, frame):
        return f"asks {instruction[-60:]!r} in other ids than the format renders"
    said = frame.decode(answer[:-1]).removeprefix(frame.prompt.before_answer)
    if not _same(answer, encode_pieces(frame.tokenizer, frame.prompt.answer(said)), frame):
        return f"answers {said[:60]!r} in other ids than the format renders"
    return None


def take_apart(text: str, frame: Frame) -> tuple[str | None, str]:
    """The lyrics of a whole prompt, None where its question follows none, and the question."""
    body = text.removesuffix(frame.header)
    lyrics, seam, instruction = body.removeprefix(frame.opening).rpartition(frame.seam)
    if seam and text.startswith(frame.opening):
        return lyrics, instruction
    return None, body.removeprefix(frame.bare_opening)


def _render(lyrics: str | None, instruction: str, prompt: PromptFormat) -> list[Piece]:
    if lyrics is None:
        return prompt.without_lyrics(instruction)
    return [*prompt.prefix(lyrics), *prompt.question(instruction)]


def _same(ids: Int32Array, rendered: list[int], frame: Frame) -> bool:
    """The same ids; or the same text, where decoding loses spaces, so that the text cannot give the ids back."""
    if ids.tolist() == rendered:
        return True
    return not frame.lossless and frame.decode(ids) == frame.tokenizer.decode(rendered)
