from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cluster import Cluster, missing_means, run_on, start_on, three_hosts
from tests.runs import make_config, read_adapter, read_losses, train_on_ranks
from tests.toys import make_dataset, make_model_dir, make_tokenizer

MISSING = missing_means()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}")]

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
STAGES = ("zero1", "zero3")
ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(REPOSITORY)]),
}
LAUNCH = (
    "import sys; from pathlib import Path; from harness.cluster.launch import launch; "
    "from preprocess.errors import UserError\n"
    "try: sys.exit(launch(*map(Path, sys.argv[1:4]), module=sys.argv[4], host_timeout_s=3))\n"
    "except UserError as error: print('refused:', error); sys.exit(error.exit_code)"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with three_hosts(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def launch_command(cluster: Cluster, tmp_path: Path, **config: Any) -> list[str]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"reports": str(tmp_path), **config}))
    hostfile = cluster.write_hostfile(tmp_path / "hosts")
    return [sys.executable, "-c", LAUNCH, str(path), str(hostfile), str(tmp_path / "launch"), "rank_program"]


def read_reports(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(3)]


def wait_for_reports(tmp_path: Path) -> list[dict[str, Any]]:
    for _ in range(600):
        if len(list(tmp_path.glob("rank-*.json"))) == 3:
            return read_reports(tmp_path)
        time.sleep(0.1)
    raise AssertionError("the ranks did not start within a minute")


def running(reports: list[dict[str, Any]]) -> list[int]:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return "gone"

    return [report["pid"] for report in reports if state(report["pid"]) not in ("gone", "Z")]


def check_one_rank_a_host(cluster: Cluster, reports: list[dict[str, Any]]) -> None:
    addresses = [host.address for host in cluster.hosts]
    assert [report["addresses"] for report in reports] == [[address] for address in addresses]
    assert [report["host"] for report in reports] == addresses
    assert [report["total"] for report in reports] == [6.0] * 3


def test_deepspeeds_own_launcher_starts_one_rank_on_each_host(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"reports": str(tmp_path)}))
    (tmp_path / "environment").write_text("DS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\n")
    hostfile = cluster.write_hostfile(tmp_path / "hosts")
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile)]
    command += ["--module", "rank_program", "--config", str(tmp_path / "config.json")]
    environment = {**ENVIRONMENT, "DS_ENV_FILE": str(tmp_path / "environment")}
    run_on(cluster.hosts[0], command, environment, REPOSITORY)
    check_one_rank_a_host(cluster, read_reports(tmp_path))


def test_the_launch_reaches_three_hosts_with_its_variables_and_without_its_secrets(
    cluster: Cluster, tmp_path: Path
) -> None:
    secret = "hunter2" + os.urandom(4).hex()
    odd = "a \"b\" 'c' $HOME `id` \\ 100%h"
    secrets = {"HF_TOKEN": secret, "MLFLOW_TRACKING_PASSWORD": secret, "NCCL_KEY": secret}
    command = launch_command(cluster, tmp_path, secret=secret)
    environment = {**ENVIRONMENT, **secrets, "HF_ODD": odd, "NCCL_DEBUG": "WARN"}
    result = run_on(cluster.hosts[0], command, environment, REPOSITORY)
    assert secret not in result.stdout
    assert "HF_TOKEN" in result.stdout
    reports = read_reports(tmp_path)
    check_one_rank_a_host(cluster, reports)
    for report in reports:
        seen: Mapping[str, str] = report["environment"]
        expected = {"HF_ODD": odd, "NCCL_DEBUG": "WARN", "LYRICS_WORLD_SIZE": "3", "DS_ACCELERATOR": "cpu"}
        assert expected.items() <= seen.items()
        assert not secrets.keys() & seen.keys()
        assert not report["secret_shown"]
    assert not running(reports)


@pytest.mark.parametrize(("end", "code"), [("exit:4", 4), ("orphan", 6), ("kill", 6)])
def test_one_bad_host_ends_the_others_with_the_true_code(
    cluster: Cluster, tmp_path: Path, end: str, code: int
) -> None:
    command = launch_command(cluster, tmp_path, ends={"0": "sleep", "1": end, "2": "sleep"})
    result = run_on(cluster.hosts[0], command, ENVIRONMENT, REPOSITORY, timeout=90, check=False)
    assert result.returncode == code, result.stdout
    assert not running(wait_for_reports(tmp_path))


