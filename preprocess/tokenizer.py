"""Tokenizers from a file, a folder, a GGUF model or a hub id, without torch and without guessing at text.

Text is encoded with special tokens switched off: a lyric that contains the characters ``<|im_end|>`` becomes
ordinary tokens. Special tokens enter only by id, through :meth:`TextTokenizer.special_id`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from preprocess.errors import ConfigError

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 splits text before byte-pair merges (Meta's reference tokenizer)."""

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

PACKAGE_PREFIX = "package:"

GGUF_CONTROL_TOKEN = 3
GGUF_USER_DEFINED_TOKEN = 4


class TextTokenizer:
    """A `tokenizers` backend that never reads a special token out of text.

    Attributes:
        backend: The Hugging Face fast tokenizer.
        source: What the user asked for (a path or a hub id).
        sha256: Hash of the backend's JSON, the tokenizer's identity.
    """

    def __init__(self, backend: Tokenizer, source: str) -> None:
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        self.backend = backend
        self.source = source
        self.sha256 = hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def to_json(self) -> str:
        """The backend as the text of a `tokenizer.json`."""
        return str(self.backend.to_str())

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without special tokens."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, without special tokens."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(encoding.ids) for encoding in encodings]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of some ids."""
        return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens))

    def has_token(self, token: str) -> bool:
        """Whether the vocabulary holds this very token."""
        return self.backend.token_to_id(token) is not None

    def special_id(self, token: str) -> int:
        """Id of a special token.

        Raises:
            ConfigError: The vocabulary lacks it.
        """
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise ConfigError(f"tokenizer {self.source} has no token {token!r}")
        return int(token_id)


def load_tokenizer(source: str | Path) -> TextTokenizer:
    """Load a tokenizer.

    Args:
        source: A folder with `tokenizer.json` (or `tokenizer.model` in Llama 3's form), such a file itself, a
            `.gguf` model, `package:NAME` (see `locate_source`), or a Hugging Face hub id.

    Raises:
        ConfigError: There is no such tokenizer, or it is of a kind that is not understood.
    """
    path = Path(locate_source(str(source)))
    if path.is_dir():
        path = _find_in_folder(path)
    if path.is_file():
        return TextTokenizer(_load_file(path), str(source))
    if _looks_like_path(str(source)):
        raise ConfigError(f"tokenizer {source}: no such file or folder")
    return TextTokenizer(_load_from_hub(str(source)), str(source))


def locate_source(source: str) -> str:
    """The folder behind `package:NAME`, an installed Python package that ships a model; else the source itself.

    The package is found, not imported.

    Raises:
        ConfigError: No such package is installed.
    """
    if not source.startswith(PACKAGE_PREFIX):
        return source
    name = source.removeprefix(PACKAGE_PREFIX)
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"{source}: no Python package {name!r} is installed here; `pip install --no-deps` it first"
        )
    return next(iter(spec.submodule_search_locations))


def _looks_like_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~"))
        or source.count("/") > 1
        or source.endswith((".json", ".gguf", ".model"))
    )


def _find_in_folder(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).is_file():
            return folder / name
    gguf_files = sorted(folder.glob("*.gguf"))
    if len(gguf_files) == 1:
        return gguf_files[0]
    raise ConfigError(
        f"tokenizer folder {folder}: found neither tokenizer.json nor tokenizer.model nor exactly one .gguf file"
    )


def _load_file(path: Path) -> Tokenizer:
    try:
        if path.suffix == ".gguf":
            return _tokenizer_from_gguf(path)
        if path.suffix == ".model":
            return _tokenizer_from_tiktoken(path)
        return Tokenizer.from_file(str(path))
    except ConfigError:
        raise
    except Exception as error:  # the backends raise bare Exception for a malformed file
        raise ConfigError(f"tokenizer {path}: not a tokenizer file ({error})") from error


def _load_from_hub(name: str) -> Tokenizer:
    try:
        return Tokenizer.from_pretrained(name)
    except Exception as error:  # network and hub errors come as many unrelated types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"tokenizer {name!r}: neither a path here nor a tokenizer that the hub gives ({reason}). "
            "Pass a folder with tokenizer.json, a .gguf file, Llama 3's tokenizer.model, or a hub id you can reach"
        ) from error


def _byte_level_bpe(
    vocab: dict[str, int], merges: list[tuple[str, str]], pattern: str | None, *, split_digits: bool = False
) -> Tokenizer:
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pattern == LLAMA3_PATTERN))
    steps: list[object] = []
    if split_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _tokenizer_from_gguf(path: Path) -> Tokenizer:
    reader = GGUFReader(path)
    fields = {
        key: field.contents() for key, field in reader.fields.items() if key.startswith("tokenizer.ggml.")
    }
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    splitters = {"smollm": (None, True), "gpt-2": (None, False), "llama-bpe": (LLAMA3_PATTERN, False)}
    if kind != "gpt2" or pre not in splitters:
        raise ConfigError(
            f"{path}: its tokenizer is of kind {kind!r}, pre-tokenizer {pre!r}; understood here are byte-level BPE "
            f"with {', '.join(splitters)}. Use a folder with tokenizer.json instead"
        )
    tokens = cast("list[str]", fields["tokenizer.ggml.tokens"])
    types = cast("list[int]", fields["tokenizer.ggml.token_type"])
    merges = [_split_merge(merge) for merge in cast("list[str]", fields["tokenizer.ggml.merges"])]
    pattern, split_digits = splitters[pre]
    backend = _byte_level_bpe(
        {token: i for i, token in enumerate(tokens)}, merges, pattern, split_digits=split_digits
    )
    backend.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind_of_token in zip(tokens, types, strict=True)
            if kind_of_token in (GGUF_CONTROL_TOKEN, GGUF_USER_DEFINED_TOKEN)
        ]
    )
    return backend


def _split_merge(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ", 1)
    return left, right


def _tokenizer_from_tiktoken(path: Path) -> Tokenizer:
    """Llama 3's `tokenizer.model`: one `base64(token) rank` a line, merges implied by the ranks."""
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
    to_char = _byte_alphabet()
    vocab = {_spell(token, to_char): rank for token, rank in ranks.items()}
    merges = [
        (_spell(left, to_char), _spell(right, to_char))
        for token in sorted(ranks, key=ranks.__getitem__)
        for left, right in _merges_of(token, ranks)
    ]
    backend = _byte_level_bpe(vocab, merges, LLAMA3_PATTERN)
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in LLAMA3_SPECIAL_TOKENS]
    )
    return backend


def _merges_of(token: bytes, ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
    known = [(left, right) for left, right in pairs if left in ranks and right in ranks]
    return sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _spell(token: bytes, to_char: dict[int, str]) -> str:
    return "".join(to_char[byte] for byte in token)
