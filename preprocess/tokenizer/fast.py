"""tiktoken in the place of a tokenizer's own encoding. Why it may stand there: `preprocess.tokenizer.judge`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tiktoken
from tokenizers import Tokenizer

from preprocess.tokenizer.byte_level import spell, spell_vocab

_MAX_CHARS = 100_000
_MAX_LINE_CHARS = 2_000
_DROPPED = 1 << 30
"""Ids from here on stand for bytes that the vocabulary lacks; `tokenizers` passes over them in silence."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether tiktoken may stand in for a tokenizer. It pickles, and spares another process the judging.

    Attributes:
        name: "tiktoken", or "tokenizers: " and the reason.
        pattern: How to split a text into words, or None where tiktoken may not.
        left_out: Tokens that no merge makes and that no word is taken for.
        guards: Strings that `tokenizers` reads as tokens wherever they stand; a text with one is left to it.
    """

    name: str
    pattern: str | None = None
    left_out: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()


class FastEncoder:
    """tiktoken with a tokenizer's vocabulary, words and ids."""

    def __init__(
        self, backend: Tokenizer, verdict: Verdict, ranks: Mapping[bytes, int] | None = None
    ) -> None:
        """Set up.

        Args:
            backend: The tokenizer.
            verdict: What was judged of it.
            ranks: `spell_vocab` of it, where it is at hand.
        """
        assert verdict.pattern is not None
        ranks = dict(spell_vocab(text_vocab(backend)) if ranks is None else ranks)
        for token in verdict.left_out:
            ranks.pop(spell(token), None)
        dropped = {bytes([b]): _DROPPED + b for b in range(256) if bytes([b]) not in ranks}
        self._encoding = tiktoken.Encoding(
            "fast", pat_str=verdict.pattern, mergeable_ranks=ranks | dropped, special_tokens={}
        )
        self._backend = backend
        self._normalizer = backend.normalizer
        self._drops = bool(dropped)
        self._guards = verdict.guards

    def takes(self, text: str) -> bool:
        """Whether a text may be encoded here.

        Not when it is very long or has a very long line (the pattern's engine gives up after a million steps, and a
        word's merges take the square of its length), when it holds a guarded string, or half of a surrogate pair.
        """
        if len(text) > _MAX_LINE_CHARS and (
            len(text) > _MAX_CHARS or max(map(len, text.split("\n"))) > _MAX_LINE_CHARS
        ):
            return False
        if not text.isascii() and not _is_well_formed(text):
            return False
        return not self._guards or not any(guard in text for guard in self._guards)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that `takes` lets in. None of them is a special token."""
        normal = text if self._normalizer is None else self._normalizer.normalize_str(text)
        ids = self._encoding.encode_ordinary(normal)
        if self._drops and ids and max(ids) >= _DROPPED:
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        return ids


def _is_well_formed(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_vocab(backend: Tokenizer) -> dict[str, int]:
    """The vocabulary without the added tokens."""
    vocab: dict[str, int] = backend.get_vocab(with_added_tokens=False)
    for token in backend.get_added_tokens_decoder().values():
        vocab.pop(token.content, None)
    return vocab
