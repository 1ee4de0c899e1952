"""Facts of three healthy hosts as the doctor's probe tells them, and what a planted difference makes of them."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.cluster.doctor.ask import HostAnswer
from harness.cluster.doctor.examine import judge
from harness.cluster.doctor.findings import Finding, Situation
from harness.cluster.doctor.needs import Needs
from harness.cluster.doctor.software import PACKAGES
from harness.cluster.hostfile import Host, Hostfile

GIB = 2**30
L40S = "0, NVIDIA L40S, 550.54.15, 46068, 45500\n"

HEALTHY: dict[str, Any] = {
    "python": {"version": "3.11.7", "folder": True},
    "packages": {**dict.fromkeys(PACKAGES, "1.0"), "torch": "2.13.0"},
    "code": {"harness/train.py": "aa", "harness/run.py": "bb"},
    "gpus": {"output": L40S},
    "disks": {"path": "/runs", "free_bytes": 500 * GIB, "writable": True, "shm_bytes": 8 * GIB},
    "machine": {
        "memory_bytes": 256 * GIB,
        "available_bytes": 200 * GIB,
        "cores": 32,
        "open_files": 65536,
        "addresses": ["10.0.0.1", "172.17.0.1"],
        "identity": "boot 1",
    },
    "network": {"first_host": "10.0.0.1", "port_free": True},
    "environment": {"values": {"HF_HOME": "/hf"}, "secrets": []},
    "model": {"path": "/m", "files": {"model.safetensors": {"bytes": 9, "sha256": "cc"}}},
    "data": {
        "manifest.json": {"bytes": 9, "sha256": "dd"},
        "train/0.arrow": {"bytes": 9, "sha256": "ee"},
    },
    "config_files": {"ds.json": {"bytes": 9, "sha256": "ff"}},
}
ALL = ("node1", "node2", "node3")


def make_hostfile(slots: int = 1, num_hosts: int = 3) -> Hostfile:
    hosts = tuple(Host(f"node{number}", slots, number) for number in range(1, num_hosts + 1))
    return Hostfile(hosts, Path("hosts"))


def make_answers(hostfile: Hostfile) -> list[HostAnswer]:
    answers = []
    for number, host in enumerate(hostfile.hosts):
        facts = copy.deepcopy(HEALTHY)
        facts["machine"]["identity"] = f"boot {number}"
        answers.append(HostAnswer(host, facts, "", 0.001, 0.0002))
    return answers


def make_situation(hostfile: Hostfile, **changes: Any) -> Situation:
    situation = Situation(
        hostfile=hostfile,
        over_ssh=True,
        environment={"PATH": os.environ["PATH"]},
        on_cpu=False,
        home=Path("/no/home"),
        folder=Path("/no/folder"),
        model="/m",
        data_hashes={"manifest.json": "dd", "train/0.arrow": "ee"},
        needs=Needs(20 * GIB, 10 * GIB, 3 * GIB, 6 * GIB),
        world_size=hostfile.world_size,
        port=29500,
    )
    return replace(situation, **changes)


def findings_of(answers: Sequence[HostAnswer], situation: Situation) -> list[Finding]:
    return [finding for check in judge(answers, situation) for finding in check.findings]


def plant(path: str, value: Any, host: int = 1, **changes: Any) -> list[Finding]:
    """The findings when one fact of one host is another one; the path's names stand between dots."""
    hostfile = make_hostfile()
    answers = make_answers(hostfile)
    *groups, last = path.split(".")
    target: Any = answers[host].facts
    for group in groups:
        target = target[group.replace("|", ".")]
    target[last.replace("|", ".")] = value
    return findings_of(answers, make_situation(hostfile, **changes))
