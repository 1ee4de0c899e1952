"""How a launch ended: what its ranks wrote down, and the one exit code that follows.

DeepSpeed's launchers exit with 0 when a node's launcher was killed, and with the largest code of all hosts
otherwise. So every rank writes its own code into the launch folder, and rank 0 writes the proof of completion:

    <launch folder>/rank-<r>.exit     the exit code, one number
    <launch folder>/finished.json     {"launch_id": "<name of the folder>", "exit_code": 0}
    <launch folder>/verdict.json      what the ranks' guardians found out, with its exit code

The keepers send these files from every host, so hosts need not share a disk.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cluster.watch import SSH_FAILED
from preprocess.errors import HangError, HostLostError, UserError
from preprocess.outside_text import parse_json

LAUNCH_DIR_VARIABLE = "LYRICS_LAUNCH_DIR"
_OUR_CODES = range(2, 11)
_STOPPED_CODES = (129, 130, 143)
_LOST_CODE, _HANG_CODE = 6, 7


class VerdictError(UserError):
    """What the guardians found where it is neither a loss nor a hang: a rank's own error, with its code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Verdict:
    """The guardians' verdict.

    Attributes:
        exit_code: 6 for a loss, 7 for a hang.
        message: Its cause, with rank and host.
    """

    exit_code: int
    message: str

    def as_error(self) -> UserError:
        """The error that a launch ends with."""
        kind = {_LOST_CODE: HostLostError, _HANG_CODE: HangError}.get(self.exit_code)
        return VerdictError(self.message, self.exit_code) if kind is None else kind(self.message)


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
        verdict: What the guardians found, if anything.
        launching_host: Name of the host that the launcher ran on.
    """

    launcher_code: int
    host_codes: Mapping[str, int] = field(default_factory=dict)
    rank_codes: Mapping[int, int] = field(default_factory=dict)
    finished_code: int | None = None
    verdict: Verdict | None = None
    launching_host: str = "this host"

    def exit_code(self) -> int:
        """The true exit code of the launch.

        A code that a rank wrote down comes first (the lowest of 2 to 10, except that a loss or a hang needs the
        guardians' word or a host to name); then the guardians' verdict; then a host or a rank that died, a stop by
        signal, and what the launcher said, which is believed for success only with rank 0's proof.

        Raises:
            HangError: The guardians found a hang.
            VerdictError: They found another cause.
            HostLostError: They found a loss; or a host or a rank went away; or the launcher reported success without
                the proof.
        """
        codes = [*self.rank_codes.values(), *([] if self.finished_code is None else [self.finished_code])]
        ours = min((code for code in codes if code in _OUR_CODES), default=None)
        if ours is not None and ours not in (_LOST_CODE, _HANG_CODE):
            return ours
        if self.verdict is not None:
            raise self.verdict.as_error()
        lost = self._describe_loss()
        # The survivors of a lost host may well report a hang, or stop by our signal: the loss is the cause.
        if ours is not None and not (ours == _HANG_CODE and lost):
            return ours
        stopped = [code for code in codes if code in _STOPPED_CODES]
        if stopped and self.launcher_code == 0:  # it passes a stop on; of a killed pdsh it makes a success
            lost = lost or (
                f"{self.launching_host}: pdsh was killed; the ranks saved their state and ended. Start again with "
                "--resume"
            )
        elif stopped and not (lost and self._launcher_died()):
            return stopped[0]
        if lost:
            raise HostLostError(lost)
        if self.launcher_code != 0:
            return self.launcher_code
        if self.finished_code is None:
            raise HostLostError(
                f"the launcher on {self.launching_host} reported success, but rank 0 did not write that it finished; "
                "a launcher or a rank was killed. Look at the last lines of each host, then start again from the "
                "last checkpoint"
            )
        return self.finished_code

    def _launcher_died(self) -> bool:
        """Whether a connection was lost, or a launcher or pdsh killed, after which we stopped the ranks ourselves."""
        killer = _killing_signal(self.launcher_code)
        was_killed = self.launcher_code < 0 or killer not in ("", "SIGTERM", "SIGINT", "SIGHUP")
        return was_killed or SSH_FAILED in self.host_codes.values()

    def _describe_loss(self) -> str:
        """Say which host or rank died, or return the empty string."""
        codes = dict(self.host_codes) or {self.launching_host: self.launcher_code}
        what = "a rank" if self.host_codes else "a rank, pdsh or a launcher"
        for name, code in codes.items():
            if code == SSH_FAILED:
                return (
                    f"{name}: the connection broke or its launcher was killed (ssh exited with 255). "
                    f"Check that the host is up; the last checkpoint holds what was done before"
                )
            killer = _killing_signal(code)
            if killer and code < 0:
                return (
                    f"{name}: the deepspeed launcher was killed by {killer}; the ranks were ended. Start again from "
                    "the last checkpoint"
                )
            if killer:
                return (
                    f"{name}: {what} was killed by {killer} (exit code {code}). SIGKILL is most often the "
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


def read_outcome(
    launch_dir: Path,
    launcher_code: int,
    host_codes: Mapping[str, int],
    launching_host: str = "this host",
) -> Outcome:
    """Gather what the ranks and their guardians left in the launch folder."""
    rank_codes = {}
    for path in launch_dir.glob("rank-*.exit"):
        match = re.fullmatch(r"rank-([0-9]+)\.exit", path.name)
        if match:
            rank_codes[int(match.group(1))] = int(path.read_text())
    finished, verdict = _read_finished(launch_dir), read_verdict(launch_dir / "verdict.json")
    return Outcome(launcher_code, host_codes, rank_codes, finished, verdict, launching_host)


def read_verdict(path: Path) -> Verdict | None:
    """The guardians' verdict in a file, or None when there is none that can be read."""
    try:
        value = json.loads(path.read_text())
        code, message = int(value["exit_code"]), str(value["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    where = [f"{name} {value[name]}" for name in ("rank", "host") if value.get(name) is not None]
    where = [text for text in where if text.split()[-1] not in message]
    return Verdict(code, f"{', '.join(where)}: {message}" if where else message)


def write_left_behind(launch_dir: Path, reports: Iterable[Mapping[str, Any]]) -> None:
    """Write the files that the keepers sent into the launch folder, where they are not there already."""
    for report in reports:
        for name, text in report["files"].items():
            if not (launch_dir / name).exists():
                _write(launch_dir / name, text)


def _read_finished(launch_dir: Path) -> int | None:
    try:
        proof = parse_json((launch_dir / "finished.json").read_text())
    except FileNotFoundError:
        return None
    return int(proof["exit_code"]) if proof["launch_id"] == launch_dir.name else None
