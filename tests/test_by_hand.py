from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

import pytest

from harness.cluster import hosts as hosts_module
from harness.cluster.by_hand import Start, check_start
from harness.cluster.hostfile import parse_hostfile
from harness.cluster.hosts import check_names, choose_address
from harness.cluster.interface import choose_gloo_interface, find_interface
from harness.cluster.rank import adopt_place
from harness.cluster.runners import check_plain, check_runner, rank_target, runner_options
from harness.cluster.tether import is_runner
from preprocess.errors import ConfigError, PreflightError

PROGRAM = ["--module", "harness.train", "--config", "run.yaml", "--hostfile", "of-the-program"]


def start(
    folder: Path, arguments: Sequence[str], world: Mapping[str, Sequence[int]], *, ssh: bool = True
) -> Start:
    return Start([*arguments, *PROGRAM], folder, world, over_ssh=ssh)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "two").write_text("198.51.100.1 slots=2\n198.51.100.2 slots=2\n")
    (tmp_path / "one").write_text("198.51.100.1 slots=1\n")
    (tmp_path / "bad").write_text("198.51.100.1 slots=2x\n198.51.100.2 slots=1\n")
    return tmp_path


@pytest.mark.parametrize(
    "option", [["--hostfile", "twoo"], ["--hostfile=twoo"], ["-H", "twoo"], ["--hostf", "twoo"]]
)
def test_a_misspelt_hostfile_is_refused_however_the_option_is_written(
    folder: Path, option: list[str]
) -> None:
    with pytest.raises(PreflightError, match="twoo: no such hostfile"):
        check_start(start(folder, option, {"localhost": [0]}, ssh=False))


def test_what_was_asked_for_may_run(folder: Path) -> None:
    check_start(None)
    check_start(start(folder, [], {"localhost": [0]}, ssh=False))  # no hostfile: this machine alone
    check_start(start(folder, ["--hostfile", "two"], {"198.51.100.1": [0, 1], "198.51.100.2": [0, 1]}))
    check_start(
        start(folder, ["-H", "two", "-e", "198.51.100.1:0"], {"198.51.100.1": [1], "198.51.100.2": [0, 1]})
    )
    check_start(start(folder, ["-H", "two", "-i", "198.51.100.2", "--force_multi"], {"198.51.100.2": [0, 1]}))


@pytest.mark.parametrize(
    ("arguments", "world", "ssh", "said"),
    [
        (["-H", "bad"], {"198.51.100.1": [0, 1], "198.51.100.2": [0]}, True, "bad:1: "),
        (["-H", "two"], {"198.51.100.1": [0, 1]}, True, "no rank runs on 198.51.100.2"),
        (["-H", "two"], {"198.51.100.1": [0, 1], "198.51.100.2": [0]}, True, "1 ranks run on 198.51.100.2"),
        (["-H", "two"], {"198.51.100.1": [0, 1], "198.51.100.9": [0]}, True, "nothing about that host"),
        (["-H", "one"], {"198.51.100.1": [0]}, False, "started them on this machine"),
        (
            ["-H", "two", "--include", "198.51.100.2"],
            {"198.51.100.2": [0, 1]},
            False,
            "started them on this machine",
        ),
    ],
)
def test_a_start_that_is_not_what_its_hostfile_says_is_refused(
    folder: Path, arguments: list[str], world: Mapping[str, Sequence[int]], ssh: bool, said: str
) -> None:
    with pytest.raises(PreflightError, match=said):
        check_start(start(folder, arguments, world, ssh=ssh))


def test_the_runner_is_known_by_its_command_line() -> None:
    assert is_runner(["/v/bin/python", "/v/bin/deepspeed", "--hostfile", "x"])
    assert is_runner(["/v/bin/python", "-m", "deepspeed.launcher.runner", "--hostfile", "x"])
    assert not is_runner(["/v/bin/python", "-u", "-m", "deepspeed.launcher.launch", "--node_rank=0"])
    assert not is_runner([])


def test_the_loopback_and_two_names_of_one_machine_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hosts"
    for name in ("localhost", "127.0.0.1", "127.0.1.1", "LOCALHOST.localdomain"):
        path.write_text(f"198.51.100.1 slots=1\n{name} slots=1\n")
        with pytest.raises(PreflightError, match=rf"hosts:2: {name} is each host's name for itself"):
            check_names(parse_hostfile(path))
    path.write_text("node1 slots=1\nnode1-ib slots=1\n")
    monkeypatch.setattr(hosts_module, "resolve", lambda name: {"198.51.100.7"})
    with pytest.raises(PreflightError, match="node1-ib and node1 are the same machine"):
        check_names(parse_hostfile(path))


