"""Ask the hosts of a hostfile and judge their answers."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.cluster.doctor import devices, files, machine, software, variables
from harness.cluster.doctor.ask import SILENCE_S, HostAnswer, ask_hosts
from harness.cluster.doctor.findings import (
    Check,
    CheckFunction,
    Finding,
    Situation,
    Verdict,
    find_verdict,
    to_json,
)
from harness.cluster.doctor.needs import Needs, predict_needs
from harness.cluster.environment import (
    TRAVELLING_NAMES,
    TRAVELLING_PREFIXES,
    extend_python_path,
)
from harness.cluster.hostfile import Hostfile
from harness.cluster.hosts import choose_devices, needs_ssh
from harness.config import RunConfig
from harness.deepspeed_config import load_deepspeed_config
from preprocess.errors import DataError, PreflightError
from preprocess.manifest import Manifest, list_side_files, read_manifest
from preprocess.secret import secret_rules
from preprocess.settings import dump_settings

FORMAT_VERSION = 1
CODE_FOLDERS = ("harness", "preprocess", "ds_configs")

CHECKS: tuple[CheckFunction, ...] = (
    software.check_python,
    software.check_packages,
    software.check_code,
    files.check_model,
    files.check_shards,
    files.check_config_files,
    machine.check_identity,
    devices.check_slots,
    devices.check_gpu_model,
    devices.check_driver,
    devices.check_vram,
    machine.check_disk,
    machine.check_shm,
    machine.check_memory,
    machine.check_open_files,
    machine.check_clock,
    machine.check_address,
    machine.check_port,
    variables.check_variables,
    variables.check_user_file,
)
"""In the order of the table's rows; `software.check_ssh` comes before them."""


