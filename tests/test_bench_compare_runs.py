"""`bench compare`: of training runs: made-up ones of known truth, and a real one with a sleep in its loader."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import yaml

import harness.loader
from bench.compare.runs import compare_runs, read_run_steps
from bench.compare.sides import compare_sides
from harness.json_lines import JsonObject, write_json_lines
from preprocess.errors import ConfigError
from tests.dist_ranks import run_ranks
from tests.runs import make_config, train_in_turn
from tests.toys import make_dataset, make_model_dir, make_tokenizer

PARTS = {
    "data": 0.02,
    "forward": 0.3,
    "loss": 0.08,
    "backward": 0.5,
    "wait": 0.02,
    "optimizer": 0.06,
    "other": 0.02,
}


def write_run(
    folder: Path,
    seed: int,
    num_steps: int = 80,
    factors: Mapping[str, float] | None = None,
    change: Callable[[JsonObject], JsonObject] = lambda line: line,
) -> Path:
    """A run of two ranks with 4 % of noise in each part, songs of other lengths in each step, a slow first step."""
    folder.mkdir()
    work, chance = np.random.default_rng(7), np.random.default_rng(seed)
    lines: list[JsonObject] = []
    for step in range(1, num_steps + 1):
        length = float(work.lognormal(0, 0.2))
        means = {part: mean * length * (factors or {}).get(part, 1.0) for part, mean in PARTS.items()}
        parts = {part: mean * float(chance.lognormal(0, 0.04)) for part, mean in means.items()}
        if step == 1:
            parts = {part: 10 * seconds for part, seconds in parts.items()}
        tokens = round(4000 * length)
        line = {
            "kind": "train",
            "step": step,
            "is_warmup": step == 1,
            **dict.fromkeys(("rows", "examples"), 6),
            "tokens": tokens,
            "supervised_tokens": tokens // 4,
            "slots": 6000,
            "step_time_s": sum(parts.values()),
            "parts_s": parts | ({"eval": 3.0} if step % 20 == 0 else {}),
        }
        lines.append(change(line))
        plain = {part: PARTS[part] * length for part in parts}
        by_rank = {part: [plain[part], seconds] for part, seconds in parts.items()}
        lines.append({"kind": "ranks", "step": step, "step_time_s": [1.0, 1.0], "parts_s": by_rank})
    write_json_lines(folder / "metrics.jsonl", lines)
    return folder


def find(a: Path, b: Path) -> tuple[dict[str, str], list[str]]:
    """Verdicts by quantity, and the remarks."""
    (found,) = compare_sides(str(a), str(b))
    return {one.name: one.verdict for one in found.findings}, found.remarks


def test_a_slow_loader_makes_a_run_worse_and_is_named(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", 1)
    b = write_run(tmp_path / "b", 2, factors={"data": 4.0})
    verdicts, remarks = find(a, b)
    assert verdicts["step"] == verdicts["part: data"] == "worse"
    assert [name for name, verdict in verdicts.items() if verdict == "worse"] == ["step", "part: data"]
    assert remarks[0].startswith("data: +6.")
    assert "most on rank 1" in remarks[0]
    assert find(b, a)[0]["part: data"] == "better"


def test_equal_runs_are_noise_nearly_always_and_five_percent_is_found(tmp_path: Path) -> None:
    found = []
    for seed in range(20):
        a = write_run(tmp_path / f"a{seed}", 100 + seed)
        b = write_run(tmp_path / f"b{seed}", 200 + seed)
        found.append(find(a, b)[0])
    assert sum(any(verdict != "noise" for verdict in verdicts.values()) for verdicts in found) <= 3
    slower = write_run(tmp_path / "slower", 3, factors=dict.fromkeys(PARTS, 1.05))
    assert find(tmp_path / "a0", slower)[0]["step"] == "worse"


def test_a_part_that_hardly_counts_is_no_change(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", 1)
    b = write_run(tmp_path / "b", 2, factors={"wait": 1.4})
    assert find(a, b)[0]["part: wait"] == "noise"


def test_runs_of_other_work_are_compared_by_token_with_a_warning(tmp_path: Path) -> None:
    def double(line: JsonObject) -> JsonObject:
        times = {part: 2 * seconds for part, seconds in line["parts_s"].items()}
        counts = {key: 2 * line[key] for key in ("tokens", "supervised_tokens", "slots", "examples", "rows")}
        return line | counts | {"step_time_s": 2 * line["step_time_s"], "parts_s": times}

    a = write_run(tmp_path / "a", 1, num_steps=200)
    b = write_run(tmp_path / "b", 2, num_steps=200, change=double)
    (found,) = compare_sides(str(a), str(b))
    assert found.findings[0].unit == "us/token"
    assert {one.name: one.verdict for one in found.findings}["step"] == "noise"
    assert any("work differs" in warning for warning in found.warnings)


def test_settings_and_versions_that_differ_are_told(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 1), write_run(tmp_path / "b", 2)
    for folder, rank, torch in ((a, 8, "2.13.0"), (b, 16, "2.14.0")):
        config = {"output_dir": str(folder), "lora": {"r": rank, "alpha": 16}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (folder / "versions.json").write_text(json.dumps({"torch": torch}), encoding="utf-8")
    warnings = compare_runs(read_run_steps(a), read_run_steps(b)).warnings
    assert warnings == [
        "versions differ: torch is 2.13.0 in A, 2.14.0 in B",
        "settings differ: lora.r is 8 in A, 16 in B",
    ]


def test_a_run_of_an_older_version_leaves_its_first_step_out(tmp_path: Path) -> None:
    def age(line: JsonObject) -> JsonObject:
        return {key: value for key, value in line.items() if key != "is_warmup"}

    assert len(read_run_steps(write_run(tmp_path / "a", 1, num_steps=20, change=age)).steps) == 19


def test_a_run_too_short_is_refused(tmp_path: Path) -> None:
    short = write_run(tmp_path / "short", 1, num_steps=4)
    with pytest.raises(ConfigError, match="got 3 steps after warm-up"):
        compare_sides(str(short), str(short))


def test_runs_that_differ_from_run_to_run_are_told_apart_only_by_several_of_them(tmp_path: Path) -> None:
    """The machine is slower or faster by some percent for a whole run: one run a side mistakes that for a change."""
    moods = np.random.default_rng(5).lognormal(0, 0.05, 8)

    def write(name: str, index: int, factor: float) -> str:
        factors = dict.fromkeys(PARTS, factor * moods[index])
        return str(write_run(tmp_path / name, 50 + index, num_steps=40, factors=factors))

    a, b = (",".join(write(f"{side}{i}", 4 * j + i, 1.0) for i in range(4)) for j, side in enumerate("ab"))
    slow = ",".join(write(f"slow{i}", 4 + i, 1.5) for i in range(4))
    (alone,) = compare_sides(a.split(",")[0], b.split(",")[0])
    assert alone.findings[0].verdict != "noise"
    (together,) = compare_sides(a, b)
    assert {one.verdict for one in together.findings} == {"noise"}
    (found,) = compare_sides(a, slow)
    assert found.findings[0].verdict == "worse"
    assert found.findings[0].n == (4, 4)
    with pytest.raises(ConfigError, match="got 4 runs against 1"):
        compare_sides(a, b.split(",")[0])


def train_fast_and_slow(fast: Path, slow: Path) -> None:
    """Train twice; the second time laying out a step's rows takes thrice a step's time longer.

    Less than a step would not show: rows are laid out beside the step before.
    """
    plain = harness.loader.load_step
    train_in_turn([fast])
    sleep_s = 3 * statistics.median(
        line["step_time_s"] for line in read_run_steps(fast.with_suffix("")).steps
    )

    def sleep_and_load(*args: Any, **kwargs: Any) -> Any:
        time.sleep(sleep_s)
        return plain(*args, **kwargs)

    with patch("harness.loader.load_step", sleep_and_load):
        train_in_turn([slow])


@pytest.mark.slow
def test_a_sleep_in_the_loader_of_a_real_run_is_found_and_its_own_halves_are_equal(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", num_songs=40, seq_len=192, num_eval_songs=6, num_lines=2)
    make_model_dir(tmp_path / "model", make_tokenizer().vocab_size)
    options = ["schedule.max_steps=33", "batch.global_batch_size=2"]
    configs = [
        make_config(tmp_path, tmp_path / name, tmp_path / "data", tmp_path / "model", options)
        for name in ("fast", "slow")
    ]
    run_ranks(train_fast_and_slow, 1, *configs, timeout_s=400)
    verdicts, remarks = find(tmp_path / "fast", tmp_path / "slow")
    assert (verdicts["step"], verdicts["part: data"]) == ("worse", "worse")
    assert remarks[0].startswith("data: ")
    lines = read_run_steps(tmp_path / "slow").steps
    halves = []
    for half in (0, 1):
        (tmp_path / f"half{half}").mkdir()
        steps = [line | {"step": i, "is_warmup": False} for i, line in enumerate(lines[half::2])]
        write_json_lines(tmp_path / f"half{half}" / "metrics.jsonl", steps)
        halves.append(read_run_steps(tmp_path / f"half{half}"))
    # A fifth: an interval at 95 % is wrong in one of twenty, and this must not fail so often.
    assert compare_runs(halves[0], halves[1], min_change=0.2).findings[0].verdict == "noise"
