"""The two engines that match a splitting pattern, compared character by character."""

from __future__ import annotations

from functools import cache

import tiktoken
from tokenizers import Regex, pre_tokenizers


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
