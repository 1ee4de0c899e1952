r"""tiktoken in the place of `tokenizers`, where its ids are proven to be the same.

Both split a text into words by a pattern and merge the bytes of a word pair by pair. Their ids are equal when

1. **the words are equal.** The pattern is one of the known ones; both engines match alternatives from left to right,
   so they can differ only in what belongs to a class (`\p{L}`, `\s`, …: each library carries its own edition of
   Unicode) or in what "'s" matches blind to case. The classes are compared for every character.
2. **the merges are equal.** `tokenizers` merges the adjacent pair that stands first in its list, tiktoken the pair
   whose join has the lowest id; of equals both take the leftmost. Call a token reached when the list merges its own
   bytes to it. Let the ids along the list never fall, and let each token be reached, or each of its splits into two
   tokens be in the list. By induction over the steps: up to the moment when tiktoken joins (x, y) to t, nothing has
   crossed the ends of t, so inside t happened exactly what happens to t alone. If t is reached, (x, y) is therefore
   its last step in the list; if not, (x, y) is in the list as one of its splits. So the list's first pair makes a
   token of an id no higher than t's, for the ids never fall, and no lower, for it is a pair that tiktoken could have
   taken. Two splits of one t cannot stand side by side, for both would be what happens to t alone.
3. **a whole word that is a token is that token.** tiktoken looks it up first, and so does `ignore_merges`. Without
   it, the tokens that are not reached are kept out of tiktoken's vocabulary: inside a word no merge makes them either.

These are read off the tokenizer itself (`judge`), which then has to encode every token of the vocabulary and some texts
in many scripts the same way, both ways. Anything else leaves the ids to `tokenizers`, and says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import tiktoken
from tokenizers import Regex, Tokenizer, pre_tokenizers

from preprocess.tokenizer.byte_level import (
    DIGITS_GPT2_PATTERN,
    GPT2_PATTERN,
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    TEKKEN_PATTERN,
    splits_of,
    unspell,
)
from preprocess.tokenizer.probes import CONTRACTIONS, PROBES

_CLASSES = {
    LLAMA3_PATTERN: (r"\p{L}", r"\p{N}", r"\s"),
    QWEN2_PATTERN: (r"\p{L}", r"\p{N}", r"\s"),
    GPT2_PATTERN: (r"\p{L}", r"\p{N}", r"\s"),
    DIGITS_GPT2_PATTERN: (r"\p{L}", r"\p{N}", r"\s"),
    TEKKEN_PATTERN: (
        *(r"\p{L}", r"\p{N}", r"\s", r"\p{Lu}", r"\p{Lt}", r"\p{Lm}", r"\p{Lo}", r"\p{Ll}", r"\p{M}"),
    ),
}
"""The known patterns and the classes of characters in them."""

_MAX_CHARS = 100_000
_MAX_LINE_CHARS = 2_000
_MAX_GUARDS = 64
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

    def __init__(self, backend: Tokenizer, verdict: Verdict, vocab: Mapping[str, int] | None = None) -> None:
        assert verdict.pattern is not None
        left_out = frozenset(verdict.left_out)
        known = text_vocab(backend) if vocab is None else vocab
        ranks = {_spelled(token): i for token, i in known.items() if token not in left_out}
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


def _spelled(token: str) -> bytes:
    spelled = unspell(token)
    assert spelled is not None, "a vocabulary that `judge` has passed"
    return spelled


def _is_well_formed(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_verdicts: dict[str, Verdict] = {}


def judge(backend: Tokenizer, sha256: str) -> Verdict:
    """Whether tiktoken gives the ids of a tokenizer. Judged once for each `sha256` in a process."""
    if sha256 not in _verdicts:
        _verdicts[sha256] = _judge(backend)
    return _verdicts[sha256]


def _judge(backend: Tokenizer) -> Verdict:
    content: dict[str, Any] = json.loads(backend.to_str())
    model, added = content["model"], content["added_tokens"]
    pattern = find_pattern(content["pre_tokenizer"])
    if model.get("type", "BPE") != "BPE" or pattern is None:
        return Verdict("tokenizers: not a byte-level BPE that splits words by a known pattern")
    if any(
        model.get(key) for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    ):
        return Verdict("tokenizers: its BPE has options that tiktoken lacks")
    guards = _guards(backend, added)
    if len(guards) > _MAX_GUARDS:
        return Verdict(f"tokenizers: {len(guards)} added tokens are read out of text")
    vocab = text_vocab(backend)
    looks_up = bool(model.get("ignore_merges"))
    left_out = _not_reached(backend, vocab, looks_up=looks_up)
    problem = (
        _vocabulary_problem(vocab, looks_up=looks_up)
        or _order_problem(model["merges"], vocab, left_out, looks_up=looks_up)
        or _class_problem(pattern)
    )
    if problem is not None:
        return Verdict(f"tokenizers: {problem}")
    verdict = Verdict("tiktoken", pattern, () if looks_up else left_out, guards)
    differing = _num_probes_that_differ(backend, verdict, vocab, [token["content"] for token in added])
    return verdict if not differing else Verdict(f"tokenizers: {differing} of the probed texts differ")


def find_pattern(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """The known pattern that a pre-tokenizer stands for."""
    if pre_tokenizer is None:
        return None
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    if steps[-1]["use_regex"]:
        digits = {"type": "Digits", "individual_digits": True}
        return {0: GPT2_PATTERN}.get(len(steps) - 1, DIGITS_GPT2_PATTERN if steps[:-1] == [digits] else None)
    if len(steps) != 2 or steps[0]["type"] != "Split":
        return None
    split = steps[0]
    pattern = split["pattern"].get("Regex")
    plain = split["behavior"] == "Isolated" and not split["invert"]
    return pattern if plain and pattern in _CLASSES else None


def _guards(backend: Tokenizer, added: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Added tokens that are not special are found in any text, as they stand or as the normaliser leaves them."""
    read = [str(token["content"]) for token in added if not token["special"]]
    normalizer = backend.normalizer
    normal = [] if normalizer is None else [normalizer.normalize_str(token) for token in read]
    return tuple(dict.fromkeys([*read, *normal]))


