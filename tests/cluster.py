"""Three hosts on one machine: network namespaces joined by a bridge, with an sshd and host names of their own.

    switch namespace          host namespaces
    ┌───────────────┐         ┌──────────────────────────────────────────┐
    │ bridge ─ port1│── veth ─│eth0 10.77.0.1  sshd  /etc/hosts  loopback│  node1-<token>
    │        ─ port2│── veth ─│eth0 10.77.0.2  …                         │  node2-<token>
    │        ─ port3│── veth ─│eth0 10.77.0.3  …                         │  node3-<token>
    └───────────────┘         └──────────────────────────────────────────┘

The network of the machine itself is not touched: the bridge has a namespace too, so two clusters may use the same
addresses at the same time. The hosts share the machine's files and process numbers. DeepSpeed's ssh check takes no
options, so the key is named in ~/.ssh/config, in a marked block that goes away with the cluster.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NUM_HOSTS = 3
_TOOLS = ("ip", "ssh", "ssh-keygen", "pdsh")
_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
_NETNS_FOLDER = Path("/etc/netns")
_SETUP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ClusterHost:
    """One host: the name that the others know it by, its namespace, its IPv4 address and its number from 1."""

    name: str
    namespace: str
    address: str
    number: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """The hosts, in the order of the hostfile."""

    hosts: tuple[ClusterHost, ...]
    switch: str

    def write_hostfile(self, path: Path, slots: int = 1) -> Path:
        """Write a hostfile that names every host with `slots` ranks each; returns its path."""
        path.write_text("".join(f"{host.name} slots={slots}\n" for host in self.hosts))
        return path

    def set_link(self, host: ClusterHost, *, up: bool) -> None:
        """Plug the host's cable in or out, on the side of the switch."""
        _ip("-n", self.switch, "link", "set", f"port{host.number}", "up" if up else "down")

    def shape_link(self, host: ClusterHost, mbit: float | None = None, delay_ms: float = 0.0) -> None:
        """Make the host's cable slow, both ways; without arguments as fast as it was.

        Args:
            host: Whose.
            mbit: Megabits a second, or None for no limit.
            delay_ms: Added to each packet on its way out and on its way in; needs a kernel with sch_netem.
        """
        for namespace, device in ((host.namespace, "eth0"), (self.switch, f"port{host.number}")):
            _tc(namespace, "qdisc", "delete", "dev", device, "root", check=False)
            add = ("qdisc", "add", "dev", device, "root")
            limits = [] if mbit is None else ["rate", f"{mbit}mbit"]
            if delay_ms:
                _tc(namespace, *add, "netem", "limit", "10000", "delay", f"{delay_ms}ms", *limits)
            elif limits:
                _tc(namespace, *add, "tbf", *limits, "burst", str(_burst_bytes(mbit)), "latency", "100ms")


def _burst_bytes(mbit: float | None) -> int:
    """Size of the token bucket: 5 ms of the rate, for the kernel refills it once a tick (4 ms at 250 Hz)."""
    return max(64 * 1024, round((mbit or 0.0) * 1e6 / 8 * 0.005))


def missing_means() -> str:
    """Why no cluster can be made here, or the empty string."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if not Path(_SSHD).exists():
        missing.append("sshd")
    if missing:
        return f"needs {', '.join(missing)} (Debian: iproute2 openssh-client openssh-server pdsh)"
    probe = f"lyr{secrets.token_hex(3)}p"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"cannot make network namespaces: {made.stderr.strip()}"
    _ip("netns", "delete", probe)
    return ""


@contextmanager
def three_hosts(tmp_path: Path) -> Iterator[Cluster]:
    """Make three hosts that reach each other by name over ssh; take them down at the end, also after a failure.

    Args:
        tmp_path: Folder for keys, sshd configurations and logs.
    """
    token = secrets.token_hex(3)
    hosts = tuple(
        ClusterHost(f"node{number}-{token}", f"lyr{token}h{number}", f"10.77.0.{number}", number)
        for number in range(1, NUM_HOSTS + 1)
    )
    cluster = Cluster(hosts, f"lyr{token}s")
    with ExitStack() as stack:
        stack.enter_context(_namespace(cluster.switch))
        _ip("-n", cluster.switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", cluster.switch, "link", "set", "bridge", "up")
        for host in hosts:
            stack.enter_context(_names(host, hosts))
            stack.enter_context(_namespace(host.namespace))
            _connect(cluster, host)
        key = _make_keys(tmp_path, hosts)
        for host in hosts:
            stack.enter_context(_sshd(tmp_path, host))
        stack.enter_context(_ssh_config(tmp_path, hosts, key, token))
        for host in hosts:
            _wait_for_ssh(host)
        yield cluster


def run_on(
    host: ClusterHost,
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
    *,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command on a host and wait for it.

    Args:
        host: Where.
        argv: The command.
        env: Environment variables on top of the caller's own.
        cwd: Working folder.
        timeout: Seconds after which the command and its whole process group are killed.
        check: Whether a non-zero exit status raises.

    Returns:
        The exit status, and stdout with stderr mixed into it.

    Raises:
        AssertionError: The command failed and `check` was set; the message holds its output.
        subprocess.TimeoutExpired: It took too long.
    """
    process = start_on(host, argv, env, cwd)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise subprocess.TimeoutExpired(argv, timeout, output=output) from error
    if check and process.returncode != 0:
        raise AssertionError(f"{argv} ended with {process.returncode}:\n{output}")
    return subprocess.CompletedProcess(argv, process.returncode, stdout=output)


