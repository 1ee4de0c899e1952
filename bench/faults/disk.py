"""A disk that fails once at every open, write, fsync, rename, mkdir and unlink of checkpointing.

A run without a fault counts the operations (tests/faults/faulty_disk.c, preloaded). Then each trial is a run whose
N-th operation is a SIGKILL, ENOSPC, EIO or a short write, and one that goes on from what it left.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.faults.ranks import ROOT, ForkServer, fork_server, start_ranks
from bench.faults.setting import (
    Reference,
    Setting,
    find_difference,
    make_reference,
    steps_done,
    whole_steps,
)
from bench.faults.trial import Kind, Trial

SOURCE = ROOT / "tests" / "faults" / "faulty_disk.c"
NO_SPACE, KILLED = 9, -9
MODES = {
    "open": ("kill", "enospc", "eio"),
    "write": ("kill", "enospc", "eio", "short"),
    "truncate": ("kill", "enospc", "eio"),
    "fsync": ("kill", "enospc", "eio"),
    "rename": ("kill", "enospc", "eio"),
    "link": ("kill", "enospc", "eio"),
    "mkdir": ("kill", "enospc", "eio"),
    "unlink": ("kill", "eio"),
}
"""What can happen to each kind of operation."""

TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class DiskFault:
    """What goes wrong.

    Attributes:
        number: Of the operation, from 1, as counted on that rank.
        operation: Its kind and path, for people.
        mode: kill, enospc, eio or short.
        rank: Whose disk it is; None where the run has one rank.
    """

    number: int
    operation: str
    mode: str
    rank: int | None = None

    def __str__(self) -> str:
        """As in "enospc at operation 17 (write checkpoint-2.tmp/state.json) of rank 1"."""
        where = "" if self.rank is None else f" of rank {self.rank} of 3"
        return f"{self.mode} at operation {self.number} ({self.operation}){where}"

    @property
    def spoilt_step(self) -> int | None:
        """Step of the checkpoint that was being written, or None."""
        found = re.search(r"checkpoint-([0-9]+)\.tmp", self.operation)
        return None if found is None else int(found[1])

    def environment(self, run_dir: Path) -> dict[str, str]:
        """What makes the preloaded library do it."""
        own = {} if self.rank is None else {"FAULTY_RANK": str(self.rank)}
        return {
            "FAULTY_PREFIX": str(run_dir),
            "FAULTY_AT": str(self.number),
            "FAULTY_MODE": self.mode,
            **own,
        }


@contextmanager
def faulty_disk_server(folder: Path) -> Iterator[ForkServer]:
    """A fork server whose ranks have a disk that can fail."""
    library = build_library(folder)
    with fork_server(environment={"LD_PRELOAD": str(library)}) as server:
        yield server


def build_library(folder: Path) -> Path:
    """Compile the library."""
    library = folder / "faulty_disk.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True, timeout=60
    )
    return library


def count_operations(server: ForkServer, setting: Setting, name: str, num_ranks: int, rank: int) -> list[str]:
    """The operations of one rank of a run without a fault, in order, as "kind path"."""
    log = setting.root / f"{name}.operations"
    run_dir = setting.run_dir(name)
    environment = {"FAULTY_PREFIX": str(run_dir), "FAULTY_LOG": str(log), "FAULTY_RANK": str(rank)}
    config = setting.write_config(name)
    ranks = start_ranks(
        [server] * num_ranks,
        ["--config", str(config)],
        setting.root / f"{name}-logs",
        environment=environment,
    )
    if any(ranks.wait(TIMEOUT_S)):
        raise RuntimeError(f"the run that only counts failed:\n{ranks.read()}")
    text = log.read_text().replace(f"{run_dir}/", "") if log.exists() else ""
    return [line.partition(" ")[2] for line in text.splitlines()]


def all_faults(operations: Sequence[str], rank: int | None = None) -> list[DiskFault]:
    """Every operation in every way that it can fail."""
    return [
        DiskFault(number, operation, mode, rank)
        for number, operation in enumerate(operations, start=1)
        for mode in MODES[operation.partition(" ")[0]]
    ]


def pick_evenly(faults: Sequence[DiskFault], number: int, seed: int) -> list[DiskFault]:
    """So many of the faults, spread evenly over their order from a place that the seed draws."""
    if number >= len(faults):
        return list(faults)
    offset = random.Random(seed).random()
    return [faults[int((index + offset) * len(faults) / number)] for index in range(number)]


def run_disk_faults(setting: Setting, number: int, seed: int) -> Iterator[Trial]:
    """Fail so many times, four of five on a rank alone and the rest on one rank of three."""
    with faulty_disk_server(setting.root) as server:
        for num_ranks, share in ((1, number - number // 5), (3, number // 5)):
            if not share:
                continue
            reference = make_reference(setting, [server] * num_ranks, f"disk-reference-{num_ranks}")
            faults = []
            for rank in range(num_ranks):
                operations = count_operations(
                    server, setting, f"disk-count-{num_ranks}-{rank}", num_ranks, rank
                )
                faults += all_faults(operations, None if num_ranks == 1 else rank)
            for fault in pick_evenly(faults, share, seed):
                yield try_disk_fault(server, setting, reference, fault, num_ranks)


def try_disk_fault(
    server: ForkServer,
    setting: Setting,
    reference: Reference,
    fault: DiskFault,
    num_ranks: int,
    module: str = "harness.train",
    words: Sequence[str] = (),
) -> Trial:
    """Run into a fault, look at what is left, and go on from it.

    Args:
        server: Of `faulty_disk_server`.
        setting: Where.
        reference: What the run must come to in the end.
        fault: What fails.
        num_ranks: Of the run.
        module: What the ranks run.
        words: Its arguments before the harness's own.
    """
    name = f"disk-{num_ranks}-{fault.rank or 0}-{fault.number}-{fault.mode}"
    run_dir, logs = setting.run_dir(name), setting.root / f"{name}-logs"
    arguments = [*words, "--config", str(setting.write_config(name))]
    servers = [server] * num_ranks
    started_s = time.monotonic()
    ranks = start_ranks(servers, arguments, logs, module=module, environment=fault.environment(run_dir))
    codes = ranks.wait(TIMEOUT_S)
    took_s = time.monotonic() - started_s
    ranks.kill()
    problems = judge_end(fault, codes, ranks.read(fault.rank or 0), fault.rank or 0)
    trial = go_on(
        servers,
        setting,
        reference,
        name,
        arguments,
        str(fault),
        module=module,
        spoilt_step=fault.spoilt_step,
    )
    problems += trial.problems
    if not problems:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.rmtree(logs, ignore_errors=True)
    detect_s = took_s if num_ranks > 1 and fault.mode == "kill" else None
    return Trial("disk", str(fault), problems, trial.lost_steps, trial.wrong, detect_s)


def judge_end(fault: DiskFault, codes: Sequence[int | None], printed: str, rank: int) -> tuple[str, ...]:
    """What was wrong with how the ranks ended; `printed` is by the one whose disk it was."""
    own, problems = codes[rank], []
    if None in codes:
        problems.append(
            f"ranks {[r for r, code in enumerate(codes) if code is None]} hung for {TIMEOUT_S:.0f} s"
        )
    if fault.mode == "kill" and own != KILLED:
        problems.append(f"ended with {own} though it was to be killed: the operation was not reached")
    if fault.mode == "enospc" and own not in (NO_SPACE, 0):
        problems.append(f"no space left ended with {own}, not {NO_SPACE}")
    if fault.mode == "short" and any(codes):
        problems.append(f"a short write ended the run with {codes}")
    if "Traceback" in printed and fault.mode != "kill":
        last = [line for line in printed.splitlines() if line and not line.startswith(" ")]
        problems.append(f"a traceback: {last[-1][:200] if last else ''}")
    if own not in (0, KILLED) and fault.mode != "kill" and "error" not in printed:
        problems.append("no error was told")
    return tuple(problems)


def go_on(
    servers: Sequence[ForkServer],
    setting: Setting,
    reference: Reference,
    name: str,
    arguments: Sequence[str],
    what: str,
    *,
    kind: Kind = "disk",
    module: str = "harness.train",
    allowed_lost: int | None = None,
    spoilt_step: int | None = None,
    address: str = "127.0.0.1",
) -> Trial:
    """Resume a broken run and compare its end with the unbroken one.

    Without any checkpoint there is nothing to resume; the run starts anew in an emptied folder, as its error says.
    A fault may spoil the save that was under way, which training does not wait for, but never the one before: unless
    `allowed_lost` says otherwise, the steps since that save was due may be lost, and one interval. The save was that of
    `spoilt_step`, or the last one that was due.
    """
    run_dir, problems = setting.run_dir(name), list[str]()
    done, whole = steps_done(run_dir), whole_steps(run_dir)
    newest = whole[-1] if whole else 0
    lost = done - newest
    last_due = done // setting.save_every * setting.save_every
    due = last_due if spoilt_step is None else min(spoilt_step, last_due)
    if lost > (done - due + setting.save_every if allowed_lost is None else allowed_lost):
        problems.append(f"{lost} steps were lost: {done} done, whole checkpoints {whole}")
    if not whole:
        shutil.rmtree(run_dir, ignore_errors=True)
    flags = ["--resume"] if whole else []
    ranks = start_ranks(
        servers, [*arguments, *flags], setting.root / f"{name}-logs", module=module, address=address
    )
    codes = ranks.wait(TIMEOUT_S)
    ranks.kill()
    printed, wrong = ranks.read(), False
    if any(codes):
        last = [line for line in printed.splitlines() if line.strip()]
        problems.append(f"the resume ended with {codes}: {last[-1][:300] if last else 'nothing printed'}")
    elif difference := find_difference(run_dir, reference):
        wrong = True
        problems.append(f"wrong resume from step {newest}: {difference}")
    return Trial(kind, what, tuple(problems), lost, wrong)
