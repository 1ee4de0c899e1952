"""The doctor on three real hosts: nothing wrong, and one thing wrong on one of them, for each check.

`ip netns exec` gives each host's sshd a mount namespace of its own, so a file can be another one on one host alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, ClusterHost, missing_means, run_on, start_on, three_hosts
from tests.runs import make_config
from tests.toys import make_dataset, make_model_dir, make_tokenizer

MISSING = missing_means()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}")]

REPOSITORY = Path(__file__).parent.parent
BUSY_PORT = 23456
CARDS = {
    0: "0, NVIDIA L40S, 550.54.15, 46068, 45500\n1, NVIDIA L40S, 550.54.15, 46068, 45500\n",
    1: "0, NVIDIA A40, 535.104.05, 46068, 45500\n",
    2: "0, NVIDIA L40S, 550.54.15, 46068, 1\n",
}
LISTEN = f"import socket, time; s = socket.create_server(('', {BUSY_PORT})); print('up', flush=True); time.sleep(300)"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with three_hosts(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    tokenizer = make_tokenizer("chatml")
    make_dataset(folder / "data", tokenizer=tokenizer)
    make_model_dir(folder / "model", tokenizer.vocab_size, tokenizer=tokenizer)
    (folder / "runs").mkdir()
    make_config(folder, folder / "runs" / "run", folder / "data", folder / "model", ["model.precision=bf16"])
    (folder / "home").mkdir()
    return folder


@dataclass(frozen=True)
class Seen:
    """What the doctor said: its exit code, its JSON (or nothing), all its output."""

    code: int
    found: dict[str, Any]
    output: str

    def of(self, check: str) -> set[tuple[str, str]]:
        """Severity and host of what a check found."""
        return {
            (one["severity"], host)
            for one in self.found["findings"]
            if one["check"] == check
            for host in one["hosts"]
        }

    def message(self, check: str) -> str:
        """All that a check said."""
        return "; ".join(one["message"] for one in self.found["findings"] if one["check"] == check)


def see(cluster: Cluster, toys: Path, command: str, *arguments: str, **environment: str) -> Seen:
    hostfile = cluster.write_hostfile(toys / "hosts")
    whole = [sys.executable, "-m", "harness", command, "--hostfile", str(hostfile), *arguments]
    own = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HOME": str(toys / "home")}
    own["PYTHONPATH"] = str(REPOSITORY)
    done = run_on(cluster.hosts[0], whole, {**own, **environment}, REPOSITORY, timeout=180, check=False)
    found = json.loads(done.stdout) if "--json" in arguments and done.stdout.startswith("{") else {}
    return Seen(done.returncode, found, done.stdout)


def sshd_of(host: ClusterHost) -> int:
    """The sshd that listens on a host, in whose mount namespace sessions begin."""
    for pid in subprocess.check_output(["ip", "netns", "pids", host.namespace], text=True).split():
        words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
        if b"-D" in words or b"-D" in b" ".join(words).split():
            return int(pid)
    raise AssertionError(f"no sshd on {host.name}")


def on_disk_of(host: ClusterHost, *command: str) -> None:
    """Run a command in the mount namespace of a host's sshd."""
    subprocess.run(["nsenter", "-m", "-t", str(sshd_of(host)), *command], check=True, timeout=30)


def replace_on(host: ClusterHost, path: Path, text: bytes, folder: Path) -> None:
    """Let one host see other bytes in a file."""
    other = folder / f"{host.name}-{path.name}"
    other.write_bytes(text)
    on_disk_of(host, "mount", "--bind", str(other), str(path))


def test_three_hosts_that_are_alike_are_fine(cluster: Cluster, toys: Path) -> None:
    config = ("--config", str(toys / "run.yaml"))
    seen = see(cluster, toys, "doctor", *config, "--no-link", "--json", HF_TOKEN="hunter2", NCCL_DEBUG="WARN")
    assert seen.code == 0, seen.output
    assert {(one["check"], one["message"]) for one in seen.found["findings"]} == {
        ("variables", "HF_TOKEN is set here; it looks secret and is not sent")
    }
    names = [host.name for host in cluster.hosts]
    assert [host["name"] for host in seen.found["hosts"]] == names
    for check in ("python", "packages", "code", "model", "shards"):
        cells = next(one["cells"] for one in seen.found["checks"] if one["name"] == check)
        assert list(cells) == names
        assert len(set(cells.values())) == 1
        assert cells[names[0]] != "-"
    assert "hunter2" not in seen.output


