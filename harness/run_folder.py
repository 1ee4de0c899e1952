"""The run folder: what is written once at the start, what makes two runs the same, and each rank's log."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import socket
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.checkpoints import PREFIX
from harness.config import RunConfig
from harness.deepspeed_config import load_deepspeed_config
from harness.hashes import HASHES_FILE, collect_hashes
from harness.memory.limit import is_out_of_memory
from preprocess.durable import write_text_durably
from preprocess.errors import (
    ConfigError,
    DataError,
    HostLostError,
    NoSpaceError,
    OutOfMemoryError,
    PreflightError,
    StoppedError,
    UserError,
)
from preprocess.manifest import Manifest, read_manifest
from preprocess.outside_text import visible
from preprocess.settings import dump_settings

PACKAGES = ("torch", "deepspeed", "transformers", "peft", "datasets", "pyarrow", "tokenizers", "numpy")


def fingerprint(config: RunConfig, manifest: Manifest) -> dict[str, Any]:
    """What must be equal for a resumed run to go on as the same run.

    The number of ranks, the ZeRO stage and how ranks communicate may differ: a step takes the same rows on all.
    """
    deepspeed = load_deepspeed_config(config.deepspeed)
    shards = [shard.sha256 for split in manifest.splits.values() for shard in split.shards]
    return {
        "data": hashlib.sha256("".join(shards).encode()).hexdigest(),
        "model": config.model.path,
        "precision": config.model.precision,
        "fp8": config.model.fp8,
        "lora": config.lora.model_dump(mode="json"),
        # Steps take the same rows in any micro-batches, whose size may have to change for want of memory.
        "batch": config.batch.model_dump(mode="json", exclude={"micro_batch_size"}),
        # The rate may be lowered on the way: a run that diverged goes on from an earlier checkpoint.
        "optimizer": config.optimizer.model_dump(mode="json", exclude={"learning_rate"}),
        "epochs": config.schedule.epochs,
        "max_steps": config.schedule.max_steps,
        "seed": config.seed,
        "deepspeed": {name: deepspeed[name] for name in ("bf16", "fp16") if name in deepspeed},
    }


def setup_of(config: RunConfig, manifest: Manifest, world_size: int) -> dict[str, Any]:
    """What must be equal for a choice that memory has led to: the run, and how it is spread over ranks."""
    return {
        **fingerprint(config, manifest),
        "deepspeed": load_deepspeed_config(config.deepspeed),
        "world_size": world_size,
    }


def check_run_folder(config: RunConfig) -> None:
    """Refuse an output folder that cannot be one, or that holds another run.

    Raises:
        ConfigError: It is a file, or it already holds a run and `resume` is off.
    """
    folder = config.output_dir
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise ConfigError(f"output_dir {folder}: there is a file of that name; choose another folder")
    if not config.resume and (any(folder.glob(f"{PREFIX}*")) or has_lines(folder / "metrics.jsonl")):
        raise ConfigError(
            f"output_dir {folder} already holds a run. Pass --resume to go on with it, or choose another output_dir"
        )


def describe_run(config: RunConfig) -> None:
    """Write the resolved config, the versions, the hashes and the data's quality into the run folder."""
    folder = config.output_dir
    write_text_durably(folder / "config.yaml", dump_settings(config))
    write_text_durably(folder / "versions.json", json.dumps(versions(), indent=2))
    hashes = collect_hashes(read_manifest(config.data.path))
    write_text_durably(folder / HASHES_FILE, json.dumps(hashes, indent=2))
    quality = config.data.path / "quality.json"
    if quality.is_file():
        write_text_durably(folder / "quality.json", quality.read_text(encoding="utf-8"))


def has_lines(path: Path) -> bool:
    """Whether a run got as far as its first step; a start that failed leaves an empty file."""
    return path.is_file() and path.stat().st_size > 0


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        **found,
        "platform": platform.platform(),
        "host": socket.gethostname(),
    }


def start_logging(folder: Path, rank: int) -> None:
    """Send this rank's log records, DeepSpeed's and transformers' too, to its own file."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(logs / f"rank-{rank}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("harness", "DeepSpeed", "transformers", "py.warnings"):
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("harness").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


def as_user_error(error: Exception) -> UserError | None:
    """The user's error behind an exception: a mistake, memory that ran out, a disk that refuses; else None."""
    if isinstance(error, UserError):
        return error
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"out of memory ({text}). Lower batch.micro_batch_size, set model.recompute_layers=all, or use a higher "
            "ZeRO stage"
        )
    if isinstance(error, BrokenPipeError):
        return HostLostError(
            "nobody reads what this rank prints: its launcher, pdsh or terminal is gone. Go on with --resume"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"no space left ({text}); free some, then go on with --resume")
    if "No space left on device" in str(error) or "PytorchStreamWriter failed" in str(error):
        return NoSpaceError(
            f"a file could not be written ({text}); free some space, then go on with --resume"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return DataError(f"{error.filename}: {error.strerror}")
    return None


def explain_error(error: UserError) -> None:
    """Print a user's error in one line; what every rank of a host would say, only its first one says."""
    is_common = isinstance(error, ConfigError | DataError | PreflightError)
    if isinstance(error, StoppedError) and os.environ.get("RANK", "0") != "0":
        return
    if is_common and os.environ.get("LOCAL_RANK", "0") != "0":
        return
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    where = "" if size == "1" else f" (rank {rank} on {socket.gethostname()})"
    with suppress(BrokenPipeError):
        print(visible(f"error{where}: {error}"), file=sys.stderr, flush=True)