def text_vocab(backend: Tokenizer) -> dict[str, int]:
    """The vocabulary without the added tokens."""
    vocab: dict[str, int] = backend.get_vocab(with_added_tokens=False)
    for token in backend.get_added_tokens_decoder().values():
        vocab.pop(token.content, None)
    return vocab


def _vocabulary_problem(vocab: Mapping[str, int], *, looks_up: bool) -> str | None:
    spelled = [unspell(token) for token in vocab]
    if None in spelled:
        return "its vocabulary is not spelled in bytes"
    if looks_up and sum(token is not None and len(token) == 1 for token in spelled) < 256:
        return "its vocabulary lacks some bytes"
    return None


def _not_reached(backend: Tokenizer, vocab: Mapping[str, int], *, looks_up: bool) -> tuple[str, ...]:
    """Tokens that the merges do not make of their own bytes, in the order of their ids."""
    model = backend.model
    model.ignore_merges = False
    try:
        tokenize = model.tokenize
        lost = [token for token, i in vocab.items() if [part.id for part in tokenize(token)] != [i]]
    finally:
        model.ignore_merges = looks_up
    return tuple(sorted(lost, key=vocab.__getitem__))


def _order_problem(
    merges: Sequence[Sequence[str] | str],
    vocab: Mapping[str, int],
    not_reached: Sequence[str],
    *,
    looks_up: bool,
) -> str | None:
    """What keeps the list of merges from being the order of the ids.

    Args:
        merges: Pairs, or texts with a space between.
        vocab: Ids of the tokens.
        not_reached: Those that the merges do not make.
        looks_up: Whether a word that is a token is taken without merging, so that all tokens count.
    """
    joined = ["".join(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in merges]
    if any(token not in vocab for token in joined):
        return "a merge makes an added token"
    made = [vocab[token] for token in joined]
    if not looks_up:
        lost = {vocab[token] for token in not_reached}
        made = [i for i in made if i not in lost]
    if any(later < earlier for earlier, later in pairwise(made)):
        return "its merges are not in the order of its ids"
    lost_splits = {split for token in not_reached for split in splits_of(token, vocab)} if looks_up else set()
    listed = {tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in merges}
    missing = lost_splits - listed
    return f"{len(missing)} pairs that make a token are not among its merges" if missing else None


def _class_problem(pattern: str) -> str | None:
    """What the two engines see differently in a pattern's classes of characters."""
    differing = sum(class_difference(name) for name in _CLASSES[pattern])
    if pattern == DIGITS_GPT2_PATTERN:
        differing += difference_of_digits()
    if "(?i:" in pattern:
        differing += contraction_difference("".join(CONTRACTIONS))
    return f"{differing} characters differ in class" if differing else None


@cache
def every_character() -> str:
    """Every character of the planes that hold letters, numbers or spaces: 0 to 3 and 14; no other plane has any."""
    ranges = (range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xF0000))
    return "".join(map(chr, (code for codes in ranges for code in codes)))


@cache
def class_difference(name: str) -> int:
    """Number of characters of which only one engine says that they are of a class, as in p{L}."""
    text = every_character()
    theirs, ours = found_by_tokenizers(f"{name}+", text), found_by_tiktoken(name, text)
    return 0 if theirs == ours else len(set(theirs) ^ set(ours))


@cache
def difference_of_digits() -> int:
    """Number of characters that `tokenizers` splits off as digits and the pattern does not, or the reverse."""
    splits = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(f"\n{every_character()}")
    digits = set(found_by_tiktoken(r"\p{N}", every_character()))
    alone = {word for word, _ in splits if len(word) == 1}
    return len(digits - alone) + sum(len(digits.intersection(word)) for word, _ in splits if len(word) > 1)


def contraction_difference(text: str) -> int:
    """1 where the engines find different contractions in a text."""
    pattern = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    return int(found_by_tokenizers(pattern, text) != found_by_tiktoken(pattern, text))


def found_by_tokenizers(pattern: str, text: str) -> str:
    """What a pattern matches, joined."""
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    return "".join(word for word, _ in split.pre_tokenize_str(text))


def found_by_tiktoken(pattern: str, text: str) -> str:
    """What a pattern matches, joined: tiktoken passes over the text between its words."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return bytes(encoding.encode_ordinary(text)).decode()


def _num_probes_that_differ(
    backend: Tokenizer, verdict: Verdict, vocab: Mapping[str, int], added: Sequence[str]
) -> int:
    """Encode every token's text, the added tokens' names and the probes both ways."""
    fast = FastEncoder(backend, verdict, vocab)
    words = [_spelled(token).decode(errors="ignore") for token in vocab]
    texts = ["\n".join(words[i : i + 100]) for i in range(0, len(words), 100)]
    texts = [text for text in [*texts, *PROBES, *CONTRACTIONS, *added] if fast.takes(text)]
    expected = backend.encode_batch_fast(texts, add_special_tokens=False)
    return sum(fast.encode(text) != encoding.ids for text, encoding in zip(texts, expected, strict=True))
