"""A host that vanishes from a real training: `harness launch --max-restarts --elastic` goes on without it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.faults.hosts import hosts_at, wait_for
from bench.faults.kills import launch, wait_for_end
from bench.faults.ranks import fork_server
from bench.faults.setting import make_reference, make_setting, read_steps, steps_done
from tests.cluster import missing_means

MISSING = missing_means()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}"),
]

SAVE_EVERY = 4
KILLED_AFTER = 9


def test_a_run_whose_host_vanishes_ends_on_the_others_with_the_same_rows_and_losses(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    setting = make_setting(tmp_path, num_steps=30, save_every=SAVE_EVERY)
    with fork_server() as server, hosts_at(tmp_path / "cluster", with_servers=False) as hosts:
        reference = make_reference(setting, [server] * 3)
        run_dir, config = setting.run_dir("elastic"), setting.write_config("elastic")
        process = launch(setting, hosts, config, "--max-restarts", "2", "--elastic")
        assert wait_for(lambda: process.poll() is not None or steps_done(run_dir) >= KILLED_AFTER, 180)
        assert process.poll() is None, process.communicate()[0]
        hosts.kill_host(hosts.cluster.hosts[2])
        killed_s, killed_at = time.monotonic(), steps_done(run_dir)
        attempts = run_dir / "launch" / "attempts.jsonl"
        assert wait_for(attempts.exists, 90), "the loss was not noticed"
        noticed_s = time.monotonic() - killed_s
        went_on = wait_for(lambda: process.poll() is not None or steps_done(run_dir) > killed_at, 120)
        new_step_s = time.monotonic() - killed_s
        code, printed = wait_for_end(process)
        left = hosts.wait_until_clean()
    record_property("noticed_s", round(noticed_s, 1))
    record_property("new_step_s", round(new_step_s, 1))
    print(
        f"\nhost killed after step {killed_at}: ended in {noticed_s:.1f} s, next step in {new_step_s:.1f} s"
    )
    assert (code, went_on, left) == (0, True, {}), printed
    ends = [json.loads(line) for line in attempts.read_text().splitlines()]
    assert [(end["exit_code"], end["world_size"]) for end in ends] == [(6, 3), (0, 2)], printed
    assert hosts.cluster.hosts[2].name in ends[0]["why"]
    assert ends[0]["steps_lost"] <= SAVE_EVERY
    lines = {line["step"]: line for line in read_steps(run_dir)}
    assert sorted(lines) == sorted(reference.steps)
    counts = ("examples", "tokens", "supervised_tokens", "attention_pairs")
    for step, expected in reference.steps.items():
        assert lines[step]["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        if step > 0:
            assert [lines[step][name] for name in counts] == [expected[name] for name in counts]