def start_on(
    host: ClusterHost, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Start a command on a host as the leader of its own process group; stderr is mixed into stdout, a pipe."""
    return subprocess.Popen(
        ["ip", "netns", "exec", host.namespace, *argv],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _ip(*arguments: str) -> str:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=30)
    if result.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def _tc(namespace: str, *arguments: str, check: bool = True) -> None:
    command = ["tc", "-n", namespace, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if check and result.returncode != 0:
        raise RuntimeError(f"tc {' '.join(arguments)}: {result.stderr.strip()}")


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        # Whatever still runs inside (a hung rank, an sshd child) would keep the namespace alive.
        for pid in _ip("netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "delete", name)


@contextmanager
def _names(host: ClusterHost, hosts: Sequence[ClusterHost]) -> Iterator[None]:
    """/etc/hosts of one host: every node's name, and the machine's own name as the address that gloo binds to."""
    folder = _NETNS_FOLDER / host.namespace
    folder.mkdir(parents=True)
    lines = ["127.0.0.1 localhost", f"{host.address} {socket.gethostname()}"]
    lines += [f"{other.address} {other.name}" for other in hosts]
    try:
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        yield
    finally:
        shutil.rmtree(folder)
        with suppress(OSError):  # still in use by another cluster
            _NETNS_FOLDER.rmdir()


def _connect(cluster: Cluster, host: ClusterHost) -> None:
    port = f"port{host.number}"
    _ip("-n", host.namespace, "link", "add", "eth0", "type", "veth", "peer", port, "netns", cluster.switch)
    _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    _ip("-n", host.namespace, "link", "set", "eth0", "up")
    _ip("-n", cluster.switch, "link", "set", port, "master", "bridge", "up")


def _make_keys(folder: Path, hosts: Sequence[ClusterHost]) -> Path:
    """Make the user's key (the return value) and one key a host."""
    for name in ["user_key", *(f"{host.name}_key" for host in hosts)]:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, timeout=_SETUP_TIMEOUT_S)
    return folder / "user_key"


@contextmanager
def _sshd(folder: Path, host: ClusterHost) -> Iterator[None]:
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks its unprivileged half up
    config = folder / f"{host.name}_sshd_config"
    config.write_text(
        f"Port 22\nListenAddress {host.address}\nHostKey {folder}/{host.name}_key\n"
        f"AuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nPrintMotd no\n"
    )
    command = ["ip", "netns", "exec", host.namespace, _SSHD, "-D", "-f", str(config)]
    process = subprocess.Popen([*command, "-E", str(folder / f"{host.name}_sshd.log")])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for_ssh(host: ClusterHost) -> None:
    """Wait until the host lets itself in by name; sshd takes a moment to listen."""
    deadline_s = time.monotonic() + _SETUP_TIMEOUT_S
    while True:
        command = ["ssh", "-o", "ConnectTimeout=10", host.name, "true"]
        tried = run_on(host, command, timeout=_SETUP_TIMEOUT_S, check=False)
        if tried.returncode == 0:
            return
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{host.name} does not answer over ssh: {tried.stdout}")
        time.sleep(0.1)


@contextmanager
def _ssh_config(folder: Path, hosts: Sequence[ClusterHost], key: Path, token: str) -> Iterator[None]:
    """Name the key in the user's ~/.ssh/config while the cluster lives; keep a copy of the old file in `folder`."""
    ssh_folder = Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh"  # where ssh looks, whatever HOME says
    had_folder = ssh_folder.is_dir()
    ssh_folder.mkdir(mode=0o700, exist_ok=True)
    path = ssh_folder / "config"
    begin, end = f"# begin test cluster {token}\n", f"# end test cluster {token}\n"
    block = (
        f"{begin}Host {' '.join(host.name for host in hosts)}\n  IdentityFile {key}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n"
        f"{end}"
    )
    with _locked(ssh_folder):
        before = path.read_text() if path.exists() else ""
        (folder / "ssh_config_before").write_text(before)
        _replace(path, block + before)  # first: ssh takes the first value that it finds
    try:
        yield
    finally:
        with _locked(ssh_folder):
            text = path.read_text()
            left = text[: text.index(begin)] + text[text.index(end) + len(end) :]
            if left:
                _replace(path, left)
            else:
                path.unlink()
        if not had_folder:
            with suppress(OSError):
                ssh_folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two clusters do not write the same file at once."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    path = path.resolve()
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)
