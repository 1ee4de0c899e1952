"""Hashes of what a run is made of, written at its start, so that a reader of its report can tell two runs apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import preprocess
from preprocess.manifest import Manifest

HASHES_FILE = "hashes.json"


def collect_hashes(manifest: Manifest) -> dict[str, Any]:
    """SHA-256 sums, in hex, of the code and the data.

    Returns:
        "code", "tokenizer", "prompt"; "data", the sum over the sums of all shards in order; and "shards", for each
        split the sum of each of its files.
    """
    shards = {
        split: {shard.file: shard.sha256 for shard in info.shards} for split, info in manifest.splits.items()
    }
    packages = {module.__name__: Path(module.__path__[0]) for module in (harness, preprocess)}
    return {
        "code": hash_sources(packages),
        "data": hash_data(manifest),
        "tokenizer": manifest.tokenizer_sha256,
        "prompt": manifest.prompt_sha256,
        "shards": shards,
    }


def hash_data(manifest: Manifest) -> str:
    """The SHA-256 sum, in hex, over the sums of a data set's shards in order."""
    sums = [shard.sha256 for info in manifest.splits.values() for shard in info.shards]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def hash_sources(package_dirs: Mapping[str, Path]) -> str:
    """The SHA-256 sum over the Python files of packages: their paths and contents, in order.

    Args:
        package_dirs: Name of a package to its folder.
    """
    sums = {
        f"{name}/{path.relative_to(folder).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, folder in package_dirs.items()
        for path in folder.rglob("*.py")
    }
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
