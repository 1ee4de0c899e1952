"""Where the threads of a run's ranks on this host are, right now. Started on every host by `harness stacks`.

A rank is found by its log, which it holds open, or before that by what `harness launch` gave it. py-spy tells Python's
frames without the rank's help, also of one that hangs in C; where it is not installed or not allowed, the rank's own
`faulthandler` is asked, which the guard has set up.

Standard library alone: it must start fast, and on a host that is in trouble.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.guard.observe import ask_for_stacks, read_state

PY_SPY_TIMEOUT_S = 20.0
GUARD_STACKS = "memfd:guard-stacks"
"""The name of the file that a guarded rank's faulthandler writes to; see `harness.guard.rank`."""

_LOG = re.compile(r"rank-(\d+)\.log")


@dataclass(frozen=True, slots=True)
class RankStacks:
    """A living rank and where it is.

    Attributes:
        rank: Global rank.
        pid: Process number on its host.
        host: What the host calls itself.
        boot: The kernel's own name for this start of the machine; with `pid` it tells a process from all others.
        state: The kernel's letter: R runs, S sleeps, D waits for a disk, T is stopped.
        how: "py-spy" or "faulthandler"; None where neither gave anything.
        text: The stacks.
        note: Why not by py-spy, or why not at all; the empty string where there is nothing to say.
    """

    rank: int
    pid: int
    host: str
    boot: str
    state: str
    how: str | None
    text: str
    note: str


def find_ranks(run_dir: Path) -> dict[int, int]:
    """The process numbers of a run's ranks on this host, by rank."""
    found: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            rank = _rank_by_log(folder, run_dir)
            if rank is None:
                rank = _rank_by_launch(folder, run_dir)
            if rank is not None:
                found[rank] = int(folder.name)
    return dict(sorted(found.items()))


def _open_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """The descriptors of a process and what they lead to; none where they are not ours to see."""
    try:
        for entry in (folder / "fd").iterdir():
            try:
                yield entry, str(entry.readlink())
            except OSError:
                continue
    except OSError:
        return


def _rank_by_log(folder: Path, run_dir: Path) -> int | None:
    logs = str(run_dir / "logs")
    for _, target in _open_files(folder):
        match = _LOG.fullmatch(os.path.basename(target))
        if match and os.path.dirname(target) == logs:
            return int(match.group(1))
    return None


def _rank_by_launch(folder: Path, run_dir: Path) -> int | None:
    """A rank that `harness launch` has started and that has no log yet."""
    try:
        pairs = (folder / "environ").read_bytes().split(b"\0")
        arguments = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    names = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
    launch_dir, rank = names.get(b"LYRICS_LAUNCH_DIR"), names.get(b"RANK")
    if launch_dir is None or rank is None or b"harness.train" not in arguments:
        return None
    return int(rank) if Path(os.fsdecode(launch_dir)).parent.parent == run_dir and rank.isdigit() else None


def take_stacks(rank: int, pid: int) -> RankStacks:
    """The stacks of one rank, by whatever means there are."""
    state, notes = read_state(pid), list[str]()
    how, text = None, ""
    for name, take in (("py-spy", _ask_py_spy), ("faulthandler", _ask_rank)):
        text, note = take(pid)
        if text:
            how = name
            break
        notes.append(note)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return RankStacks(rank, pid, socket.gethostname(), boot, state, how, text, "; ".join(notes))


def _ask_py_spy(pid: int) -> tuple[str, str]:
    """Stacks, or the empty string and why."""
    beside = Path(sys.executable).parent
    program = shutil.which("py-spy", path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if program is None:
        return "", "py-spy is not installed here (pip install 'lyrics-harness[profile]')"
    command = [program, "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PY_SPY_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"py-spy: {error}"
    if done.returncode or not done.stdout.strip():
        words = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        return "", f"py-spy: {words[-1]}"
    return done.stdout, ""


def _ask_rank(pid: int) -> tuple[str, str]:
    """The same of the rank itself, if it is guarded."""
    folder = Path("/proc") / str(pid)
    file = next((entry for entry, target in _open_files(folder) if GUARD_STACKS in target), None)
    if file is None or not _heeds(pid, signal.SIGUSR1):
        return "", "the rank has no guardian that set faulthandler up (a rank alone has none)"
    if read_state(pid) == "T":
        return "", "the process is stopped, so it cannot tell its stacks itself"
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        return "", f"its stacks cannot be read: {error.strerror}"
    try:
        text = ask_for_stacks(pid, descriptor)
    finally:
        os.close(descriptor)
    return text, "" if text else "the process did not answer SIGUSR1 within 2 s"


def _heeds(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, which would end it otherwise."""
    try:
        lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def main() -> None:
    """Print the stacks of the run folder that is the one argument, as one line of JSON."""
    run_dir = Path(os.path.realpath(sys.argv[1]))
    found = [asdict(take_stacks(rank, pid)) for rank, pid in find_ranks(run_dir).items()]
    print(json.dumps({"stacks": found}), flush=True)


if __name__ == "__main__":
    main()
