"""How a song and a question become tokens: one renderer for training, evaluation and inference.

The lyrics come first and the question after them, so that all questions about a song share a prefix::

    system, user header, lyrics, "End of the lyrics"      the shared prefix
    question, end of turn, assistant header               a branch's prompt
    answer, end of turn                                   supervised

Each format holds no date and no default system message, so the same song gives the same ids on any day. The
prefix ends in a letter and a branch starts with a full stop: every byte-level tokenizer splits there. For a tokenizer
that reads a space before every text (sentencepiece) the prefix ends in the full stop and a branch starts with a space,
which is where such a tokenizer's tokens begin; see `preprocess.build.seam`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from preprocess.errors import ConfigError
from preprocess.tokenizer import SECTION_TOKENS, TextTokenizer

DEFAULT_SYSTEM = "You are an expert on song lyrics."
BEFORE_LYRICS = "Here are the lyrics of a song.\n\n"
AFTER_LYRICS = "\n\nEnd of the lyrics"
BEFORE_QUESTION = ".\n\n"

FormatName = Literal["chatml", "llama3", "mistral-v1", "mistral-v3", "mistral-v7", "plain"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered chat.

    Attributes:
        text: Ordinary text, or the name of one special token.
        special: Whether it is the name of a special token.
        continues: Whether the text goes on after a text that is encoded apart from it.
    """

    text: str
    special: bool = False
    continues: bool = False


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
        after_lyrics: Text that ends the shared prefix.
        before_question: Text that begins a branch.
        before_answer: Text between what the prompt ends in and the answer; trained with it.
        section_tokens: Headings that are tokens where they are a line of their own.
    """

    name: FormatName
    before_system: tuple[Piece, ...]
    after_system: tuple[Piece, ...]
    after_question: tuple[Piece, ...]
    stop_token: str
    system: str = DEFAULT_SYSTEM
    after_lyrics: str = AFTER_LYRICS
    before_question: str = BEFORE_QUESTION
    before_answer: str = ""
    section_tokens: tuple[str, ...] = ()

    def prefix(self, lyrics: str) -> list[Piece]:
        """The shared prefix: everything up to and including the lyrics."""
        return [*self._opening(), Piece(BEFORE_LYRICS), *self._sung(lyrics), Piece(self.after_lyrics)]

    def question(self, instruction: str) -> list[Piece]:
        """A branch's prompt: the question and everything up to the first token of the answer."""
        return [Piece(self.before_question + instruction, continues=True), *self.after_question]

    def without_lyrics(self, instruction: str) -> list[Piece]:
        """The whole prompt of a question that follows no lyrics, up to the first token of the answer."""
        return [*self._opening(), Piece(instruction), *self.after_question]

    def answer(self, text: str) -> list[Piece]:
        """The supervised part: the answer and the token that ends it."""
        opening = [Piece(self.before_answer, continues=True)] if self.before_answer else []
        return [*opening, *self._sung(text), _special(self.stop_token)]

    def _opening(self) -> list[Piece]:
        return [*self.before_system, Piece(self.system), *self.after_system]

    def _sung(self, text: str) -> list[Piece]:
        """A text whose lines may be headings that are tokens. A heading in the middle of a line stays text."""
        if not self.section_tokens or "[" not in text:
            return [Piece(text)]
        pieces: list[Piece] = []
        for number, line in enumerate(text.split("\n")):
            pieces += [Piece("\n")] if number else []
            pieces.append(Piece(line, special=line in self.section_tokens))
        return pieces


def find_format(
    tokenizer: TextTokenizer, system: str = DEFAULT_SYSTEM, name: FormatName | None = None
) -> PromptFormat:
    """The chat format that a tokenizer belongs to.

    Args:
        tokenizer: Its special tokens tell the family, and between a base model and Mistral's first instruction models,
            which have the same tokens, its chat template does.
        system: The system message.
        name: Take this family instead, as when a data set says of itself which it has.

    Raises:
        ConfigError: The tokenizer is of a family whose format is not known here, or lacks the tokens of `name`.
    """
    known = _render_family(name or _find_family(tokenizer), tokenizer, system)
    if tokenizer.prepends_space:
        known = _after_spaces(known)
    for piece in (*known.before_system, *known.after_system, *known.after_question):
        if piece.special:
            tokenizer.special_id(piece.text)
    has_sections = all(tokenizer.has_added_token(token) for token in SECTION_TOKENS)
    return replace(known, section_tokens=SECTION_TOKENS) if has_sections else known


