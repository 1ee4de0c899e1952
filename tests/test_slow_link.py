"""A link that is slow on one of three hosts: the report and `bench compare` find it in real runs, and name the part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.__main__ import app as bench
from bench.faults.hosts import Hosts, hosts_at
from bench.faults.ranks import start_ranks
from bench.faults.setting import Setting, make_setting
from harness.__main__ import app as harness
from tests.cluster import missing_means

MISSING = missing_means()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}"),
]

NUM_STEPS = 40
SLOW_MBIT = 10.0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Folders of a run on even links, and of one with a slow link at the third host."""
    folder = tmp_path_factory.mktemp("slow_link")
    setting = make_setting(folder, num_steps=NUM_STEPS, save_every=NUM_STEPS)
    with hosts_at(folder / "cluster", with_servers=True) as hosts:
        even = train(setting, hosts, "even")
        hosts.cluster.shape_link(hosts.cluster.hosts[2], mbit=SLOW_MBIT)
        yield even, train(setting, hosts, "slow")


def train(setting: Setting, hosts: Hosts, name: str) -> Path:
    config = setting.write_config(name, lora__r=16, lora__targets=TARGETS)
    address = hosts.cluster.hosts[0].address
    ranks = start_ranks(
        hosts.servers, ["--config", str(config)], setting.root / f"{name}-logs", address=address
    )
    codes = ranks.wait(240)
    ranks.kill()
    assert codes == [0, 0, 0], ranks.read()
    return setting.run_dir(name)


def warn(folder: Path) -> list[str]:
    result = CliRunner().invoke(harness, ["report", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    found: list[str] = [one["text"] for one in json.loads(result.stdout)["warnings"]]
    return found


def compare(a: Path, b: Path) -> dict[str, dict[str, Any]]:
    """What `bench compare` finds of the step and of each part."""
    result = CliRunner().invoke(bench, ["compare", str(a), str(b), "--json"])
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["comparisons"]
    return {finding["name"]: finding for finding in found["findings"]}


def test_the_report_tells_of_communication_and_of_an_even_run_says_nothing_of_it(
    runs: tuple[Path, Path],
) -> None:
    even, slow = runs
    assert any("ommunication" in text for text in warn(slow)), warn(slow)
    assert not any("ommunication" in text for text in warn(even)), warn(even)


def test_a_comparison_finds_the_step_worse_and_names_communication(runs: tuple[Path, Path]) -> None:
    found = compare(*runs)
    assert found["step"]["verdict"] == "worse"
    parts = {name: finding for name, finding in found.items() if name.startswith("part: ")}
    assert parts["part: communication"]["verdict"] == "worse"
    assert max(parts, key=lambda name: float(parts[name]["change"])) == "part: communication"
