"""What the doctor prints, and hostfiles that it refuses before anything starts."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness.__main__ import app
from harness.cluster.doctor.examine import Diagnosis, judge
from harness.cluster.doctor.table import print_diagnosis
from tests.doctor_facts import (
    make_answers,
    make_hostfile,
    make_situation,
)


def shown(diagnosis: Diagnosis, width: int) -> str:
    stream = io.StringIO()
    print_diagnosis(diagnosis, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 110])
def test_eight_hosts_fit_a_terminal_and_what_differs_is_marked(width: int) -> None:
    hostfile = make_hostfile(num_hosts=8)
    answers = make_answers(hostfile)
    answers[6].facts["code"]["harness/run.py"] = "b0"
    answers[4].facts["machine"]["open_files"] = 256
    situation = make_situation(hostfile)
    text = shown(Diagnosis(situation, answers, judge(answers, situation)), width)
    assert max(map(len, text.splitlines())) <= width
    for host in hostfile.names:
        assert host in text
    code_rows = [line for line in text.splitlines() if line.startswith("code ")]
    assert len(code_rows) == 2
    assert [row.count("x ") for row in code_rows] == [0, 1]
    assert "! 256" in text
    assert "x code, node7: harness/run.py is not what it is on most hosts" in text
    assert "refused" in text.splitlines()[-1]


def test_the_json_holds_everything_and_the_gravest_finding_first() -> None:
    hostfile = make_hostfile()
    answers = make_answers(hostfile)
    answers[1].facts["machine"]["open_files"] = 256
    answers[2].facts["packages"]["torch"] = "2.12.0"
    situation = make_situation(hostfile)
    found = json.loads(json.dumps(Diagnosis(situation, answers, judge(answers, situation)).to_json()))
    assert found["verdict"] == "refuse"
    assert [one["severity"] for one in found["findings"]] == ["refuse", "warn"]
    assert found["hosts"][2]["facts"]["packages"]["torch"] == "2.12.0"
    assert {check["name"]: check["verdict"] for check in found["checks"]}["packages"] == "refuse"


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("command", ["doctor", "bench-link", "launch"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node1 slots=1\nnode2 slot=1\n", ":2: got"),
        ("node1 slots=1\n\n-oProxyCommand=x slots=1\n", "is no host name"),
        ("$(reboot) slots=1\n", ":1:"),
    ],
)
def test_a_malformed_hostfile_is_refused_with_its_line_before_anything_starts(
    command: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text(text)
    arguments = [command, "--hostfile", str(tmp_path / "hosts")]
    arguments += ["--config", "quickstart", "--set", f"output_dir={tmp_path}"] if command == "launch" else []
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 3, done.output
    assert said in done.stderr
    assert not (tmp_path / "launch").exists()


@pytest.mark.usefixtures("nothing_starts")
def test_one_rank_alone_has_no_link(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("localhost slots=1\n")
    done = CliRunner().invoke(app, ["bench-link", "--hostfile", str(tmp_path / "hosts")])
    assert done.exit_code == 3
    assert "name two hosts or give two slots" in done.stderr
