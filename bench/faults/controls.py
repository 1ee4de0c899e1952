"""Builds that are broken on purpose (tests/faults/broken.py): each must fail the check that is there for it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bench.faults.disk import DiskFault, count_operations, faulty_disk_server, go_on, try_disk_fault
from bench.faults.flips import BAD_DATA, damage_in_place, files_of, try_command
from bench.faults.ranks import ForkServer
from bench.faults.setting import Reference, Setting, find_difference, make_reference, whole_steps
from bench.faults.stops import try_stop
from bench.faults.trial import Trial

BROKEN = "tests.faults.broken"


def run_controls(setting: Setting, number: int) -> Iterator[Trial]:
    """Every control, or the first so many. A control survives when its check fails."""
    with faulty_disk_server(setting.root) as server:
        reference = make_reference(setting, [server], "controls-reference")
        checks: dict[str, Callable[[str], Trial]] = {
            "forgotten-moments": partial(check_stop, setting, server, reference),
            "restarted-order": partial(check_stop, setting, server, reference),
            "swallowed-code": partial(check_shard, setting, server),
            "unhashed-shards": partial(check_shard, setting, server),
            "unhashed-checkpoint": partial(check_checkpoint, setting, server, reference),
            "half-saved": partial(check_stop, setting, server, reference),
            "pruned-early": partial(check_killed_save, setting, server, reference),
        }
        for name in list(checks)[:number]:
            found = checks[name](name)
            problems = () if found.problems else (f"not found by {found.what}",)
            yield Trial("control", f"{name}: found: {'; '.join(found.problems)[:200]}", problems)
            for folder in setting.root.glob("*"):
                if folder.name not in ("data", "model", "controls-reference", "faulty_disk.so"):
                    shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


def check_stop(setting: Setting, server: ForkServer, reference: Reference, name: str) -> Trial:
    """Is a run that is killed after its second save resumed bit for bit?"""
    moment = f"between:{2 * setting.save_every}"
    return try_stop(setting, [server], reference, moment, "SIGKILL", BROKEN, [name])


def check_shard(setting: Setting, server: ForkServer, name: str) -> Trial:
    """Is a damaged shard refused with its code?"""
    data = setting.root / "bad"
    shutil.copytree(setting.root / "data", data)
    shard = next((data / "train").glob("*.arrow"))
    damage_in_place(shard, random.Random(0))
    config = setting.write_config("bad-run", data__path=str(data))
    return try_command(
        server,
        setting,
        [name, "--config", str(config)],
        "a damaged shard",
        BAD_DATA,
        shard.name,
        module=BROKEN,
    )


def check_checkpoint(setting: Setting, server: ForkServer, reference: Reference, name: str) -> Trial:
    """Is a newest checkpoint with flipped bytes in every file passed over?"""
    config = setting.write_config("flipped")
    make_reference(setting, [server], "flipped")
    run_dir = setting.run_dir("flipped")
    newest = run_dir / f"checkpoint-{whole_steps(run_dir)[-1]}"
    for path in files_of(newest):
        if path.suffix not in (".json", ".py"):
            content = bytearray(path.read_bytes())
            for place in range(len(content) // 2, len(content), 97):
                content[place] ^= 1
            path.write_bytes(content)
    arguments: Sequence[str] = [name, "--config", str(config)]
    trial = go_on([server], setting, reference, "flipped", arguments, "a damaged checkpoint", module=BROKEN)
    difference = find_difference(run_dir, reference)
    return trial if trial.problems or not difference else Trial("disk", trial.what, (difference,))


def check_killed_save(setting: Setting, server: ForkServer, reference: Reference, name: str) -> Trial:
    """Is at most one interval lost when the second save is killed?"""
    operations = count_operations(server, setting, "controls-count", 1, 0)
    second = f"checkpoint-{2 * setting.save_every}"
    number = next(n for n, text in enumerate(operations, start=1) if second in text and "write" in text)
    fault = DiskFault(number, operations[number - 1], "kill")
    return try_disk_fault(server, setting, reference, fault, 1, BROKEN, [name])
