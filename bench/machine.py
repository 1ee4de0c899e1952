"""Where a benchmark ran: machine, load, versions, commit. Nothing heavy is imported for it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("torch", "deepspeed", "transformers", "tokenizers", "numpy", "datasets", "pyarrow")

ROOT = Path(__file__).resolve().parents[1]


def describe_surroundings() -> dict[str, Any]:
    """Machine, load averages, versions and commit; call it before the first measurement."""
    return {
        "commit": find_commit(ROOT),
        "versions": list_versions(),
        "machine": describe_machine(),
        "load_average": measure_load(),
    }


def measure_load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def describe_machine() -> dict[str, Any]:
    """CPU model, physical cores, hardware threads, threads that this process may use, RAM in GiB."""
    return {
        "cpu": read_cpu_model(Path("/proc/cpuinfo")),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "usable_threads": len(psutil.Process().cpu_affinity() or ()) or None,
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def read_cpu_model(path: Path) -> str:
    """The processor's name out of /proc/cpuinfo, or its architecture where there is no such line."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.machine()


def list_versions() -> dict[str, str | None]:
    """Python's and the packages' versions as installed; None for a package that is not."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def find_commit(folder: Path) -> str | None:
    """The commit checked out in a folder, with "+" where tracked files differ from it; None outside git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    # Results are appended while benchmarks run, one after another; they change nothing that is measured.
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
