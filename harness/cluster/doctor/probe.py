"""What one host tells of itself. Sent to it as text and run by its own Python, so: the standard library alone.

It is spoken to in lines on standard input: `ping` is answered with the host's time, `facts` with everything, after
which it ends. An answer is one line of JSON behind `MARK`; whatever else a login shell prints is skipped. While files
are hashed a line says so now and then, so that silence means that the host hangs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

MARK = "lyrics-probe: "
GPU_FIELDS = "index,name,driver_version,memory.total,memory.free"
CODE_SUFFIXES = (".py", ".json", ".yaml")
MODEL_SUFFIXES = (".json", ".safetensors", ".bin", ".gguf", ".model", ".jinja", ".py", ".txt")
CHUNK_BYTES = 1 << 24
SETTLED_S = 2.0
"""A file that changed so shortly before it was hashed may change again within the same tick of its time stamp."""


def serve(request: dict[str, Any]) -> None:
    """Answer until the facts were asked for."""
    for line in iter(sys.stdin.buffer.readline, b""):
        if line.strip() == b"ping":
            say({"time": time.time()})
        else:
            say({"facts": gather(request)})
            return


def say(value: dict[str, Any]) -> None:
    """Print one answer."""
    sys.stdout.write(f"{MARK}{json.dumps(value)}\n")
    sys.stdout.flush()


def gather(request: dict[str, Any]) -> dict[str, Any]:
    """Every fact by name; one that cannot be told is {"error": why}."""
    sys.path[:0] = request["python_path"]
    if os.path.isdir(request["folder"]):
        os.chdir(request["folder"])
    facts: dict[str, Any] = {}
    for name, read in READERS.items():
        try:
            facts[name] = read(request)
        except Exception as error:  # noqa: BLE001 - a host where anything fails must still tell the rest
            facts[name] = {"error": f"{type(error).__name__}: {error}"}
    return facts


def read_python(request: dict[str, Any]) -> dict[str, Any]:
    """Version, and whether the working folder is there."""
    return {"version": platform.python_version(), "folder": os.path.isdir(request["folder"])}


def read_packages(request: dict[str, Any]) -> dict[str, str | None]:
    """Installed versions, as metadata tells without an import; None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in request["packages"]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def read_code(request: dict[str, Any]) -> dict[str, str]:
    """sha256 of each source file, by its path from the code's root."""
    root = Path(request["code_root"])
    files = [
        path
        for folder in request["code_folders"]
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in CODE_SUFFIXES and path.is_file()
    ]
    return {path.relative_to(root).as_posix(): hash_bytes(path) for path in files}


def hash_bytes(path: Path) -> str:
    """sha256 of a file; a word now and then while a large one is read."""
    digest = hashlib.sha256()
    said_s = time.monotonic()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if time.monotonic() - said_s > 1:
                say({"hashing": path.name})
                said_s = time.monotonic()
    return digest.hexdigest()


class HashCache:
    """Digests of files whose size, time and inode have not changed since they were hashed."""

    def __init__(self, rehash: bool) -> None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.path = home / "lyrics-harness" / "hashes.json"
        self.known: dict[str, list[Any]] = {}
        self.changed = False
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if isinstance(known, dict) and not rehash:
            self.known = known

    def sha256(self, path: Path) -> str:
        """Of the file's bytes."""
        key, state = str(path.resolve()), path.stat()
        stamp = [state.st_size, state.st_mtime_ns, state.st_ino, state.st_dev]
        entry = self.known.get(key)
        if isinstance(entry, list) and entry[:-1] == stamp:
            return str(entry[-1])
        digest = hash_bytes(path)
        if time.time() - state.st_mtime > SETTLED_S:
            self.known[key] = [*stamp, digest]
            self.changed = True
        return digest

    def save(self) -> None:
        """Write it, if there is anything new; a host where that fails only hashes again next time."""
        if not self.changed:
            return
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(self.known), encoding="utf-8")
            new.replace(self.path)
        except OSError:
            new.unlink(missing_ok=True)


def describe_files(paths: dict[str, Path], request: dict[str, Any]) -> dict[str, Any]:
    """Bytes and sha256 of files by name; None for one that is not there. Without `hashes` only bytes."""
    cache = HashCache(request["rehash"])
    found: dict[str, Any] = {}
    for name, path in sorted(paths.items()):
        if not path.is_file():
            found[name] = None
            continue
        digest = cache.sha256(path) if request["hashes"] else None
        found[name] = {"bytes": path.stat().st_size, "sha256": digest}
    cache.save()
    return found


