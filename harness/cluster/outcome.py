"""How a launch ended: what its ranks wrote down, and the one exit code that follows.

DeepSpeed's launchers exit with 0 when a node's launcher was killed, and with the largest code of all hosts
otherwise. So every rank writes its own code into the launch folder, and rank 0 writes the proof of completion:

    <launch folder>/rank-<r>.exit     the exit code, one number
    <launch folder>/finished.json     {"launch_id": "<name of the folder>", "exit_code": 0}

On hosts that do not share the folder's file system the files of remote ranks stay there; then the codes that the
launchers pass on decide. The folder of rank 0 must be visible to the launching host.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.cluster.watch import SSH_FAILED
from preprocess.errors import HostLostError
from preprocess.outside_text import parse_json

LAUNCH_DIR_VARIABLE = "LYRICS_LAUNCH_DIR"
_OUR_CODES = range(2, 11)
_STOPPED_CODES = (129, 130, 143)
_HANG_CODE = 7


def launch_dir_from_environment() -> Path | None:
    """The launch folder of this rank, or None when it was not started by `harness launch`."""
    value = os.environ.get(LAUNCH_DIR_VARIABLE)
    return Path(value) if value else None


def record_exit(launch_dir: Path | None, rank: int, code: int) -> None:
    """Write down the exit code of a rank as its last act; rank 0 also writes `finished.json`.

    Args:
        launch_dir: The launch folder; None (started without `harness launch`) writes nothing.
        rank: Global rank.
        code: Exit code that the process is about to end with.
    """
    if launch_dir is None:
        return
    # A full disk must not turn the code that is being reported into another one.
    with suppress(OSError):
        launch_dir.mkdir(parents=True, exist_ok=True)
        _write(launch_dir / f"rank-{rank}.exit", f"{code}\n")
        if rank == 0:
            proof = {"launch_id": launch_dir.name, "exit_code": code}
            _write(launch_dir / "finished.json", json.dumps(proof) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file that is either absent or whole."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that is known about the end of a launch.

    Attributes:
        launcher_code: What the deepspeed launcher ended with; negative for a signal.
        host_codes: Non-zero codes of the hosts' launchers as pdsh reported them, the first to fail first.
        rank_codes: Exit code by rank, of the ranks that wrote one.
        finished_code: The code in `finished.json`, or None when rank 0 did not get that far.
    """

    launcher_code: int
    host_codes: Mapping[str, int] = field(default_factory=dict)
    rank_codes: Mapping[int, int] = field(default_factory=dict)
    finished_code: int | None = None

    def exit_code(self) -> int:
        """The true exit code of the launch.

        A code that a rank wrote down comes first (the lowest of 2 to 10, then a stop by signal); then a host or a
        rank that died; then what the launcher said, which is believed for success only with rank 0's proof.

        Raises:
            HostLostError: A host or a rank went away, or the launcher reported success without the proof.
        """
        codes = [*self.rank_codes.values(), *([] if self.finished_code is None else [self.finished_code])]
        ours = min((code for code in codes if code in _OUR_CODES), default=None)
        lost = self._describe_loss()
        # The survivors of a lost host may well report a hang: the loss is the cause.
        if ours is not None and not (ours == _HANG_CODE and lost):
            return ours
        stopped = [code for code in codes if code in _STOPPED_CODES]
        if stopped:
            return stopped[0]
        if lost:
            raise HostLostError(lost)
        if self.launcher_code != 0:
            return self.launcher_code
        if self.finished_code is None:
            raise HostLostError(
                "the launcher reported success, but rank 0 did not write that it finished; a launcher or a rank "
                "was killed. Look at the last lines of each host, then start again from the last checkpoint"
            )
        return self.finished_code

    def _describe_loss(self) -> str:
        """Say which host or rank died, or return the empty string."""
        codes = dict(self.host_codes) or {"the launcher": self.launcher_code}
        for name, code in codes.items():
            if code == SSH_FAILED:
                return (
                    f"{name}: the connection broke or its launcher was killed (ssh exited with 255). "
                    f"Check that the host is up; the last checkpoint holds what was done before"
                )
            killer = _killing_signal(code)
            if killer:
                return (
                    f"{name}: a rank was killed by {killer} (exit code {code}). SIGKILL is most often the "
                    "kernel running out of memory: see `dmesg` there"
                )
        return ""


def _killing_signal(code: int) -> str:
    """Name of the signal in an exit code: -9 from Popen, 247 = -9 as a byte, 137 = 128 + 9 from a shell."""
    number = {code < 0: -code, 128 < code < 192: code - 128, 192 <= code < 255: 256 - code}.get(True, 0)
    if not number:
        return ""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def read_outcome(launch_dir: Path, launcher_code: int, host_codes: Mapping[str, int]) -> Outcome:
    """Gather what the ranks left in the launch folder."""
    rank_codes = {}
    for path in launch_dir.glob("rank-*.exit"):
        match = re.fullmatch(r"rank-([0-9]+)\.exit", path.name)
        if match:
            rank_codes[int(match.group(1))] = int(path.read_text())
    return Outcome(launcher_code, host_codes, rank_codes, _read_finished(launch_dir))


def _read_finished(launch_dir: Path) -> int | None:
    try:
        proof = parse_json((launch_dir / "finished.json").read_text())
    except FileNotFoundError:
        return None
    return int(proof["exit_code"]) if proof["launch_id"] == launch_dir.name else None
