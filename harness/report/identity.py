"""Which data, base model, adapter and code a run was made of, told by hashes that its folder holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.hashes import HASHES_FILE
from harness.json_lines import JsonObject
from preprocess.outside_text import parse_json

WEIGHTS = "adapter_model.safetensors"
MAX_HEADER_BYTES = 100_000_000
"""The most that safetensors itself takes for a header."""


def read_identity(run_dir: Path) -> JsonObject:
    """Collect the hashes of a run; what is missing or damaged here is left out, for other commands check those files.

    Args:
        run_dir: Folder of the run.

    Returns:
        Names to SHA-256 sums in hex, and under "shards" the sums of the files of data by split; {} without any.
    """
    found: JsonObject = dict(_read(run_dir / HASHES_FILE))
    checkpoint = find_newest_checkpoint(run_dir)
    if checkpoint is not None and "data" not in found:
        data = _read(checkpoint / "state.json").get("fingerprint", {}).get("data")
        found |= {"data": data} if data else {}
    folder = next(
        (one for one in (run_dir / "adapter", _adapter_of(checkpoint)) if one and one.is_dir()), None
    )
    if folder is not None and (folder / WEIGHTS).is_file():
        found |= _read_adapter(folder / WEIGHTS)
    if checkpoint is not None and (sealed := _read(checkpoint / "manifest.json").get("sha256")):
        found[checkpoint.name] = sealed
    return found


def find_newest_checkpoint(run_dir: Path) -> Path | None:
    """The folder of the highest step, or None."""
    numbered = [
        (int(number), path)
        for path in run_dir.glob("checkpoint-*")
        if (number := path.name.removeprefix("checkpoint-")).isdigit() and path.is_dir()
    ]
    return max(numbered)[1] if numbered else None


def _adapter_of(checkpoint: Path | None) -> Path | None:
    return None if checkpoint is None else checkpoint / "adapter"


def _read_adapter(weights: Path) -> JsonObject:
    """The sum of the adapter's file, and of the samples of its base's weights that its header holds."""
    found: JsonObject = {}
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length <= MAX_HEADER_BYTES:
            samples = _parse(file.read(length)).get("__metadata__", {}).get("base_samples")
            if isinstance(samples, str):
                found["base model (256 sampled weights)"] = hashlib.sha256(samples.encode()).hexdigest()
        file.seek(0)
        found["adapter"] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _read(path: Path) -> JsonObject:
    return _parse(path.read_bytes()) if path.is_file() else {}


def _parse(content: bytes) -> JsonObject:
    try:
        parsed = parse_json(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
