"""Checks of the environment: what travels, what cannot, what a host has of its own, and DeepSpeed's own file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.cluster.doctor.ask import HostAnswer
from harness.cluster.doctor.findings import Check, Situation, read_fact
from harness.cluster.environment import (
    is_variable_name,
    quote_value,
    select_travelling,
    withhold_secrets,
)
from preprocess.errors import ConfigError
from preprocess.secret import looks_secret

CUDA = "CUDA_"
PYTHON_PATH = "PYTHONPATH"


def check_variables(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Every rank sees the same variables: those set here travel, others must be the same on all hosts."""
    check = Check("variables")
    if not situation.over_ssh:
        return check
    travelling = {**select_travelling(situation.environment), PYTHON_PATH: ""}
    own = {answer.name: _own_values(answer, travelling) for answer in answers}
    check.cells.update({answer.name: f"{len(travelling)} sent" for answer in answers})
    for name in sorted({name for values in own.values() for name in values}):
        values = {host: found.get(name) for host, found in own.items()}
        if len(set(values.values())) > 1:
            _tell_difference(check, name, values)
    _check_what_stays(check, answers, situation)
    _check_what_cannot_travel(check, situation, travelling)
    return check


def _own_values(answer: HostAnswer, travelling: Mapping[str, str]) -> dict[str, str]:
    values: Mapping[str, str] = read_fact(answer, "environment", "values") or {}
    # DeepSpeed sets the visible devices itself, from the slots.
    return {n: v for n, v in values.items() if n not in travelling and n != "CUDA_VISIBLE_DEVICES"}


def _tell_difference(check: Check, name: str, values: Mapping[str, str | None]) -> None:
    shown = ", ".join(f"{host} {'has none' if v is None else v}" for host, v in list(values.items())[:4])
    hosts = [host for host, value in values.items() if value is not None]
    for host in hosts:
        check.cells[host] = f"own {name}"
    advice = (
        f"set {name} where you launch, and it is sent to all"
        if not name.startswith(CUDA)
        else ("make it the same on all hosts, or put it into ~/.deepspeed_env here")
    )
    check.add("warn", hosts, f"{name} is not the same on all hosts: {shown}", advice)


def _check_what_stays(check: Check, answers: Sequence[HostAnswer], situation: Situation) -> None:
    """What is set here and does not travel."""
    environment = situation.environment
    travelling = select_travelling(environment)
    for name in sorted(n for n in environment if n.startswith(CUDA) and n not in travelling):
        has = {
            answer.name: (read_fact(answer, "environment", "values") or {}).get(name) for answer in answers
        }
        lacking = [host for host, value in has.items() if value != environment[name]]
        if name == "CUDA_VISIBLE_DEVICES":
            message, advice = (
                "CUDA_VISIBLE_DEVICES is set here and will be ignored: DeepSpeed takes the first `slots` devices",
                "unset it",
            )
            check.add("warn", [answer.name for answer in answers], message, advice)
        elif lacking:
            check.add(
                "warn",
                lacking,
                f"{name} is set here and does not travel",
                "set it there, or put it into ~/.deepspeed_env here",
            )
    _, secrets = withhold_secrets(environment)
    for name in secrets:
        lacking = [a.name for a in answers if name not in (read_fact(a, "environment", "secrets") or ())]
        if lacking:
            check.add(
                "warn",
                lacking,
                f"{name} is set here; it looks secret and is not sent",
                "log in there, as with `hf auth login`, if the run needs it",
            )


def _check_what_cannot_travel(check: Check, situation: Situation, travelling: Mapping[str, str]) -> None:
    for name, value in travelling.items():
        try:
            quote_value(name, value)
        except ConfigError as error:
            check.add("refuse", situation.hostfile.names, str(error), f"unset {name}, or mend its value")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a DeepSpeed environment file.

    Attributes:
        path: Of the file.
        number: From 1.
        kind: "good", or what is wrong with it.
        name: Of the variable, where it has one.
        text: NAME=VALUE where it is good, else the empty string: a value may be secret.
    """

    path: Path
    number: int
    kind: Literal["good", "empty", "comment", "export", "malformed", "secret"]
    name: str = ""
    text: str = ""


def user_files(environment: Mapping[str, str], home: Path, folder: Path) -> list[Path]:
    """Where DeepSpeed looks for the user's environment, in its order."""
    name = environment.get("DS_ENV_FILE", ".deepspeed_env")
    return list(dict.fromkeys([home / name, folder / name]))


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a DeepSpeed environment file, judged; nothing where there is none."""
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape") if path.is_file() else ""
    lines = text.split("\n")
    for number, raw in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        yield _judge(path, number, raw.strip())


def _judge(path: Path, number: int, line: str) -> Line:
    if not line or line.startswith("#"):
        return Line(path, number, "comment" if line else "empty")
    exported = line.startswith("export ")
    name, separator, value = line.removeprefix("export ").strip().partition("=")
    name, value = name.strip(), value.strip()
    if not separator or not is_variable_name(name):
        return Line(path, number, "malformed")
    if looks_secret(name, value):
        return Line(path, number, "secret", name)
    return Line(path, number, "export" if exported else "good", name, f"{name}={value}")


_COMPLAINTS = {
    "empty": "an empty line, on which DeepSpeed fails when it is started by hand",
    "comment": "a comment, on which DeepSpeed fails when it is started by hand",
    "export": '"export" would become a part of the name when DeepSpeed is started by hand',
    "malformed": "expected NAME=VALUE (the value is not shown)",
}


def check_user_file(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """DeepSpeed's environment file of the user can be read, and names no secret."""
    check = Check("deepspeed_env")
    for path in user_files(situation.environment, situation.home, situation.folder):
        for line in read_lines(path):
            if line.kind == "good":
                continue
            what = _COMPLAINTS.get(line.kind) or (
                f"{line.name} looks secret: DeepSpeed, started by hand, prints it and puts it on command lines"
            )
            check.add(
                "refuse" if line.kind == "malformed" else "warn",
                (),
                f"{line.path}:{line.number}: {what}",
                "python -m harness doctor --fix-env writes a correct file",
            )
    return check