def test_a_host_that_does_not_answer_stops_the_launch_before_it_starts(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.set_link(cluster.hosts[2], up=False)
    try:
        command = launch_command(cluster, tmp_path)
        result = run_on(cluster.hosts[0], command, ENVIRONMENT, REPOSITORY, timeout=60, check=False)
    finally:
        cluster.set_link(cluster.hosts[2], up=True)
    assert result.returncode == 3, result.stdout
    assert f"1 of 3 hosts cannot take part; nothing was started:\n  {cluster.hosts[2].name}" in result.stdout
    assert not (tmp_path / "launch").exists()


def test_a_host_that_goes_silent_in_mid_run_is_a_lost_host(cluster: Cluster, tmp_path: Path) -> None:
    command = launch_command(cluster, tmp_path, ends={"0": "sleep", "1": "sleep", "2": "sleep"})
    with start_on(cluster.hosts[0], command, ENVIRONMENT, REPOSITORY) as process:
        reports = wait_for_reports(tmp_path)
        cluster.set_link(cluster.hosts[2], up=False)
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            cluster.set_link(cluster.hosts[2], up=True)
    assert process.returncode == 6, output
    assert f"refused: {cluster.hosts[2].name}: the connection broke" in output
    # The other hosts' ranks are gone at once, those of the lost host as soon as it is back.
    assert set(running(reports)) <= {reports[2]["pid"]}
    for _ in range(600):
        if not running(reports):
            return
        time.sleep(0.1)
    raise AssertionError("the rank of the host that is back still runs after a minute")


def test_a_signal_to_the_launch_ends_the_ranks_on_every_host(cluster: Cluster, tmp_path: Path) -> None:
    command = launch_command(cluster, tmp_path, ends={"0": "sleep", "1": "sleep", "2": "sleep"})
    with start_on(cluster.hosts[0], command, ENVIRONMENT, REPOSITORY) as process:
        reports = wait_for_reports(tmp_path)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert not running(reports)


@pytest.fixture(scope="module")
def local_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy data, a tiny model, and one finished run a stage on three local ranks."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = make_tokenizer("chatml")
    make_dataset(folder / "data", tokenizer=tokenizer)
    make_model_dir(folder / "model", tokenizer.vocab_size, tokenizer=tokenizer)
    train_on_ranks(3, [make_stage_config(folder, "local", stage) for stage in STAGES])
    return folder


def make_stage_config(folder: Path, place: str, stage: str) -> Path:
    overrides = [f"deepspeed={stage}", "world_size=3", "schedule.max_steps=4"]
    return make_config(folder, folder / f"{place}-{stage}", folder / "data", folder / "model", overrides)


@pytest.mark.parametrize("stage", STAGES)
def test_training_over_three_hosts_is_training_on_three_local_ranks(
    cluster: Cluster, local_runs: Path, stage: str
) -> None:
    config = make_stage_config(local_runs, "hosts", stage)
    hosts, local = local_runs / f"hosts-{stage}", local_runs / f"local-{stage}"
    hostfile = cluster.write_hostfile(local_runs / "hostfile")
    command = [
        sys.executable,
        "-c",
        LAUNCH,
        str(config),
        str(hostfile),
        str(hosts / "launch"),
        "harness.train",
    ]
    run_on(cluster.hosts[0], command, ENVIRONMENT, REPOSITORY, timeout=120)
    losses = read_losses(hosts)
    assert losses == read_losses(local)
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    expected = read_adapter(local)
    for name, weights in read_adapter(hosts).items():
        torch.testing.assert_close(weights, expected[name], rtol=0, atol=0)


def test_a_cluster_leaves_nothing_behind_even_after_a_failure(tmp_path: Path) -> None:
    config = Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh" / "config"
    before = config.read_text() if config.exists() else None
    with suppress(KeyError), three_hosts(tmp_path) as made:
        assert run_on(made.hosts[1], ["hostname", "-I"]).stdout.strip() == made.hosts[1].address
        sleeper = start_on(made.hosts[2], ["sleep", "300"])
        raise KeyError
    sleeper.communicate(timeout=10)
    assert sleeper.returncode == -signal.SIGKILL
    assert (config.read_text() if config.exists() else None) == before
    left = subprocess.check_output(["ip", "netns", "list"], text=True)
    for host in made.hosts:
        assert host.namespace not in left
        assert not Path("/etc/netns", host.namespace).exists()
