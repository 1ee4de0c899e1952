"""`harness evaluate --hostfile` on three real hosts: each song once, one file, the figures of one process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from harness.config import DataSettings, ModelSettings, RunConfig
from harness.evaluation.run import evaluate_model
from preprocess.settings import dump_settings
from tests.cluster import Cluster, missing_means, run_on, three_hosts
from tests.evaluations import figures_of, make_evaluated, make_settings

MISSING = missing_means()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}"),
]

REPOSITORY = Path(__file__).parent.parent
ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(REPOSITORY)]),
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with three_hosts(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_evaluated(tmp_path_factory.mktemp("made"))


def write_run(made: Path) -> Path:
    """A run's folder, which asks for float32: the figures do not depend on what is computed beside what."""
    model = ModelSettings(path=str(made / "model"), precision="fp32")
    config = RunConfig(output_dir=made / "run", model=model, data=DataSettings(path=made / "data"))
    (made / "run").mkdir(exist_ok=True)
    (made / "run" / "config.yaml").write_text(dump_settings(config), encoding="utf-8")
    return made / "run"


def command(made: Path, hostfile: Path, output: Path) -> list[str]:
    options = [
        "--run",
        str(write_run(made)),
        "--adapter",
        str(made / "adapter"),
    ]
    options += [
        "--output",
        str(output),
        "--hostfile",
        str(hostfile),
        "--max-new-tokens",
        "8",
        "--no-baselines",
    ]
    return [sys.executable, "-m", "harness", "evaluate", *options, "--json"]


def test_three_hosts_share_the_songs_and_write_one_file(cluster: Cluster, made: Path, tmp_path: Path) -> None:
    hostfile = cluster.write_hostfile(tmp_path / "hosts")
    run_on(cluster.hosts[0], command(made, hostfile, tmp_path / "out"), ENVIRONMENT, REPOSITORY, 300.0)
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text("utf-8"))
    (alone,) = evaluate_model(make_settings(made, baselines=False), Console(quiet=True))
    assert summary["num_ranks"] == 3
    assert figures_of(summary) == figures_of(json.loads(json.dumps(alone.summary)))
    lines = (tmp_path / "out" / "evaluation_samples.jsonl").read_text("utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    keys = [(one["system"], one["method"], one["task"], one["song_id"]) for one in samples]
    assert keys == [(one.system, one.method, one.task, one.song_id) for one in alone.results]
    assert not (tmp_path / "out" / "launch").exists()  # which would count as starts of a training run


def test_what_is_wrong_on_the_hosts_ends_all_with_its_own_code(
    cluster: Cluster, made: Path, tmp_path: Path
) -> None:
    hostfile = cluster.write_hostfile(tmp_path / "hosts")
    wrong = [
        word.replace(str(made / "adapter"), str(tmp_path))
        for word in command(made, hostfile, tmp_path / "out")
    ]
    result = run_on(cluster.hosts[0], wrong, ENVIRONMENT, REPOSITORY, 300.0, check=False)
    assert result.returncode == 5
    assert "adapter_config.json" in result.stdout
