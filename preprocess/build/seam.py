"""Where a shared prefix ends and a branch begins: are the ids of the two, one behind the other, those of the whole?

**A tokenizer that splits text into words by a known pattern** (byte-level BPE). The prefix ends in "End of the lyrics",
the branch begins with a full stop and two line breaks. No alternative of a known pattern matches a letter and then a
full stop, and a run of letters ends before one as it ends at the end of the text; so the last word of the prefix is the
same with and without what follows. None of the patterns looks back, so the first word of the branch is the same too.
Words are merged one by one. Which lyrics stand before and which question follows does not matter.

**A tokenizer that reads a space before every text** (sentencepiece BPE). There the prefix ends in a full stop, and the
branch begins with a space, which the tokenizer adds by itself when it reads the branch alone. If no token of the
vocabulary holds a space behind another character, no merge crosses the seam; a merge looks only at the two neighbours
that it joins, so the two sides are merged as if each were alone.

In both cases both sides of the seam are constant text, so one comparison for each question settles it for all songs.
Any other tokenizer is compared example by example.
"""

from __future__ import annotations

import hashlib
import json

from preprocess.tokenizer import TextTokenizer
from preprocess.tokenizer.judge import find_pattern

ONE_IN = 100
"""Of so many songs one is compared in full all the same."""

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How sentencepiece spells a space."""


def is_constant(tokenizer: TextTokenizer) -> bool:
    """Whether the seam depends on neither the lyrics nor the song."""
    return _splits_words(tokenizer) or _begins_tokens_at_spaces(tokenizer)


def is_checked_in_full(song_id: str) -> bool:
    """Whether a song is one of those that are compared in full: the same ones in every build."""
    return int.from_bytes(hashlib.sha256(song_id.encode(errors="replace")).digest()[:4]) % ONE_IN == 0


def _splits_words(tokenizer: TextTokenizer) -> bool:
    pre_tokenizer, normalizer = tokenizer.backend.pre_tokenizer, tokenizer.backend.normalizer
    if pre_tokenizer is None or not _is_composition(
        None if normalizer is None else normalizer.__getstate__()
    ):
        return False
    return find_pattern(json.loads(pre_tokenizer.__getstate__())) is not None


def _is_composition(normalizer: bytes | None) -> bool:
    """Whether a normaliser does nothing, or only composes accents: no letter is composed with a full stop."""
    return normalizer is None or json.loads(normalizer)["type"] in ("NFC", "NFKC", "NFD", "NFKD")


def _begins_tokens_at_spaces(tokenizer: TextTokenizer) -> bool:
    if not tokenizer.prepends_space:
        return False
    tokens = tokenizer.backend.get_vocab(with_added_tokens=False)
    return not any(_SPACE in token.lstrip(_SPACE) for token in tokens)
