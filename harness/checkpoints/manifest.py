"""A checkpoint's manifest: the size and sha256 of each of its files, written last, protected by a sha256 of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from preprocess.durable import sha256_of, write_text_durably
from preprocess.errors import CheckpointError
from preprocess.outside_text import parse_json

MANIFEST = "manifest.json"
STATE = "state.json"
PARTS = "state"
FORMAT_VERSION = 2

Entries: TypeAlias = dict[str, dict[str, Any]]
"""By a file's name in the checkpoint: {"sha256": hex digest, "bytes": size}."""


def render_manifest(entries: Entries) -> str:
    """The file's text: every byte follows from the entries, so that a changed one is noticed."""
    files = {name: entries[name] for name in sorted(entries)}
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({"format": FORMAT_VERSION, "files": files, "sha256": digest}, indent=2) + "\n"


def write_manifest(folder: Path, entries: Entries) -> None:
    """Write the manifest durably; the folder is complete with it."""
    write_text_durably(folder / MANIFEST, render_manifest(entries))


def read_manifest(folder: Path) -> Entries:
    """What a checkpoint's files must be.

    Raises:
        CheckpointError: There is no manifest, or it is not as it was written. The message is a reason, without the
            folder's name.
    """
    try:
        text = (folder / MANIFEST).read_bytes().decode("utf-8")
        value = parse_json(text)
        if is_of_old_format(folder, value):
            raise CheckpointError(
                "it was written by an earlier version, in DeepSpeed's own pickled format, which is not read any more"
            )
        entries: Entries = value["files"]
        if render_manifest(entries) != text or not all(map(_is_inside, entries)):
            raise CheckpointError(f"its {MANIFEST} is damaged")
    except FileNotFoundError:
        raise CheckpointError(f"it has no {MANIFEST}, so its save did not finish") from None
    except OSError as error:
        raise CheckpointError(f"its {MANIFEST} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"its {MANIFEST} is damaged") from error
    return entries


def _is_inside(name: str) -> bool:
    """Whether a file's name leads to a file of its checkpoint."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def is_of_old_format(folder: Path, manifest: Any) -> bool:  # noqa: ANN401 - whatever the JSON holds
    """Whether DeepSpeed wrote a checkpoint's state, which then is pickled."""
    return (
        isinstance(manifest, dict) and "format" not in manifest and any((folder / "deepspeed").glob("*.pt"))
    )


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None when every file is the one that was written."""
    try:
        for name, entry in read_manifest(folder).items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["bytes"]:
                return f"{name} is damaged (it has {path.stat().st_size} bytes, not {entry['bytes']})"
            if sha256_of(path) != entry["sha256"]:
                return f"{name} is damaged (its sha256 is not the one that was written)"
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"
    return None


def read_state(folder: Path, entries: Entries) -> bytes:
    """The bytes of a checkpoint's state.json, if they are those that were written.

    Raises:
        CheckpointError: They are not.
    """
    data = (folder / STATE).read_bytes()
    if hashlib.sha256(data).hexdigest() != entries[STATE]["sha256"]:
        raise CheckpointError(f"{folder / STATE}: damaged (its sha256 is not the one that was written)")
    return data


def parts_of(entries: Entries) -> Entries:
    """The entries of the part files."""
    return {name: entry for name, entry in entries.items() if name.startswith(f"{PARTS}/")}


def digest_of(entries: Entries) -> str:
    """Hex digest of the run's state: two checkpoints with the same one go on in the same way."""
    kept = {**parts_of(entries), STATE: entries[STATE]}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