def read_model(request: dict[str, Any]) -> dict[str, Any] | None:
    """Where the model lies on this host, and its files; `path` is None where it is not there."""
    if request["model"] is None:
        return None
    place = locate_model(request["model"])
    if place is None:
        return {"path": None, "files": {}}
    if place.is_dir() and not (place / "config.json").is_file():
        files = sorted(place.glob("*.gguf"))
    elif place.is_dir():
        files = sorted(path for path in place.iterdir() if path.suffix in MODEL_SUFFIXES)
    else:
        files = [place]
    return {"path": str(place), "files": describe_files({path.name: path for path in files}, request)}


def locate_model(source: str) -> Path | None:
    """The folder or file behind a folder, a .gguf file, `package:NAME` or a hub id in this host's cache."""
    if source.startswith("package:"):
        name = source.removeprefix("package:")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        places = list(spec.submodule_search_locations or ()) if spec else []
        return Path(places[0]) if places else None
    if Path(source).exists():
        return Path(source)
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(request_cache() or home / "hub") / f"models--{source.replace('/', '--')}"
    reference = cache / "refs" / "main"
    if reference.is_file():
        snapshot = cache / "snapshots" / reference.read_text(encoding="utf-8").strip()
        return snapshot if snapshot.is_dir() else None
    return None


def request_cache() -> str | None:
    """The hub's cache where a variable names it."""
    return os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")


def read_data(request: dict[str, Any]) -> dict[str, Any] | None:
    """The data set's manifest and every file that the launching host's manifest names."""
    if request["data"] is None:
        return None
    folder = Path(request["data"])
    return describe_files({name: folder / name for name in request["data_files"]}, request)


def read_config_files(request: dict[str, Any]) -> dict[str, Any]:
    """Files that the config names by path."""
    return describe_files({name: Path(name) for name in request["config_files"]}, request)


def read_gpus(request: dict[str, Any]) -> dict[str, Any]:
    """What nvidia-smi prints; `output` is None on a host without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"output": None}
    command = [program, f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    if done.returncode:
        return {"error": f"nvidia-smi: {(done.stdout + done.stderr).strip()[:200]}"}
    return {"output": done.stdout}


def read_disks(request: dict[str, Any]) -> dict[str, Any]:
    """Bytes free where the run folder is or will be, whether it can be written, and of /dev/shm."""
    place = Path(request["output_dir"] or ".").absolute()
    while not place.exists():
        place = place.parent
    shared = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
    disk = os.statvfs(place)
    return {
        "path": str(place),
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "writable": place.is_dir() and os.access(place, os.W_OK | os.X_OK),
        "shm_bytes": None if shared is None else shared.f_bavail * shared.f_frsize,
    }


def read_machine(request: dict[str, Any]) -> dict[str, Any]:
    """Memory in bytes, cores, open files allowed, addresses, and what tells this machine from others."""
    lines = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text()))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, timeout=10, check=False)
    return {
        "memory_bytes": 1024 * int(lines["MemTotal"]),
        "available_bytes": 1024 * int(lines["MemAvailable"]),
        "cores": len(os.sched_getaffinity(0)),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "addresses": addresses.stdout.split(),
        # Containers of one machine share its boot, not its network.
        "identity": f"{boot} {os.readlink('/proc/self/ns/net')}",
    }


def read_network(request: dict[str, Any]) -> dict[str, Any]:
    """What the first host's name resolves to here, and whether the run's port is free."""
    try:
        resolved = socket.gethostbyname(request["first_host"])
    except OSError as error:
        resolved = f"unknown ({error.strerror or error})"
    free: bool | None = None
    if request["port"] is not None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", request["port"]))
                free = True
            except OSError:
                free = False
    return {"first_host": resolved, "port_free": free}


def read_environment(request: dict[str, Any]) -> dict[str, Any]:
    """Variables that bear on a run; of those that look secret the names alone."""
    rules = request["secrets"]
    values: dict[str, str] = {}
    secrets: list[str] = []
    for name, value in sorted(os.environ.items()):
        if not name.startswith(tuple(request["prefixes"])) and name not in request["names"]:
            continue
        harmless = value.strip().lower() in rules["switches"]
        if not harmless and (re.search(rules["name"], name) or re.search(rules["value"], value)):
            secrets.append(name)
        else:
            values[name] = value
    return {"values": values, "secrets": secrets}


READERS = {
    "python": read_python,
    "packages": read_packages,
    "code": read_code,
    "gpus": read_gpus,
    "disks": read_disks,
    "machine": read_machine,
    "network": read_network,
    "environment": read_environment,
    "model": read_model,
    "data": read_data,
    "config_files": read_config_files,
}