@dataclass(slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        situation: What was asked for.
        answers: Of the hosts.
        checks: Rows of the table.
        config_sha256: Of the resolved config, the empty string without one.
        link: What was measured between the hosts, or None.
    """

    situation: Situation
    answers: list[HostAnswer]
    checks: list[Check]
    config_sha256: str = ""
    link: dict[str, Any] | None = None

    @property
    def findings(self) -> list[Finding]:
        """Of all checks, the gravest first."""
        found = [finding for check in self.checks for finding in check.findings]
        return sorted(found, key=lambda finding: finding.severity)  # "refuse" before "warn"

    @property
    def verdict(self) -> Verdict:
        """Whether a run may start."""
        return find_verdict(self.findings)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "format_version": FORMAT_VERSION,
            "verdict": self.verdict,
            "hostfile": str(self.situation.hostfile.path),
            "world_size": self.situation.hostfile.world_size,
            "config_sha256": self.config_sha256,
            "hosts": [_describe_answer(answer) for answer in self.answers],
            "checks": [
                {"name": check.name, "verdict": check.verdict, "cells": check.cells} for check in self.checks
            ],
            "findings": [to_json(finding) for finding in self.findings],
            "needs": _describe_needs(self.situation.needs),
            "link": self.link,
        }


def _describe_answer(answer: HostAnswer) -> dict[str, Any]:
    return {
        "name": answer.name,
        "slots": answer.host.slots,
        "line": answer.host.line,
        "error": answer.error,
        "round_trip_s": answer.round_trip_s,
        "clock_offset_s": answer.clock_offset_s,
        "facts": dict(answer.facts),
    }


def _describe_needs(needs: Needs) -> dict[str, Any]:
    return {
        "peak_bytes": needs.peak_bytes,
        "rest_bytes": needs.rest_bytes,
        "checkpoint_bytes": needs.checkpoint_bytes,
        "weight_bytes": needs.weight_bytes,
        "unknown": needs.unknown,
    }


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be examined.

    Attributes:
        files: Whether code, model and data are looked at.
        hashes: Whether the bytes of model and shards are hashed; without it only names and sizes are compared.
        rehash: Whether they are hashed even where a host remembers the digest of an unchanged file.
        port: The rendezvous port that will be asked for, or None.
        silence_s: Seconds without a word after which a host is given up.
    """

    files: bool = True
    hashes: bool = True
    rehash: bool = False
    port: int | None = None
    silence_s: float = SILENCE_S


def examine(hostfile: Hostfile, config: RunConfig | None, wishes: Wishes) -> Diagnosis:
    """Ask every host and judge what they say.

    Args:
        hostfile: The hosts.
        config: The run, or None to look at the hosts alone.
        wishes: What is to be examined.
    """
    over_ssh = needs_ssh(hostfile)
    manifest, data_error = _read_data(config if wishes.files else None)
    request = make_request(hostfile, config, manifest, wishes)
    with ThreadPoolExecutor(1) as pool:  # the prediction takes a moment, and so do the hosts
        needs = pool.submit(lambda: predict_needs(config, hostfile.world_size) if config else Needs())
        answers = ask_hosts(hostfile.hosts, request, over_ssh=over_ssh, silence_s=wishes.silence_s)
    situation = Situation(
        hostfile=hostfile,
        over_ssh=over_ssh,
        environment=dict(os.environ),
        on_cpu=os.environ.get("DS_ACCELERATOR") == "cpu",
        home=Path.home(),
        folder=Path.cwd(),
        model=config.model.path if config and wishes.files else None,
        data_hashes=_list_hashes(manifest, request),
        data_error=data_error,
        needs=needs.result(),
        keep_checkpoints=config.schedule.keep_checkpoints if config else 2,
        world_size=config.world_size if config else None,
        port=wishes.port,
    )
    digest = hashlib.sha256(dump_settings(config).encode()).hexdigest() if config else ""
    return Diagnosis(situation, answers, judge(answers, situation), digest)


def judge(answers: Sequence[HostAnswer], situation: Situation) -> list[Check]:
    """Every check of what the hosts said; without processes, network or files."""
    here = _check_here(situation)
    ssh = software.check_ssh(answers, situation)
    present = [answer for answer in answers if not answer.error]
    found = [check(present, situation) for check in CHECKS] if present else []
    return [check for check in (here, ssh, *found) if check.cells or check.findings]


def _check_here(situation: Situation) -> Check:
    """What this machine needs to start others: pdsh, and devices that agree with a local hostfile."""
    check = Check("here")
    if situation.over_ssh:
        if shutil.which("pdsh", path=situation.environment.get("PATH")) is None:
            check.add("refuse", (), "pdsh is not installed here", "install it: apt install pdsh")
        return check
    try:
        choose_devices(situation.hostfile, situation.environment)
    except PreflightError as error:
        check.add("refuse", situation.hostfile.names, str(error), "see there")
    return check


def _read_data(config: RunConfig | None) -> tuple[Manifest | None, str]:
    """The manifest on this host, or why there is none."""
    if config is None:
        return None, ""
    try:
        return read_manifest(config.data.path), ""
    except DataError as error:
        return None, str(error)


def _list_files(manifest: Manifest | None) -> dict[str, str | None]:
    """sha256 by name of the files that the ranks read; None for the manifest, which tells the others'."""
    if manifest is None:
        return {}
    shards = {
        f"{s}/{shard.file}": shard.sha256 for s, info in manifest.splits.items() for shard in info.shards
    }
    return {"manifest.json": None, **list_side_files(manifest), **shards}


def _list_hashes(manifest: Manifest | None, request: Mapping[str, Any]) -> dict[str, str | None]:
    found = _list_files(manifest)
    if "manifest.json" in found and request["hashes"]:
        found["manifest.json"] = _sha256(Path(request["data"]) / "manifest.json")
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_request(
    hostfile: Hostfile, config: RunConfig | None, manifest: Manifest | None, wishes: Wishes
) -> dict[str, Any]:
    """What the probe is told; see `probe`. Paths are as the ranks will read them, from the working folder."""
    python_path = extend_python_path(os.environ, Path.cwd())
    return {
        "folder": os.getcwd(),
        "python_path": python_path.split(os.pathsep),
        "packages": software.PACKAGES,
        "code_root": str(Path(harness.__file__).resolve().parent.parent),
        "code_folders": CODE_FOLDERS if wishes.files else (),
        "model": config.model.path if config and wishes.files else None,
        "data": str(config.data.path) if config and manifest else None,
        "data_files": list(_list_files(manifest)),
        "config_files": _list_config_files(config),
        "output_dir": str(config.output_dir) if config else None,
        "first_host": hostfile.hosts[0].name,
        "port": wishes.port,
        "hashes": wishes.hashes,
        "rehash": wishes.rehash,
        "prefixes": [*TRAVELLING_PREFIXES, variables.CUDA],
        "names": TRAVELLING_NAMES,
        "secrets": secret_rules(),
    }


def _list_config_files(config: RunConfig | None) -> list[str]:
    """Files that the config names by path: DeepSpeed's, where it is none of the shipped ones.

    Raises:
        ConfigError: It cannot be read, or holds what does not belong there.
    """
    if config is None:
        return []
    load_deepspeed_config(config.deepspeed)
    return [config.deepspeed] if Path(config.deepspeed).is_file() else []
