"""Byte-level BPE: how text is split into words; tokenizers made of tiktoken ranks, a GGUF file, a tekken.json."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from preprocess.errors import ConfigError
from preprocess.outside_text import parse_json

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 splits text before byte-pair merges (Meta's reference tokenizer)."""

QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
"""Qwen 2's: each digit apart."""

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's (Radford et al. 2019), which `tokenizers` builds into its ByteLevel step."""

DIGITS_GPT2_PATTERN = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
"""GPT-2's after each digit has been split off (SmolLM2), as one pattern.

A digit never takes the space before it, and a run of spaces before a digit stays whole: it ends its stretch.
"""

TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Mistral's tekken."""

LLAMA3_NUM_TEXT_TOKENS = 128_000

LLAMA3_SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(2, 246)),
)
"""The 256 ids that follow Llama 3's 128,000 text tokens, in order."""

TEKKEN_SPECIAL_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""The first special tokens of a tekken.json that does not list its own (mistral-common, `tekken.py`)."""

_SYSTEM_TOKENS = ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")

GGUF_CONTROL_TOKEN = 3
GGUF_USER_DEFINED_TOKEN = 4


def make_byte_level_bpe(
    vocab: dict[str, int], merges: list[tuple[str, str]], pattern: str | None, *, split_digits: bool = False
) -> Tokenizer:
    """A byte-level BPE.

    Args:
        vocab: Tokens spelled in GPT-2's byte alphabet.
        merges: Pairs in the order in which they apply.
        pattern: Splits text into words; None is GPT-2's. With any other a word that is a token needs no merge.
        split_digits: Split off each digit first.
    """
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pattern is not None))
    steps: list[object] = []
    if split_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def read_gguf(path: Path) -> tuple[Tokenizer, str | None]:
    """The tokenizer inside a GGUF model, and its chat template.

    Raises:
        ConfigError: It is of a kind that is not understood.
    """
    reader = GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items() if key.startswith("tokenizer.")}
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    splitters = {
        "smollm": (None, True),
        "gpt-2": (None, False),
        "llama-bpe": (LLAMA3_PATTERN, False),
        "tekken": (TEKKEN_PATTERN, False),
    }
    if kind != "gpt2" or pre not in splitters:
        raise ConfigError(
            f"{path}: its tokenizer is of kind {kind!r}, pre-tokenizer {pre!r}; understood here are byte-level BPE "
            f"with {', '.join(splitters)}. Use a folder with tokenizer.json instead"
        )
    tokens = cast("list[str]", fields["tokenizer.ggml.tokens"])
    types = cast("list[int]", fields["tokenizer.ggml.token_type"])
    merges = [_split_merge(merge) for merge in cast("list[str]", fields["tokenizer.ggml.merges"])]
    pattern, split_digits = splitters[pre]
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = make_byte_level_bpe(vocab, merges, pattern, split_digits=split_digits)
    special = (GGUF_CONTROL_TOKEN, GGUF_USER_DEFINED_TOKEN)
    _add_special(backend, (t for t, kind in zip(tokens, types, strict=True) if kind in special))
    return backend, cast("str | None", fields.get("tokenizer.chat_template"))


def read_tiktoken(path: Path) -> Tokenizer:
    """Llama 3's `tokenizer.model`: one `base64(token) rank` a line, merges implied by the ranks.

    Raises:
        ConfigError: It is another model's, or cut.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        fields = line.split()
        if len(fields) != 2:
            raise ConfigError(
                f"{path}:{number}: expected 'base64 rank', the form of Llama 3's tokenizer.model"
            )
        ranks[base64.b64decode(fields[0], validate=True)] = int(fields[1])
    if sorted(ranks.values()) != list(
        range(LLAMA3_NUM_TEXT_TOKENS)
    ):  # the special tokens' ids follow the last
        raise ConfigError(
            f"{path}: {len(ranks):,} tokens, expected Llama 3's {LLAMA3_NUM_TEXT_TOKENS:,}, ranked from 0: the file "
            "was cut, or belongs to another model. Copy it again or use its tokenizer.json"
        )
    vocab = _spell_all(ranks)
    backend = make_byte_level_bpe(vocab, _merges_of_ranks(vocab), LLAMA3_PATTERN)
    _add_special(backend, LLAMA3_SPECIAL_TOKENS)
    return backend


