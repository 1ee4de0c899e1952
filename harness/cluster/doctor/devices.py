"""Checks of the GPUs: as many as slots, of one kind, with as much free memory as the run is predicted to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.cluster.doctor.ask import HostAnswer
from harness.cluster.doctor.findings import MISSING, Check, Severity, Situation, find_common, gib, read_fact

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card as nvidia-smi tells of it; bytes are None where it does not say."""

    index: int
    name: str
    driver: str
    total_bytes: int | None
    free_bytes: int | None


def parse_gpus(output: str) -> list[Gpu]:
    """Read what `nvidia-smi --query-gpu=index,name,driver_version,memory.total,memory.free` prints as CSV in MiB.

    A card that is lost, or that shares the machine's memory, has words in brackets instead of numbers.
    """
    gpus = []
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        # A name may hold a comma: the numbers stand on both sides of it.
        if len(cells) < 5 or not cells[0].isdigit():
            continue
        total, free = (_read_mib(cell) for cell in cells[-2:])
        gpus.append(Gpu(int(cells[0]), ", ".join(cells[1:-3]), cells[-3], total, free))
    return gpus


def _read_mib(cell: str) -> int | None:
    number = cell.removesuffix("MiB").strip()
    return int(number) * MIB if number.isdigit() else None


def list_gpus(answer: HostAnswer) -> list[Gpu]:
    """The cards of a host."""
    return parse_gpus(read_fact(answer, "gpus", "output") or "")


def check_slots(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """As many devices as slots; on the CPU as many cores."""
    check = Check("slots")
    counts = {answer.name: len(list_gpus(answer)) for answer in answers}
    on_cpu = situation.on_cpu or not any(counts.values())
    for answer in answers:
        slots, name = answer.host.slots, answer.name
        broken = answer.facts.get("gpus", {}).get("error")
        has = (read_fact(answer, "machine", "cores") or 0) if on_cpu else counts[name]
        check.cells[name] = f"{slots} of {has} {'cores' if on_cpu else 'GPUs'}"
        if broken and not situation.on_cpu:
            check.add("refuse", [name], str(broken), "mend the driver there: nvidia-smi must work")
        elif slots > has:
            severity: Severity = "warn" if on_cpu else "refuse"
            what = f"{has} {'cores' if on_cpu else 'GPUs'}"
            check.add(
                severity,
                [name],
                f"slots={slots} on line {answer.host.line} of the hostfile, and it has {what}",
                f"write slots={has} there" if has else "delete the line, or install the driver",
            )
    if not situation.on_cpu and not any(counts.values()):
        check.add(
            "warn",
            [answer.name for answer in answers],
            "no host has a GPU that nvidia-smi shows; the run would compute on the CPU",
            "say so with DS_ACCELERATOR=cpu, or install the driver",
        )
    _check_world_size(check, situation)
    return check


def _check_world_size(check: Check, situation: Situation) -> None:
    asked, adds_up = situation.world_size, situation.hostfile.world_size
    if asked is not None and asked != adds_up:
        check.add(
            "refuse",
            situation.hostfile.names,
            f"the hostfile adds up to {adds_up} ranks, and the config's world_size is {asked}",
            "make them agree",
        )


def check_gpu_model(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """One kind of card: the slowest sets the pace of all."""
    return _compare("GPU", answers, situation, lambda gpu: gpu.name, "the slowest sets the pace of all")


def check_driver(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """One version of the driver: NCCL's transports depend on it."""
    return _compare("driver", answers, situation, lambda gpu: gpu.driver, "install the same one everywhere")


def _compare(
    name: str,
    answers: Sequence[HostAnswer],
    situation: Situation,
    read: Callable[[Gpu], str],
    advice: str,
) -> Check:
    check = Check(name)
    found = {answer.name: ", ".join(dict.fromkeys(map(read, list_gpus(answer)))) for answer in answers}
    if situation.on_cpu or not any(found.values()):
        return check
    check.cells.update({host: text.removeprefix("NVIDIA ") or MISSING for host, text in found.items()})
    common, differing = find_common({host: text for host, text in found.items() if text})
    for host in differing:
        check.add("warn", [host], f"{found[host]}, and {common} on most hosts", advice)
    return check


def check_vram(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Free memory of each card that gets a rank, against what the plan predicts."""
    check = Check("VRAM free")
    if situation.on_cpu:
        return check
    for answer in answers:
        gpus = list_gpus(answer)[: answer.host.slots]
        known = [gpu.free_bytes for gpu in gpus if gpu.free_bytes is not None]
        if not gpus:
            continue
        check.cells[answer.name] = gib(min(known)) if known else "unknown"
        if known:
            _judge_vram(check, answer.name, min(known), situation)
    if check.cells and situation.needs.unknown:
        check.add(
            "warn",
            list(check.cells),
            f"what a rank takes cannot be predicted: {situation.needs.unknown}",
            "mend that, or go without the comparison",
        )
    return check


def _judge_vram(check: Check, host: str, free: int, situation: Situation) -> None:
    rest, peak = situation.needs.rest_bytes, situation.needs.peak_bytes
    if rest is not None and free < rest:
        check.add(
            "refuse",
            [host],
            f"{gib(free)} free on a card, and weights and optimizer alone take {gib(rest)}",
            "end what else runs there (nvidia-smi names it), or plan again: python -m harness plan",
        )
    elif peak is not None and free < peak and not situation.needs.searches:
        check.add(
            "warn",
            [host],
            f"{gib(free)} free on a card, and a step is predicted to take {gib(peak)}",
            "end what else runs there (nvidia-smi names it), lower batch.micro_batch_size, or pass --vram-target",
        )
