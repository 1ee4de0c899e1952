"""The fault suite's own parts: what it counts, compares and reports. No run is started."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bench.__main__ as command_line
from bench.faults import QUICK, read_seed, scale_numbers, summarize_trials
from bench.faults.disk import DiskFault, all_faults, build_library, judge_end, pick_evenly
from bench.faults.flips import cut, find_data_damage, flip, try_damage
from bench.faults.kills import TARGETS, draw_kills
from bench.faults.setting import Setting, find_difference, read_reference
from bench.faults.stops import pick_moments
from bench.faults.trial import Trial, count_up
from preprocess.errors import ConfigError

WRITER = (
    "import os, sys; from pathlib import Path; folder = Path(sys.argv[1]) / 'checkpoint-1'; folder.mkdir()\n"
    "with open(folder / 'a', 'wb', buffering=0) as file:\n"
    "    print(file.write(b'0123456789')); os.fsync(file.fileno())\n"
    "os.rename(folder / 'a', folder / 'b'); os.unlink(folder / 'b'); Path(sys.argv[1], 'other').touch()"
)
OPERATIONS = ["mkdir", "open", "write", "fsync", "rename", "unlink"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


def run_on_faulty_disk(library: Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"LD_PRELOAD": str(library), "FAULTY_PREFIX": str(folder), **variables}
    command = [sys.executable, "-c", WRITER, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_faulty_disk_counts_what_checkpointing_does_and_nothing_else(
    library: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    assert run_on_faulty_disk(library, tmp_path, FAULTY_LOG=str(log)).returncode == 0
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [kind for _, kind, _ in lines] == OPERATIONS
    assert [int(number) for number, _, _ in lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", range(1, 7))
def test_each_operation_can_fail(library: Path, tmp_path: Path, number: int) -> None:
    ended = run_on_faulty_disk(library, tmp_path, FAULTY_AT=str(number), FAULTY_MODE="eio")
    assert "[Errno 5]" in ended.stderr
    assert ended.returncode == 1


def test_a_kill_a_full_disk_and_a_short_write_are_what_they_say(library: Path, tmp_path: Path) -> None:
    for name in ("killed", "full", "short", "elsewhere"):
        (tmp_path / name).mkdir()
    assert (
        run_on_faulty_disk(library, tmp_path / "killed", FAULTY_AT="4", FAULTY_MODE="kill").returncode == -9
    )
    full = run_on_faulty_disk(library, tmp_path / "full", FAULTY_AT="3", FAULTY_MODE="enospc")
    assert "No space left" in full.stderr
    short = run_on_faulty_disk(library, tmp_path / "short", FAULTY_AT="3", FAULTY_MODE="short")
    assert (short.returncode, short.stdout) == (0, "5\n")
    spared = run_on_faulty_disk(
        library, tmp_path / "elsewhere", FAULTY_AT="3", FAULTY_MODE="eio", FAULTY_RANK="1", RANK="0"
    )
    assert spared.returncode == 0


def test_faults_are_spread_over_every_operation_and_mode() -> None:
    faults = all_faults(["mkdir a", "write b", "unlink c"])
    assert [fault.mode for fault in faults] == [
        *("kill", "enospc", "eio"),
        *("kill", "enospc", "eio", "short"),
        *("kill", "eio"),
    ]
    assert pick_evenly(faults, 99, 0) == faults
    picked = pick_evenly(faults, 5, 7)
    assert picked == sorted(set(picked), key=faults.index)
    assert len(picked) == 5
    assert picked == pick_evenly(faults, 5, 7)


@pytest.mark.parametrize(
    ("mode", "code", "printed", "said"),
    [
        ("kill", 0, "", "not reached"),
        ("enospc", 1, "error: x", "not 9"),
        ("eio", 1, "error\nTraceback (most recent call last):", "traceback"),
        ("eio", 4, "", "no error was told"),
        ("short", 9, "error: full", "short write"),
        ("eio", None, "error", "hung"),
    ],
)
def test_a_bad_end_is_seen(mode: str, code: int | None, printed: str, said: str) -> None:
    assert any(said in problem for problem in judge_end(DiskFault(1, "write a", mode), [code], printed, 0))


@pytest.mark.parametrize(("mode", "code"), [("kill", -9), ("enospc", 9), ("eio", 5), ("short", 0)])
def test_a_good_end_is_no_problem(mode: str, code: int) -> None:
    assert not judge_end(DiskFault(1, "write a", mode), [code], "error: what to do", 0)


def write_run(folder: Path, losses: list[float]) -> Path:
    folder.mkdir()
    lines = [{"kind": "train", "step": i, "loss": loss, "s": i} for i, loss in enumerate(losses, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_equals_its_reference_in_every_step_and_no_other_does(tmp_path: Path) -> None:
    reference = read_reference(write_run(tmp_path / "a", [3.0, 2.0]))
    assert find_difference(write_run(tmp_path / "b", [3.0, 2.0]), reference) is None
    assert find_difference(write_run(tmp_path / "c", [3.0, 2.0000001]), reference) == "step 2 differs in loss"
    assert "lacks ['step 2'] and has []" in str(find_difference(write_run(tmp_path / "d", [3.0]), reference))


def test_damage_that_no_check_finds_or_names_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(b"0123456789")
    chance = random.Random(0)

    def crash(folder: Path) -> str | None:
        raise KeyError(folder)

    for check, said in ((lambda _: None, "not found"), (lambda _: "bad", "not named"), (crash, "KeyError")):
        trial = try_damage(tmp_path, path, flip, check, chance)
        assert said in trial.problems[0]
    assert try_damage(tmp_path, path, cut, lambda _: "a.arrow is damaged", chance).survived
    assert path.read_bytes() == b"0123456789"


def test_flips_and_cuts_of_shards_are_found(toy_dataset: Path) -> None:
    chance = random.Random(3)
    for shard in sorted(toy_dataset.rglob("*.arrow")):
        for action in (flip, flip, cut):
            trial = try_damage(toy_dataset, shard, action, find_data_damage, chance)
            assert trial.survived, trial


def test_moments_and_kills_are_drawn_as_asked(tmp_path: Path) -> None:
    setting = Setting(tmp_path, num_steps=16)
    moments = pick_moments(setting, 20)
    assert len(set(moments)) == 20
    assert {name for _, name in moments} == {"SIGTERM", "SIGKILL"}
    kills = draw_kills(setting, 21, seed=5)
    assert [kill.target for kill in kills] == list(TARGETS) * 3
    assert kills == draw_kills(setting, 21, seed=5) != draw_kills(setting, 21, seed=6)


def test_the_report_counts_each_kind() -> None:
    trials = [
        Trial("kill", "a", (), 2, detect_s=1.0),
        Trial("kill", "b", ("wrong",), 4, wrong=True, detect_s=3.0),
        Trial("flip", "c"),
    ]
    kill, flipped = count_up(trials)
    assert (kill.tried, kill.survived, kill.max_lost_steps, kill.wrong_resumes) == (2, 1, 4, 1)
    assert (kill.detect_median_s, kill.detect_max_s) == (2.0, 3.0)
    assert (flipped.tried, flipped.survived, flipped.detect_max_s) == (1, 1, None)
    outcome = summarize_trials(trials, {"kills": 5.0}, 7)
    assert outcome.failures == [{"kind": "kill", "what": "b", "problems": ["wrong"]}]
    assert outcome.facts["seed"] == 7
    assert outcome.figures["kill: time to detect and end"].median == 2.0


def test_numbers_and_the_seed_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYRICS_FAULTS_SCALE", "0.1")
    monkeypatch.setenv("LYRICS_FAULTS_SEED", "12")
    assert scale_numbers({"disk": 150, "kills": 3}) == {"disk": 15, "kills": 1}
    assert read_seed() == 12
    monkeypatch.setenv("LYRICS_FAULTS_SCALE", "much")
    with pytest.raises(ConfigError, match="much"):
        scale_numbers(QUICK)


def test_a_part_that_is_not_there_is_refused() -> None:
    for arguments in (["faults", "--only", "earthquake"], ["pack", "--only", "kills"]):
        ended = CliRunner().invoke(command_line.app, arguments)
        assert ended.exit_code == 2
