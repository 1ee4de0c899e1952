"""The tokenizer's files of a merged model: the base's own, with the music tokens where they were trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import AutoTokenizer

from harness.vocabulary import NewTokens
from preprocess.errors import CheckpointError
from preprocess.tokenizer import TextTokenizer, load_tokenizer, locate_source

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def write_tokenizer(folder: Path, source: str, special: dict[str, int | None], new: NewTokens | None) -> None:
    """Write what `AutoTokenizer.from_pretrained` and the servers read.

    A model folder's files are copied as they are, with its chat template; a GGUF file's tokenizer and template are
    written out; a hub id's are fetched.

    Args:
        folder: Where.
        source: The base: a folder, a GGUF file (or a folder with one), `package:NAME`, a hub id.
        special: Ids of the base's "bos_token", "eos_token", "pad_token", where it has them; for a GGUF file.
        new: Tokens that were trained besides.

    Raises:
        CheckpointError: The new tokens' ids are not those that the base's tokenizer would give them.
        ConfigError: The tokenizer cannot be read.
    """
    path = Path(locate_source(source))
    if path.is_dir() and (path / "config.json").is_file():
        for name in FILES:
            if (path / name).is_file():
                shutil.copy(path / name, folder / name)
    elif path.exists():
        _write_gguf_tokenizer(folder, load_tokenizer(source), special)
    else:
        AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(folder)
    if new is not None:
        _add_tokens(folder, load_tokenizer(source), new)


def _write_gguf_tokenizer(folder: Path, tokenizer: TextTokenizer, special: dict[str, int | None]) -> None:
    config: dict[str, Any] = {
        name: tokenizer.backend.id_to_token(id_) for name, id_ in special.items() if id_ is not None
    }
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    _write_backend(folder, tokenizer)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if tokenizer.chat_template is not None:
        (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")


def _write_backend(folder: Path, tokenizer: TextTokenizer) -> None:
    """As a server wants it, with special tokens read out of text; `TextTokenizer` never does."""
    tokenizer.backend.encode_special_tokens = False
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    tokenizer.backend.encode_special_tokens = True


def _add_tokens(folder: Path, tokenizer: TextTokenizer, new: NewTokens) -> None:
    tokens = [
        AddedToken(name, special=True, normalized=False)
        for name in new.names
        if not tokenizer.has_added_token(name)
    ]
    tokenizer.backend.add_special_tokens(tokens)
    if tuple(map(tokenizer.backend.token_to_id, new.names)) != new.ids:
        raise CheckpointError(
            f"the adapter's new tokens have the ids {', '.join(map(str, new.ids))}, which the base's tokenizer does "
            "not give them; pass the base that it was trained on"
        )
    _write_backend(folder, tokenizer)