def _find_family(tokenizer: TextTokenizer) -> FormatName:
    if tokenizer.has_token("<|im_start|>") and tokenizer.has_token("<|im_end|>"):
        return "chatml"
    if tokenizer.has_token("<|start_header_id|>") and tokenizer.has_token("<|eot_id|>"):
        return "llama3"
    if tokenizer.has_token("[INST]") and tokenizer.has_token("[/INST]"):
        return "mistral-v7" if tokenizer.has_token("[SYSTEM_PROMPT]") else "mistral-v3"
    if "[INST]" in (tokenizer.chat_template or "") and "<<SYS>>" not in (tokenizer.chat_template or ""):
        return "mistral-v1"
    return "plain"


def _render_family(name: FormatName, tokenizer: TextTokenizer, system: str) -> PromptFormat:
    if name == "chatml":
        return _chatml(system)
    if name == "llama3":
        return _llama3(system)
    if name == "plain":
        return _plain(system, _find_stop_token(tokenizer))
    if name in ("mistral-v1", "mistral-v3", "mistral-v7"):
        return _mistral(name, system)
    raise ConfigError(f"prompt format {name!r} is not known here; the tokenizer is {tokenizer.source}")


def _find_stop_token(tokenizer: TextTokenizer) -> str:
    for stop_token in ("<|endoftext|>", "<|end_of_text|>", "</s>"):
        if tokenizer.has_token(stop_token):
            return stop_token
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


def _mistral(name: FormatName, system: str) -> PromptFormat:
    """Mistral's formats (mistral-common, `InstructTokenizerV1` to `V7`).

    Version 1 spells [INST] in text, with spaces around what is inside; versions 2 and 3 have tokens for it and no
    spaces. Neither has a turn for the system message, which opens the user's; version 7 has one.
    """
    separator = (Piece("\n\n"),) if system else ()
    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    if name == "mistral-v1":
        before, after, end = (Piece("[INST] "),), separator, (Piece(" [/INST]"),)
    elif name == "mistral-v3" or not system:
        before, after, end = (_special("[INST]"),), separator, (_special("[/INST]"),)
    else:
        before, end = (_special("[SYSTEM_PROMPT]"),), (_special("[/INST]"),)
        after = (_special("[/SYSTEM_PROMPT]"), _special("[INST]"))
    return PromptFormat(
        name=name,
        before_system=(_special("<s>"), *before),
        after_system=after,
        after_question=end,
        stop_token="</s>",
        system=system,
        before_answer=" " if name == "mistral-v1" else "",
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


def _after_spaces(known: PromptFormat) -> PromptFormat:
    """The format with its seams at spaces, for a tokenizer that reads a space before every text."""
    seams = replace(known, after_lyrics=AFTER_LYRICS + ".", before_question=" ")
    if known.name == "plain":
        return replace(seams, after_question=(Piece("\n\nAnswer:"),), before_answer=" ")
    return seams


def merge_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """Join neighbouring texts, so that a tokenizer sees each stretch between special tokens whole."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and not piece.special and not merged[-1].special:
            merged[-1] = Piece(merged[-1].text + piece.text, continues=merged[-1].continues)
        elif piece.text:
            merged.append(piece)
    return merged


def encode_pieces(tokenizer: TextTokenizer, pieces: Sequence[Piece]) -> list[int]:
    """Ids of a rendered stretch. Text never turns into a special token."""
    ids: list[int] = []
    for piece in merge_pieces(pieces):
        if piece.special:
            ids.append(tokenizer.special_id(piece.text))
        elif piece.continues:
            ids += tokenizer.encode_continuation(piece.text)
        else:
            ids += tokenizer.encode(piece.text)
    return ids


def encode_pieces_batch(tokenizer: TextTokenizer, stretches: Sequence[Sequence[Piece]]) -> list[list[int]]:
    """Ids of many rendered stretches, as `encode_pieces` gives them, each text encoded once."""
    merged = [merge_pieces(pieces) for pieces in stretches]
    strips = tokenizer.prepends_space
    texts = dict.fromkeys(_read(p, strips=strips) for pieces in merged for p in pieces if not p.special)
    ids_of = dict(zip(texts, tokenizer.encode_batch(list(texts)), strict=True))
    specials: dict[str, int] = {}
    batch: list[list[int]] = []
    for pieces in merged:
        ids: list[int] = []
        for piece in pieces:
            if not piece.special:
                ids += ids_of[_read(piece, strips=strips)]
                continue
            if piece.text not in specials:
                specials[piece.text] = tokenizer.special_id(piece.text)
            ids.append(specials[piece.text])
        batch.append(ids)
    return batch


def _read(piece: Piece, *, strips: bool) -> str:
    """What the tokenizer is given of a text; see `TextTokenizer.encode_continuation`."""
    return piece.text.removeprefix(" ") if strips and piece.continues else piece.text
