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
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from preprocess.tokenizer.byte_level import (
    DIGITS_GPT2_PATTERN,
    GPT2_PATTERN,
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    TEKKEN_PATTERN,
    spell_vocab,
    splits_of,
)
from preprocess.tokenizer.engines import class_difference, contraction_difference, difference_of_digits
from preprocess.tokenizer.fast import FastEncoder, Verdict, text_vocab
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

_MAX_GUARDS = 64

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
    ranks = spell_vocab(vocab)
    looks_up = bool(model.get("ignore_merges"))
    left_out = _not_reached(backend, vocab, looks_up=looks_up)
    problem = (
        _vocabulary_problem(vocab, ranks, looks_up=looks_up)
        or _order_problem(model["merges"], vocab, left_out, looks_up=looks_up)
        or _class_problem(pattern)
    )
    if problem is not None:
        return Verdict(f"tokenizers: {problem}")
    verdict = Verdict("tiktoken", pattern, () if looks_up else left_out, guards)
    differing = _num_probes_that_differ(backend, verdict, ranks, [token["content"] for token in added])
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


def _vocabulary_problem(
    vocab: Mapping[str, int], ranks: Mapping[bytes, int], *, looks_up: bool
) -> str | None:
    if len(ranks) < len(vocab):
        return "its vocabulary is not spelled in bytes"
    if looks_up and any(bytes([byte]) not in ranks for byte in range(256)):
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
    pairs = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else merge for merge in merges]
    joined = [left + right for left, right in pairs]
    if not vocab.keys() >= set(joined):
        return "a merge makes an added token"
    made = [vocab[token] for token in joined]
    if not looks_up:
        lost = {vocab[token] for token in not_reached}
        made = [i for i in made if i not in lost]
    if any(later < earlier for earlier, later in pairwise(made)):
        return "its merges are not in the order of its ids"
    if not looks_up or not not_reached:
        return None
    missing = {split for token in not_reached for split in splits_of(token, vocab)}.difference(
        map(tuple, pairs)
    )
    return f"{len(missing)} pairs that make a token are not among its merges" if missing else None


def _class_problem(pattern: str) -> str | None:
    """What the two engines see differently in a pattern's classes of characters."""
    differing = sum(class_difference(name) for name in _CLASSES[pattern])
    if pattern == DIGITS_GPT2_PATTERN:
        differing += difference_of_digits()
    if "(?i:" in pattern:
        differing += contraction_difference("".join(CONTRACTIONS))
    return f"{differing} characters differ in class" if differing else None


def _num_probes_that_differ(
    backend: Tokenizer, verdict: Verdict, ranks: Mapping[bytes, int], added: Sequence[str]
) -> int:
    """Encode every token's text, the added tokens' names and the probes both ways."""
    fast = FastEncoder(backend, verdict, ranks)
    words = [token.decode(errors="ignore") for token in ranks]
    texts = ["\n".join(words[i : i + 100]) for i in range(0, len(words), 100)]
    texts = [text for text in [*texts, *PROBES, *CONTRACTIONS, *added] if fast.takes(text)]
    expected = backend.encode_batch_fast(texts, add_special_tokens=False)
    return sum(fast.encode(text) != encoding.ids for text, encoding in zip(texts, expected, strict=True))
