"""Checks of what runs: ssh, Python, packages, the code itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from harness.cluster.doctor.ask import HostAnswer
from harness.cluster.doctor.findings import MISSING, Check, Severity, Situation, find_common, read_fact

PACKAGES = (
    "torch",
    "deepspeed",
    "transformers",
    "peft",
    "datasets",
    "pyarrow",
    "tokenizers",
    "numpy",
    "safetensors",
    "accelerate",
    "pydantic",
)
"""What a rank computes with, or reads its data and settings by."""

SHOWN_DIGITS = 8

_SSH_ADVICE = (
    ("Permission denied", "let your key in: ssh-copy-id {host}, or name another key in ~/.ssh/config"),
    ("Host key verification failed", "say yes to its key once: ssh {host} true"),
    ("resolve", "put the name into DNS, /etc/hosts or ~/.ssh/config, or correct it in the hostfile"),
    ("timed out", "see whether it is up and on this network: ping {host}"),
    ("No route", "see whether it is up and on this network: ping {host}"),
    ("Connection refused", "start sshd there: systemctl start ssh"),
    ("no Python", "make the environment there under the same path, or share its folder"),
    ("no answer", "log in and look for a disk that hangs: ssh {host} df"),
)


def check_ssh(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Every host answers without a question; unlike the others this one is asked about hosts that did not."""
    check = Check("ssh")
    for answer in answers:
        if not answer.error:
            way = f"{1000 * answer.round_trip_s:.1f} ms" if situation.over_ssh else "not needed"
            check.cells[answer.name] = way
            continue
        check.cells[answer.name] = "no answer"
        advice = next((text for sign, text in _SSH_ADVICE if sign in answer.error), "try: ssh -v {host} true")
        check.add("refuse", [answer.name], answer.error, advice.format(host=answer.name))
    return check


def check_python(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """The same Python everywhere, and the working folder."""
    check = Check("python")
    versions = {answer.name: str(read_fact(answer, "python", "version")) for answer in answers}
    check.cells.update(versions)
    common, differing = find_common(versions)
    for host in differing:
        # Only a third number is a repair that changes nothing.
        severity: Severity = "warn" if _minor(versions[host]) == _minor(common) else "refuse"
        check.add(
            severity,
            [host],
            f"Python {versions[host]}, and {common} on most hosts",
            "make the environment there with the same Python",
        )
    absent = [answer.name for answer in answers if not read_fact(answer, "python", "folder")]
    if absent:
        check.add(
            "refuse",
            absent,
            f"no folder {situation.folder}",
            "copy or share the project there under the same path",
        )
    return check


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def check_packages(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """The same version of each package; a cell names those that are not what most hosts have."""
    check = Check("packages")
    versions = {answer.name: _versions(answer) for answer in answers}
    odd: dict[str, list[str]] = {host: [] for host in versions}
    for package in PACKAGES:
        have = {host: found.get(package) for host, found in versions.items()}
        common, differing = find_common(have)
        for host in differing:
            odd[host].append(f"{package} {have[host] or 'missing'}")
            check.add(
                "refuse",
                [host],
                f"{package} {have[host] or 'is not installed'}, and {common or 'not installed'} on most hosts",
                f"there: pip install {package}=={common}"
                if common
                else f"remove {package} or install it everywhere",
            )
        if common is None and not differing:
            check.add("refuse", list(have), f"{package} is not installed", f"pip install {package}")
    check.cells.update({host: ", ".join(names) or f"{len(PACKAGES)} same" for host, names in odd.items()})
    return check


def _versions(answer: HostAnswer) -> Mapping[str, str | None]:
    return read_fact(answer, "packages") or {}


def check_code(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """The same source files with the same bytes."""
    check = Check("code")
    compare_hashes(
        check,
        {answer.name: read_fact(answer, "code") or {} for answer in answers},
        "bring the code there to the same state: git pull, or rsync",
    )
    return check


def compare_hashes(check: Check, files: Mapping[str, Mapping[str, str | None]], advice: str) -> None:
    """Fill a check with a digest of each host's files, and refuse those that differ from most, a file named.

    Args:
        check: Takes cells and findings.
        files: For each host, a digest by file name, None for a file that is not there.
        advice: What to do about a difference.
    """
    common, differing = find_common({host: tuple(sorted(found.items())) for host, found in files.items()})
    check.cells.update({host: shorten(found) for host, found in files.items()})
    for host in differing:
        names = sorted(
            name for name in {*dict(common), *files[host]} if dict(common).get(name) != files[host].get(name)
        )
        what = "is missing" if files[host].get(names[0]) is None else "is not what it is on most hosts"
        more = f", and {len(names) - 1} more" if len(names) > 1 else ""
        check.add("refuse", [host], f"{names[0]} {what}{more}", advice)


def shorten(files: Mapping[str, str | None]) -> str:
    """Eight digits that stand for all files of a host."""
    if not files:
        return MISSING
    text = "\n".join(f"{name} {digest}" for name, digest in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:SHOWN_DIGITS]
