"""Flipped bytes and bits, and cut files, in checkpoints and data sets: what checks them must find and name each."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.faults.disk import TIMEOUT_S
from bench.faults.ranks import ForkServer, fork_server, start_ranks
from bench.faults.setting import (
    Setting,
    find_damage,
    find_difference,
    make_reference,
    read_reference,
    whole_steps,
)
from bench.faults.trial import Kind, Trial
from preprocess.check import verify
from preprocess.errors import DataError
from preprocess.manifest import check_hashes, read_manifest
from preprocess.shards import open_split

BAD_DATA, BAD_CHECKPOINT = 4, 5
SHARE_OF_DATA = 3  # one fault in so many is in the data set


def find_data_damage(folder: Path) -> str | None:
    """What the start of a training finds wrong with the shards, as it opens them."""
    try:
        manifest = read_manifest(folder)
        check_hashes(folder, manifest)
        for split in manifest.splits:
            open_split(folder, split, manifest)
    except DataError as error:
        return str(error)
    return None


def find_data_set_damage(folder: Path) -> str | None:
    """What `python -m preprocess verify` finds wrong with a data set."""
    try:
        report = verify.find_damage(folder)
        verify.refuse_damage(report)
    except DataError as error:
        return str(error) + str(report.to_dict()) if "report" in locals() else str(error)
    return None


Damage = Callable[[Path], str | None]


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def run_flips(setting: Setting, num_flips: int, num_cuts: int, seed: int) -> Iterator[Trial]:
    """Damage checkpoints and data sets so often, one file at a time; then whole commands a few times."""
    with fork_server() as server:
        make_reference(setting, [server] * 2, "flips")
        run_dir = setting.run_dir("flips")
        checkpoint = run_dir / f"checkpoint-{whole_steps(run_dir)[-1]}"
        data = setting.root / "flipped-data"
        shutil.copytree(setting.root / "data", data)
        shards = [path for path in files_of(data) if path.suffix == ".arrow"]
        places: list[tuple[Path, list[Path], Damage]] = [
            (checkpoint, files_of(checkpoint), find_damage),
            (data, shards, find_data_damage),
            (data, shards, find_data_set_damage),
        ]
        chance = random.Random(seed)
        for action, number in ((flip, num_flips), (cut, num_cuts)):
            for index in range(number):
                folder, files, check = places[0 if index % SHARE_OF_DATA else 1 + index // SHARE_OF_DATA % 2]
                path = files[index // 2 % len(files)]
                yield try_damage(folder, path, action, check, chance)
        others = [path for path in files_of(data) if path.suffix != ".arrow"]
        for index in range(num_cuts):
            action = cut if index % 4 == 0 else flip
            path = others[index % len(others)]
            yield try_damage(data, path, action, find_data_set_damage, chance, "side file")
        yield from try_commands(server, setting, chance)


def flip(content: bytearray, chance: random.Random) -> str:
    """Change one byte, in half of the cases by one bit; returns what was done."""
    place = chance.randrange(len(content))
    mask = 1 << chance.randrange(8) if chance.random() < 0.5 else chance.randrange(1, 256)
    content[place] ^= mask
    return f"byte {place} xor {mask}"


def cut(content: bytearray, chance: random.Random) -> str:
    """Drop an end of at least one byte; returns what was done."""
    length = chance.randrange(len(content))
    del content[length:]
    return f"cut to {length} bytes"


def try_damage(
    folder: Path,
    path: Path,
    action: Callable[[bytearray, random.Random], str],
    check: Damage,
    chance: random.Random,
    kind: Kind = "flip",
) -> Trial:
    """Damage a file, see whether the check finds and names it, and put it right again."""
    whole = path.read_bytes()
    content = bytearray(whole)
    what = f"{path.relative_to(folder)} of {folder.name}: {action(content, chance)} ({check.__name__})"
    path.write_bytes(content)
    problems = []
    try:
        found = check(folder)
    except Exception as error:  # noqa: BLE001 - whatever is not the user's error is the finding
        problems.append(f"an unforeseen {type(error).__name__}: {error}")
    else:
        # A manifest names the others: damage in one of its entries may show as damage of that file.
        if found is None:
            problems.append("not found")
        elif path.name not in found and "manifest" not in path.name:
            problems.append(f"found, but its file is not named: {found[:200]}")
    finally:
        path.write_bytes(whole)
    return Trial(kind, what, tuple(problems))


def try_commands(server: ForkServer, setting: Setting, chance: random.Random) -> Iterator[Trial]:
    """A resume from a damaged newest checkpoint, from nothing but damaged ones, and a start on damaged shards."""
    run_dir = setting.run_dir("flips")
    reference = read_reference(run_dir)
    config = setting.write_config("flips")
    arguments = ["--config", str(config), "--resume"]
    steps = whole_steps(run_dir)
    newest = run_dir / f"checkpoint-{steps[-1]}"
    path = max(files_of(newest), key=lambda one: one.stat().st_size)
    damage_in_place(path, chance)
    ranks = start_ranks([server] * 2, arguments, setting.root / "flips-resume-logs")
    codes, problems = ranks.wait(TIMEOUT_S), []
    ranks.kill()
    printed = ranks.read().replace("\n", "")
    if codes != [0, 0]:
        problems.append(f"ended with {codes}")
    if newest.name not in printed or path.name not in printed:
        problems.append(f"what was passed over is not told: {printed[:300]}")
    difference = find_difference(run_dir, reference) if codes == [0, 0] else None
    problems += [f"wrong resume: {difference}"] if difference else []
    yield Trial("flip", f"resume with a damaged {newest.name}", tuple(problems), wrong=difference is not None)

    for step in whole_steps(run_dir):
        damage_in_place(files_of(run_dir / f"checkpoint-{step}")[0], chance)
    yield try_command(server, setting, arguments, "resume with nothing but damage", BAD_CHECKPOINT)
    for split in ("train", "eval"):
        data = setting.root / f"bad-{split}"
        shutil.copytree(setting.root / "data", data)
        shard = next((data / split).glob("*.arrow"))
        damage_in_place(shard, chance)
        start = ["--config", str(setting.write_config(f"bad-{split}-run", data__path=str(data)))]
        yield try_command(server, setting, start, f"start on a damaged {split} shard", BAD_DATA, shard.name)


def damage_in_place(path: Path, chance: random.Random) -> None:
    """Flip a byte of a file for good."""
    content = bytearray(path.read_bytes())
    flip(content, chance)
    path.write_bytes(content)


def try_command(
    server: ForkServer,
    setting: Setting,
    arguments: list[str],
    what: str,
    code: int,
    name: str = "",
    *,
    module: str = "harness.train",
) -> Trial:
    """A start that must be refused with a code, without a traceback, and naming a file."""
    ranks = start_ranks([server], arguments, setting.root / f"{what.replace(' ', '-')}-logs", module=module)
    (ended,) = ranks.wait(TIMEOUT_S)
    ranks.kill()
    printed = ranks.read()
    problems = [] if ended == code else [f"ended with {ended}, not {code}"]
    problems += ["a traceback"] if "Traceback" in printed else []
    problems += [] if name in printed.replace("\n", "") else [f"{name} is not named: {printed[-300:]}"]
    return Trial("flip", what, tuple(problems))