def read_tekken(path: Path) -> Tokenizer:
    """Mistral's `tekken.json`: special tokens have the first ids, then come the ranked tokens that fit the vocabulary.

    Raises:
        ConfigError: It is no tekken.json, or splits text in a way that is not known here.
    """
    content = parse_json(path.read_text(encoding="utf-8"))
    config = content["config"]
    if config["pattern"] != TEKKEN_PATTERN:
        raise ConfigError(f"{path}: its pattern is not the one of the tekken tokenizers known here")
    num_special = int(config["default_num_special_tokens"])
    num_text = int(config["default_vocab_size"]) - num_special
    ranks = {
        base64.b64decode(entry["token_bytes"]): int(entry["rank"]) for entry in content["vocab"][:num_text]
    }
    if sorted(ranks.values()) != list(range(num_text)):
        raise ConfigError(f"{path}: {len(ranks):,} tokens, expected {num_text:,}, ranked from 0: it was cut")
    spelled = _spell_all(ranks)
    special = _tekken_special_tokens(content, num_special)
    vocab = {token: i for i, token in enumerate(special)}
    vocab |= {token: rank + num_special for token, rank in spelled.items() if token not in vocab}
    backend = make_byte_level_bpe(vocab, _merges_of_ranks(spelled), TEKKEN_PATTERN)
    _add_special(backend, special)
    return backend


def _tekken_special_tokens(content: Mapping[str, Any], num_special: int) -> list[str]:
    """Names by id. Tokenizers up to version 3 reserve the ids of a system prompt without giving it a turn."""
    names = [f"<SPECIAL_{i}>" for i in range(num_special)]
    listed = content.get("special_tokens")
    if listed is None:
        listed = [{"rank": i, "token_str": token} for i, token in enumerate(TEKKEN_SPECIAL_TOKENS)]
    has_system_turn = int(str(content["config"]["version"]).removeprefix("v").partition("m")[0]) >= 7
    for entry in listed:
        if has_system_turn or entry["token_str"] not in _SYSTEM_TOKENS:
            names[int(entry["rank"])] = str(entry["token_str"])
    return names


def _add_special(backend: Tokenizer, tokens: Iterable[str]) -> None:
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])


def _split_merge(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ", 1)
    return left, right


def _merges_of_ranks(vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, in the order of what it makes (as tiktoken merges)."""
    return [pair for token in sorted(vocab, key=vocab.__getitem__) for pair in splits_of(token, vocab)]


def splits_of(token: str, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """The ways in which a token is two tokens, those of the lowest ids first."""
    known = [
        (token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in vocab and token[i:] in vocab
    ]
    if len(known) > 1:
        known.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return known


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _spell_all(ranks: Mapping[bytes, int]) -> dict[str, int]:
    alphabet = byte_alphabet()
    return {token.decode("latin-1").translate(alphabet): rank for token, rank in ranks.items()}


def spell(token: str) -> bytes:
    """The bytes that a token in GPT-2's alphabet stands for.

    Raises:
        UnicodeEncodeError: It is not spelled in this alphabet.
    """
    return token.translate(_BYTES_OF_ALPHABET).encode("latin-1")


def spell_vocab(vocab: Mapping[str, int]) -> dict[bytes, int]:
    """A vocabulary in bytes, without the tokens that are not spelled in GPT-2's alphabet."""
    try:
        return {token.translate(_BYTES_OF_ALPHABET).encode("latin-1"): i for token, i in vocab.items()}
    except UnicodeEncodeError:
        alphabet = set(byte_alphabet().values())
        return {spell(token): i for token, i in vocab.items() if alphabet.issuperset(token)}


_BYTES_OF_ALPHABET: dict[int, int | str] = {
    **dict.fromkeys(range(256), "\N{REPLACEMENT CHARACTER}"),  # no letter of the alphabet, and no latin-1
    **{ord(char): byte for byte, char in byte_alphabet().items()},
}
