"""docs/profiling.md kept true: its settings and links are there, its commands run and print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from harness.config import ProfileSettings
from harness.profiling.collect import MAX_SENT_BYTES
from harness.profiling.steps import MAX_STEPS
from tests.runs import REPOSITORY, make_config
from tests.toys import make_dataset, make_model_dir, make_tokenizer

PAGE = (REPOSITORY / "docs" / "profiling.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return [block.strip() for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    words = [sys.executable if word == "python" else word for word in command.split()]
    return subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_setting_is_on_the_page_and_limits_are_those_of_the_code() -> None:
    assert set(re.findall(r"`profile\.(\w+)`", PAGE)) == set(ProfileSettings.model_fields)
    assert f"At most {MAX_STEPS} steps" in PAGE
    assert f"up to {MAX_SENT_BYTES >> 20} MiB" in PAGE
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (REPOSITORY / "docs" / link).exists(), link


def test_the_pages_commands_run_as_they_stand(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", num_songs=6, seq_len=256, num_eval_songs=0)
    make_model_dir(tmp_path / "model", make_tokenizer().vocab_size)
    small = ("batch.global_batch_size=1", "schedule.max_steps=4")
    config = make_config(tmp_path, tmp_path / "profiled-run", tmp_path / "data", tmp_path / "model", small)
    config.rename(tmp_path / "run.yaml")
    train, head, stacks = commands()
    trained = run(train, tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "profile of steps 2, 3" in " ".join(trained.stdout.split())
    assert "USDT" not in trained.stderr
    shown = run(head, tmp_path).stdout
    assert shown.startswith("Steps 2, 3 (asked for: 2:4), 1 ranks.")
    assert "gaps" in shown
    ended = run(stacks, tmp_path)
    assert ended.returncode == 6
    assert "no rank of this run is alive" in ended.stderr
