"""A profile and the stacks of a live run on three hosts that are reached over ssh alone."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from harness.profiling.summary import read_summary
from tests.cluster import missing_means, run_on, start_on, three_hosts
from tests.runs import REPOSITORY, make_config
from tests.toys import make_dataset, make_model_dir, make_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(bool(missing_means()), reason=missing_means() or "none"),
]

TIMEOUT_S = 420.0


def test_three_hosts_are_profiled_and_tell_their_stacks_while_they_train(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", num_songs=12, seq_len=256, num_eval_songs=0)
    make_model_dir(tmp_path / "model", make_tokenizer().vocab_size)
    run, profile = tmp_path / "run", tmp_path / "run" / "profile" / "summary.json"
    small = ("batch.global_batch_size=3", "schedule.max_steps=100000", "schedule.epochs=100000")
    config = make_config(tmp_path, run, tmp_path / "data", tmp_path / "model", small)
    env = {"PYTHONPATH": str(REPOSITORY), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    with three_hosts(tmp_path) as cluster:
        first = cluster.hosts[0]
        hostfile = cluster.write_hostfile(tmp_path / "hosts")
        command = [sys.executable, "-m", "harness", "launch", "--hostfile", str(hostfile), "--no-doctor"]
        command += ["--config", str(config), "--profile", "steps=3:5"]
        launch = start_on(first, command, env, REPOSITORY)
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not profile.exists():
                assert launch.poll() is None, launch.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.5)
            stacks = [sys.executable, "-m", "harness", "stacks", str(run), "--json"]
            told = run_on(first, stacks, env, REPOSITORY, timeout=120).stdout
        finally:
            os.killpg(launch.pid, signal.SIGTERM)
            launch.communicate(timeout=120)
    found = json.loads(told[told.index("{") :])
    assert [one["rank"] for one in found["stacks"]] == [0, 1, 2]
    assert found["silent_hosts"] == {}
    for one in found["stacks"]:
        assert one["how"] in ("py-spy", "faulthandler"), one["note"]
        assert "train_step" in one["text"] or "take_step" in one["text"] or "harness" in one["text"]
    summary = read_summary(profile)
    assert [rank.rank for rank in summary.ranks] == [0, 1, 2]
    assert summary.steps == (3, 4)
    assert summary.notes == ()