def test_the_first_hosts_address_is_one_that_others_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module, "resolve", lambda name: {"127.0.1.1", "10.0.0.5"})
    assert choose_address("node1", ["172.17.0.1", "10.0.0.5", "fe80::1"]) == "10.0.0.5"
    assert choose_address("node1", ["172.17.0.1", "fe80::1"]) == "172.17.0.1"
    for listed in ([], ["127.0.1.1"], ["fe80::1"]):
        with pytest.raises(PreflightError, match="--master-addr"):
            choose_address("node1", listed)


def test_gloo_gets_an_interface_only_where_the_hosts_own_name_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = {"WORLD_SIZE": "3", "LOCAL_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    own = "127.0.1.1"
    monkeypatch.setattr("socket.gethostbyname", lambda _: own)
    assert find_interface("127.0.0.1") == "lo"
    assert choose_gloo_interface(several) == "lo"
    assert choose_gloo_interface({**several, "LOCAL_SIZE": "3"}) is None
    assert choose_gloo_interface({**several, "GLOO_SOCKET_IFNAME": "eth7"}) is None
    own = "10.0.0.5"
    assert choose_gloo_interface(several) is None


def test_a_runner_that_is_not_here_or_cannot_start_these_slots_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts").write_text("node1 slots=2\nnode2 slots=1\n")
    hostfile = parse_hostfile(tmp_path / "hosts")
    monkeypatch.setenv("PATH", str(tmp_path))
    for launcher in ("openmpi", "slurm", "mpich", "impi"):
        with pytest.raises(PreflightError, match="cannot be found on PATH"):
            check_runner(launcher, hostfile)
    with pytest.raises(ConfigError, match="expected one of"):
        check_runner("mvapich", hostfile)
    for tool in ("mpirun", "ompi_info", "srun", "sinfo"):
        (tmp_path / tool).touch(mode=0o755)
    check_runner("openmpi", hostfile)
    for launcher in ("slurm", "mpich", "impi"):
        with pytest.raises(PreflightError, match="same number of ranks on every host"):
            check_runner(launcher, hostfile)


def test_slurm_gets_the_hosts_by_name_and_each_argument_as_one(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("node1 slots=2\nnode2 slots=2\n")
    options = runner_options("slurm", parse_hostfile(tmp_path / "hosts"), ["--comment=a b; $(id)"])
    assert options[:2] == ["--launcher", "slurm"]
    expected = "--nodelist=node1,node2 --nodes=2 --ntasks-per-node=2 '--comment=a b; $(id)'"
    assert options[2] == f"--launcher_args={expected}"
    assert rank_target("pdsh", "m") == ["--module", "m"]
    assert rank_target("slurm", "m")[1] == "m"


def test_a_value_that_a_runner_would_change_is_refused_without_being_shown() -> None:
    check_plain(["A=b", "P=/a:/b", "N=eth0,eth1"], "openmpi")
    for line, launcher in (("N=eth0,hunter2", "slurm"), ("A=hunter2 c", "mpich"), ('A="hunter2"', "openmpi")):
        with pytest.raises(ConfigError) as caught:
            check_plain([line], launcher)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "environment",
    [
        {"OMPI_COMM_WORLD_RANK": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_SIZE": "6"},
        {"SLURM_PROCID": "4", "SLURM_LOCALID": "1", "SLURM_NTASKS": "6"},
        {"PMI_RANK": "4", "MPI_LOCALRANKID": "1", "PMI_SIZE": "6"},
        {"RANK": "4", "LOCAL_RANK": "1", "WORLD_SIZE": "6", "SLURM_PROCID": "0"},
    ],
)
def test_each_runners_names_for_a_ranks_place_are_known(environment: MutableMapping[str, str]) -> None:
    adopt_place(environment)
    assert [environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == ["4", "1", "6"]


def test_a_rank_that_does_not_know_its_place_does_not_train_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        adopt_place({"PATH": os.environ["PATH"]})
    assert caught.value.code == 3
    assert "RANK is unknown" in capsys.readouterr().err
