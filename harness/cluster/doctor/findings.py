"""What a check finds: a cell for each host, and what is wrong with whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.cluster.doctor.ask import HostAnswer
from harness.cluster.doctor.needs import Needs
from harness.cluster.hostfile import Hostfile

Severity = Literal["refuse", "warn"]
Verdict = Literal["fine", "warn", "refuse"]
V = TypeVar("V", bound=Hashable)

GIB = 2**30
MISSING = "-"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or may be.

    Attributes:
        check: Which check found it.
        severity: "refuse": the run would fail or compute something else; "warn": it may.
        hosts: Where.
        message: What was got and expected.
        advice: What to do.
    """

    check: str
    severity: Severity
    hosts: tuple[str, ...]
    message: str
    advice: str


@dataclass(slots=True)
class Check:
    """One row of the table.

    Attributes:
        name: Of the check.
        cells: What each host has, in a few words.
        findings: What is wrong.
    """

    name: str
    cells: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, severity: Severity, hosts: Sequence[str], message: str, advice: str) -> None:
        """Note a finding about some hosts."""
        self.findings.append(Finding(self.name, severity, tuple(hosts), message, advice))

    @property
    def verdict(self) -> Verdict:
        """The gravest of its findings."""
        return find_verdict(self.findings)

    @property
    def marked(self) -> dict[str, Severity]:
        """Hosts that a finding names, and how grave it is."""
        marks: dict[str, Severity] = {}
        for finding in sorted(self.findings, key=lambda one: one.severity, reverse=True):
            marks.update(dict.fromkeys(finding.hosts, finding.severity))
        return marks


def find_verdict(findings: Sequence[Finding]) -> Verdict:
    """The gravest of some findings."""
    severities = {finding.severity for finding in findings}
    return "refuse" if "refuse" in severities else "warn" if severities else "fine"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the hosts' answers are judged by.

    Attributes:
        hostfile: The hosts.
        over_ssh: Whether ranks are started over ssh.
        environment: Of this process.
        on_cpu: Whether the run was told to compute on the CPU.
        model: `model.path`, or None without a config.
        data_hashes: sha256 by name of the data set's files, as its manifest on this host tells.
        data_error: Why there is no such manifest, or the empty string.
        needs: What a rank is predicted to take.
        keep_checkpoints: Checkpoints that the run keeps besides the best.
        world_size: What the config asks for, or None.
        port: The rendezvous port that was asked for, or None.
        home: The user's home folder.
        folder: The working folder.
    """

    hostfile: Hostfile
    over_ssh: bool
    environment: Mapping[str, str]
    on_cpu: bool
    home: Path
    folder: Path
    model: str | None = None
    data_hashes: Mapping[str, str | None] = field(default_factory=dict)
    data_error: str = ""
    needs: Needs = field(default_factory=lambda: Needs())
    keep_checkpoints: int = 2
    world_size: int | None = None
    port: int | None = None


CheckFunction = Callable[[Sequence[HostAnswer], Situation], Check]
"""The hosts that answered, and what they are judged by."""


def read_fact(answer: HostAnswer, *path: str) -> Any:  # noqa: ANN401 - any JSON value
    """A fact, or None where the host could not tell it."""
    value: Any = answer.facts
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return None if isinstance(value, dict) and "error" in value else value


def find_common(values: Mapping[str, V]) -> tuple[V, list[str]]:
    """What most hosts have (the first host's value where two are as common), and the hosts that differ."""
    counts = Counter(values.values())
    common = max(values.values(), key=lambda value: counts[value])
    return common, [host for host, value in values.items() if value != common]


def to_json(finding: Finding) -> dict[str, Any]:
    """The finding as plain values."""
    return asdict(finding)


def gib(num_bytes: float | None) -> str:
    """Bytes in GiB, or MiB below one, in six characters or so."""
    if num_bytes is None:
        return MISSING
    return (
        f"{num_bytes / GIB:.0f} GiB"
        if num_bytes >= 10 * GIB
        else (f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.0f} MiB")
    )