@pytest.fixture(scope="module")
def damaged(cluster: Cluster, toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """What the doctor says when there is something wrong with each host, in a cluster of its own."""
    folder = tmp_path_factory.mktemp("damage")
    del cluster  # two clusters may live at once; this one is spoilt
    with three_hosts(tmp_path_factory.mktemp("damaged")) as spoilt:
        first, second, third = spoilt.hosts
        package = Path(str(metadata.distribution("pyarrow").locate_file("")))
        (about,) = package.glob("pyarrow-*.dist-info/METADATA")
        replace_on(second, about, b"Metadata-Version: 2.1\nName: pyarrow\nVersion: 9.9.9\n", folder)
        replace_on(second, REPOSITORY / "harness" / "cards.py", b"CARDS = ()\n", folder)
        model = toys / "model" / "model.safetensors"
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        replace_on(third, model, bytes(data), folder)
        shard = next((toys / "data" / "train").glob("*.arrow"))
        replace_on(third, shard, shard.read_bytes()[:-1], folder)
        on_disk_of(second, "mount", "-t", "tmpfs", "-o", "size=64k", "none", str(toys / "runs"))
        fast_clock(third, folder)
        for number, host in enumerate(spoilt.hosts):
            install_cards(host, folder, CARDS[number])
        with start_on(first, [sys.executable, "-c", LISTEN]) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "up\n"
            arguments = ["--config", str(toys / "run.yaml"), "--json", "--master-port", str(BUSY_PORT)]
            yield see(spoilt, toys, "doctor", *arguments, DS_ACCELERATOR="")
            listener.kill()


def fast_clock(host: ClusterHost, folder: Path) -> None:
    """Let every Python of a host believe that it is 90 seconds later."""
    line = b"import time; time.time = (lambda now: lambda: now() + 90)(time.time)\n"
    start = next(Path(sysconfig.get_path("purelib")).glob("*.pth"))
    replace_on(host, start, line, folder)


def install_cards(host: ClusterHost, folder: Path, output: str) -> None:
    """Give a host an nvidia-smi that prints `output`."""
    programs = folder / f"{host.name}-sbin"
    programs.mkdir()
    (programs / "output").write_text(output)
    program = programs / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat /usr/local/sbin/output\n")
    program.chmod(0o755)
    on_disk_of(host, "mount", "--bind", str(programs), "/usr/local/sbin")


def hosts_of(seen: Seen) -> list[str]:
    return [host["name"] for host in seen.found["hosts"]]


def test_differences_between_the_hosts_are_refused(damaged: Seen) -> None:
    assert damaged.code == 3, damaged.output
    assert damaged.found["verdict"] == "refuse"
    assert damaged.found["link"] is None


@pytest.mark.parametrize(
    ("check", "severity", "host", "message"),
    [
        ("packages", "refuse", 1, "pyarrow 9.9.9"),
        ("code", "refuse", 1, "harness/cards.py is not what it is on most hosts"),
        ("model", "refuse", 2, "model.safetensors is not what it is on most hosts"),
        ("shards", "refuse", 2, "has other bytes than the manifest tells"),
        ("disk free", "refuse", 1, "free at"),
        ("clock", "warn", 2, "ahead of the one here"),
        ("port", "refuse", 0, f"port {BUSY_PORT} is in use"),
        ("GPU", "warn", 1, "NVIDIA A40"),
        ("driver", "warn", 1, "535.104.05"),
        ("VRAM free", "refuse", 2, "1 MiB free on a card"),
    ],
)
def test_each_difference_is_found_and_its_host_named(
    damaged: Seen, check: str, severity: str, host: int, message: str
) -> None:
    assert damaged.of(check) == {(severity, hosts_of(damaged)[host])}, damaged.found["findings"]
    assert message in damaged.message(check)


def test_nothing_is_found_where_nothing_was_planted(damaged: Seen) -> None:
    planted = {
        "packages",
        "code",
        "model",
        "shards",
        "disk free",
        "clock",
        "port",
        "GPU",
        "driver",
        "VRAM free",
    }
    assert {one["check"] for one in damaged.found["findings"]} == planted


def test_a_dead_host_is_a_row_of_its_own_and_no_hang(cluster: Cluster, toys: Path) -> None:
    dead = cluster.hosts[2]
    cluster.set_link(dead, up=False)
    try:
        seen = see(cluster, toys, "doctor", "--json")
    finally:
        cluster.set_link(dead, up=True)
    assert seen.code == 3
    assert seen.of("ssh") == {("refuse", dead.name)}
    assert all(host["facts"] for host in seen.found["hosts"][:2])


def test_ssh_that_is_refused_says_so_and_the_users_own_options_are_used(cluster: Cluster, toys: Path) -> None:
    seen = see(cluster, toys, "doctor", "--json", PDSH_SSH_ARGS_APPEND="-p 2222")
    assert seen.code == 3
    assert seen.of("ssh") == {("refuse", host.name) for host in cluster.hosts}
    assert "port 2222: Connection refused" in seen.message("ssh")


def test_a_launch_is_refused_by_the_doctor_and_starts_nothing(cluster: Cluster, toys: Path) -> None:
    arguments = ["--config", str(toys / "run.yaml"), "--set", f"output_dir={toys / 'refused'}", "--set"]
    seen = see(cluster, toys, "launch", *arguments, "world_size=4")
    assert seen.code == 3, seen.output
    assert "the config's world_size is 4" in " ".join(seen.output.split())
    assert "nothing was started" in seen.output
    assert not (toys / "refused").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tc") is None, reason="needs tc (Debian: iproute2)")
def test_a_slow_link_is_measured_within_a_fifth_and_named(cluster: Cluster, toys: Path) -> None:
    slow = cluster.hosts[1]
    cluster.shape_link(slow, mbit=100)
    try:
        seen = see(cluster, toys, "bench-link", "--json")
    finally:
        cluster.shape_link(slow)
    assert seen.code == 0, seen.output
    assert seen.found["gbps"] == pytest.approx(0.1, rel=0.2)
    for pair in seen.found["pairs"]:
        if slow.name in pair["hosts"]:
            assert pair["there_gbps"] == pytest.approx(0.1, rel=0.2)
            assert pair["back_gbps"] == pytest.approx(0.1, rel=0.2)
    assert slow.name in seen.found["slowest"]["hosts"]
    assert seen.found["slow_hosts"] == [slow.name]
    for host, described in zip(cluster.hosts, seen.found["hosts"], strict=True):
        assert described["used"] == [{"address": host.address, "interface": "eth0"}]
    (toys / "link.json").write_text(seen.output)
    command = [sys.executable, "-m", "harness", "plan", "--config", "plan", "--gpu", "L40S", "--nodes", "3"]
    command += ["--tasks", "5", "--json", "--link-gbps", str(toys / "link.json")]
    planned = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert json.loads(planned.stdout)["setting"]["link_gbps"] == seen.found["gbps"]


@pytest.mark.slow
def test_links_that_are_alike_name_no_host_and_leave_no_rank(cluster: Cluster, toys: Path) -> None:
    seen = see(cluster, toys, "doctor", "--json")
    assert seen.code == 0, seen.output
    assert len(seen.found["link"]["pairs"]) == 3
    assert seen.found["link"]["gbps"] > 0.2
    for _ in range(100):
        if not (left := ranks_on(cluster)):
            break
        time.sleep(0.1)
    assert left == []


@pytest.mark.slow
def test_a_measurement_that_is_killed_leaves_no_rank(cluster: Cluster, toys: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "harness",
        "bench-link",
        "--hostfile",
        str(cluster.write_hostfile(toys / "h")),
    ]
    own = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    with start_on(cluster.hosts[0], command, own, REPOSITORY) as process:
        for _ in range(600):
            if len(ranks_on(cluster)) == 3:
                break
            time.sleep(0.1)
        assert len(ranks_on(cluster)) == 3
        process.kill()
    for _ in range(300):
        if not (left := ranks_on(cluster)):
            break
        time.sleep(0.1)
    assert left == []


def ranks_on(cluster: Cluster) -> list[str]:
    """Process numbers of measuring ranks on the hosts."""
    pids = [
        pid
        for host in cluster.hosts
        for pid in subprocess.check_output(["ip", "netns", "pids", host.namespace], text=True).split()
    ]
    return [pid for pid in pids if b"doctor.link_rank" in _read(Path("/proc", pid, "cmdline"))]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
