"""Checks of the machines: each one once, disk, memory, open files, clocks, addresses, the port."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cluster.doctor.ask import HostAnswer
from harness.cluster.doctor.findings import MISSING, Check, Situation, gib, read_fact

MIN_SHM_BYTES = 32 * 2**20
"""Of /dev/shm for a rank: NCCL's buffers between the ranks of a host. Docker gives 64 MiB to all."""

MIN_DISK_BYTES = 64 * 2**20
"""What logs and metrics may take, where a checkpoint's size is not known."""

MIN_OPEN_FILES = 1024
CLOCK_WARN_S, CLOCK_REFUSE_S = 1.0, 300.0


def check_identity(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """No machine stands in the hostfile under two names: its devices would be used twice."""
    check = Check("machine")
    first: dict[str, str] = {}
    for answer in answers:
        identity = str(read_fact(answer, "machine", "identity"))
        earlier = first.setdefault(identity, answer.name)
        check.cells[answer.name] = "its own" if earlier == answer.name else f"is {earlier}"
        if earlier != answer.name:
            check.add(
                "refuse",
                [answer.name],
                f"line {answer.host.line} of the hostfile names the machine that {earlier} is already",
                "write each machine once with all its slots",
            )
    return check


def check_disk(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Room for every checkpoint that the run keeps, for the best one, and for the one being written."""
    check = Check("disk free")
    each, keep = situation.needs.checkpoint_bytes, situation.keep_checkpoints
    for answer in answers:
        disks = read_fact(answer, "disks")
        if disks is None:
            check.cells[answer.name] = MISSING
            continue
        free = int(disks["free_bytes"])
        check.cells[answer.name] = gib(free)
        if not disks["writable"]:
            check.add(
                "refuse", [answer.name], f"{disks['path']} cannot be written", "choose another output_dir"
            )
        elif free < max(MIN_DISK_BYTES, (each or 0) * (keep + 1)):
            need = "a run writes" if each is None else f"{keep + 1} checkpoints of {gib(each)} take"
            amount = gib(max(MIN_DISK_BYTES, (each or 0) * (keep + 1)))
            check.add(
                "refuse",
                [answer.name],
                f"{gib(free)} free at {disks['path']}, and {need} {amount}",
                "free some, choose another output_dir, or lower schedule.keep_checkpoints",
            )
        elif each is not None and free < each * (keep + 2):
            check.add(
                "warn",
                [answer.name],
                f"{gib(free)} free at {disks['path']}: no room for the best checkpoint besides the newest {keep}",
                "free some, or lower schedule.keep_checkpoints",
            )
    return check


def check_shm(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Room in /dev/shm, which the ranks of a host talk through."""
    check = Check("/dev/shm")
    for answer in answers:
        free = read_fact(answer, "disks", "shm_bytes")
        check.cells[answer.name] = gib(free)
        if free is None or free < MIN_SHM_BYTES * answer.host.slots:
            check.add(
                "warn",
                [answer.name],
                f"{gib(free)} free in /dev/shm for {answer.host.slots} ranks",
                "empty it, or give the container more: docker run --shm-size=1g",
            )
    return check


def check_memory(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Memory of the host for what its ranks read before it is on a card."""
    check = Check("RAM free")
    weights = situation.needs.weight_bytes
    for answer in answers:
        free = read_fact(answer, "machine", "available_bytes")
        check.cells[answer.name] = gib(free)
        if free is not None and weights is not None and free < weights * answer.host.slots:
            check.add(
                "warn",
                [answer.name],
                f"{gib(free)} free, and {answer.host.slots} ranks each read weights of {gib(weights)}",
                "end what else runs there, or start fewer ranks",
            )
    return check


def check_open_files(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Files that a process may open: shards, sockets and logs are some hundreds."""
    check = Check("open files")
    for answer in answers:
        limit = read_fact(answer, "machine", "open_files")
        check.cells[answer.name] = MISSING if limit is None else "no limit" if limit < 0 else f"{limit:,}"
        if limit is not None and 0 <= limit < MIN_OPEN_FILES:
            check.add(
                "warn",
                [answer.name],
                f"{limit} open files allowed, {MIN_OPEN_FILES} are little enough",
                "raise it there: /etc/security/limits.conf, nofile",
            )
    return check


def check_clock(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Clocks that agree with the one here, as far as half a round trip tells."""
    check = Check("clock")
    for answer in answers:
        offset = answer.clock_offset_s
        beyond = abs(offset) - answer.round_trip_s / 2
        check.cells[answer.name] = f"{offset:+.3f} s" if abs(offset) < 100 else f"{offset:+.0f} s"
        if beyond > CLOCK_WARN_S:
            ahead = "ahead of" if offset > 0 else "behind"
            check.add(
                "refuse" if beyond > CLOCK_REFUSE_S else "warn",
                [answer.name],
                f"its clock is {abs(offset):.1f} s {ahead} the one here; logs and files would be in no order",
                "set it there: timedatectl set-ntp true",
            )
    return check


def check_address(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """The other hosts reach the first one at the address that DeepSpeed gives them."""
    check = Check("first host")
    if not situation.over_ssh or not answers:
        return check
    first, names = answers[0], {answer.name: read_fact(answer, "network", "first_host") for answer in answers}
    check.cells.update({host: str(address) for host, address in names.items()})
    addresses = read_fact(first, "machine", "addresses") or []
    if first.host is not situation.hostfile.hosts[0] or not addresses:
        return check  # it did not answer, which is told elsewhere
    for host, address in names.items():
        if host != first.name and address != addresses[0]:
            check.add(
                "warn",
                [host],
                f"it knows {first.name} as {address}, but DeepSpeed will send it to {addresses[0]}, the first address "
                "of `hostname -I` there",
                "make the name resolve to that address everywhere, or pass the launcher --master_addr",
            )
    return check


def check_port(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """The rendezvous port is free on the first host."""
    check = Check("port")
    first = situation.hostfile.hosts[0].name
    for answer in answers:
        if answer.name != first or situation.port is None:
            continue
        free = read_fact(answer, "network", "port_free")
        check.cells[first] = f"{situation.port} {'free' if free else 'busy'}"
        if free is False:
            check.add(
                "refuse",
                [first],
                f"port {situation.port} is in use",
                "leave --master-port out, or see who has it: ss -ltnp",
            )
    return check
