"""Three hosts (tests/cluster.py) as the campaigns need them: fork servers on them, their processes, their death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.faults.ranks import ForkServer
from tests.cluster import Cluster, ClusterHost, run_on, three_hosts

LEFT_OVER_S = 15.0
"""Seconds after a run's end in which everything of it must have gone."""

NODE_LAUNCHER, RUNNER, RANK = "deepspeed.launcher.launch", "deepspeed.launcher.runner", "harness.train"
_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@dataclass(slots=True)
class Hosts:
    """The cluster with what runs on it before any fault.

    Attributes:
        cluster: Of tests/cluster.py.
        folder: Its keys and sshd configurations.
        servers: One fork server a host; empty where none were asked for.
        baseline: Process ids that belong to the cluster and not to a run.
    """

    cluster: Cluster
    folder: Path
    servers: list[ForkServer]
    baseline: set[int]
    _revived: list[subprocess.Popen[bytes]]

    def left_over(self) -> dict[int, str]:
        """Command lines of the processes of runs that are on any host, by process id; zombies do not count."""
        found = {}
        for host in self.cluster.hosts:
            for pid in pids_on(host) - self.baseline:
                line = command_line(pid)
                if line and not line.startswith("sshd: ") and "sshd_config" not in line:
                    found[pid] = line
        return found

    def wait_until_clean(self, timeout_s: float = LEFT_OVER_S) -> dict[int, str]:
        """Wait until nothing of a run is left; returns what still is, and kills it for the next trial."""
        wait_for(lambda: not self.left_over(), timeout_s)
        left = self.left_over()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left

    def kill_host(self, host: ClusterHost) -> None:
        """A power cut: the cable is out, and every process is gone at once."""
        self.cluster.set_link(host, up=False)
        for pid in pids_on(host):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def revive_host(self, host: ClusterHost) -> None:
        """The host is back, with an sshd."""
        self.cluster.set_link(host, up=True)
        config = self.folder / f"{host.name}_sshd_config"
        command = ["ip", "netns", "exec", host.namespace, _SSHD, "-D", "-f", str(config)]
        self._revived.append(subprocess.Popen(command))
        ssh = ["ssh", "-o", "ConnectTimeout=5", host.name, "true"]
        wait_for(lambda: run_on(host, ssh, timeout=30, check=False).returncode == 0, 30)
        self.baseline |= pids_on(host)


@contextmanager
def hosts_at(folder: Path, *, with_servers: bool) -> Iterator[Hosts]:
    """Three hosts, on each of which a fork server is ready where they are asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    with three_hosts(folder) as cluster, ExitStack() as stack:
        servers = []
        for host in cluster.hosts if with_servers else ():
            servers.append(ForkServer(["ip", "netns", "exec", host.namespace]))
            stack.callback(servers[-1].close)
        for server in servers:
            server.wait_until_ready()
        baseline = set().union(*(pids_on(host) for host in cluster.hosts))
        hosts = Hosts(cluster, folder, servers, baseline, [])
        try:
            yield hosts
        finally:
            for process in hosts._revived:
                process.kill()
                process.wait()


def pids_on(host: ClusterHost) -> set[int]:
    """Every process in the host's namespace."""
    output = subprocess.check_output(["ip", "netns", "pids", host.namespace], text=True)
    return {int(pid) for pid in output.split()}


def command_line(pid: int) -> str:
    """A process's arguments with blanks between them; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def find_processes(host: ClusterHost, kind: str) -> list[int]:
    """The processes of a kind on a host: rank, launcher (the node's), runner, pdsh or ssh."""
    found = []
    for pid in sorted(pids_on(host)):
        line = command_line(pid)
        program = line.split(" ")[0].rpartition("/")[2] if line else ""
        is_kind = {
            "rank": RANK in line and NODE_LAUNCHER not in line and RUNNER not in line and "python" in program,
            "launcher": NODE_LAUNCHER in line and "python" in program,
            "runner": RUNNER in line and "python" in program,
            "pdsh": program == "pdsh",
            "ssh": program == "ssh",
        }[kind]
        if is_kind:
            found.append(pid)
    return found


def wait_for(condition: Callable[[], bool], timeout_s: float, pause_s: float = 0.05) -> bool:
    """Wait until something holds; False after the time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(pause_s)
    return True
