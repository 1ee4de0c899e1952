"""The doctor's checks: facts of hosts in, findings out. Each has hosts that pass and hosts that fail."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.doctor import examine, probe
from harness.cluster.doctor.ask import HostAnswer
from harness.cluster.doctor.examine import CHECKS, judge
from harness.cluster.doctor.findings import find_common, find_verdict
from harness.cluster.doctor.needs import Needs
from tests.doctor_facts import (
    GIB,
    L40S,
    findings_of,
    make_answers,
    make_hostfile,
    make_situation,
    plant,
)


def test_hosts_that_agree_and_have_enough_pass_every_check() -> None:
    hostfile = make_hostfile()
    checks = judge(make_answers(hostfile), make_situation(hostfile))
    assert [finding for check in checks for finding in check.findings] == []
    rows = {check.name for check in checks}
    assert {"ssh", "python", "code", "model", "shards", "ds config", "GPU", "VRAM free", "port"} <= rows
    assert len(CHECKS) == 20


DISK = {"path": "/runs", "writable": True, "shm_bytes": 8 * GIB}

PLANTED: list[tuple[str, Any, str, str, str]] = [
    ("python.version", "3.12.1", "python", "refuse", "Python 3.12.1, and 3.11.7 on most hosts"),
    ("python.version", "3.11.2", "python", "warn", "Python 3.11.2"),
    ("python.folder", False, "python", "refuse", "no folder /no/folder"),
    ("packages.torch", "2.12.0", "packages", "refuse", "torch 2.12.0, and 2.13.0 on most hosts"),
    ("packages.peft", None, "packages", "refuse", "peft is not installed"),
    ("code.harness/run|py", "b0", "code", "refuse", "harness/run.py is not what it is on most hosts"),
    ("code", {"harness/train.py": "aa"}, "code", "refuse", "harness/run.py is missing"),
    ("code.harness/extra|py", "ab", "code", "refuse", "harness/extra.py is not what it is"),
    ("model", {"path": None, "files": {}}, "model", "refuse", "no model /m"),
    (
        "model.files.model|safetensors",
        {"bytes": 9, "sha256": "c0"},
        "model",
        "refuse",
        "model.safetensors is not what it is on most hosts",
    ),
    ("data.train/0|arrow", None, "shards", "refuse", "train/0.arrow is missing"),
    ("data.train/0|arrow", {"bytes": 9, "sha256": "e0"}, "shards", "refuse", "train/0.arrow has other bytes"),
    ("data.manifest|json", {"bytes": 9, "sha256": "d0"}, "shards", "refuse", "manifest.json has other bytes"),
    ("config_files.ds|json", None, "ds config", "refuse", "ds.json is missing"),
    (
        "machine.identity",
        "boot 0",
        "machine",
        "refuse",
        "line 2 of the hostfile names the machine that node1 is",
    ),
    ("gpus", {"output": None}, "slots", "refuse", "slots=1 on line 2 of the hostfile, and it has 0 GPUs"),
    ("gpus", {"error": "nvidia-smi: no driver"}, "slots", "refuse", "nvidia-smi: no driver"),
    ("gpus.output", L40S.replace("L40S", "A40"), "GPU", "warn", "NVIDIA A40, and NVIDIA L40S on most hosts"),
    ("gpus.output", L40S.replace("550", "535"), "driver", "warn", "535.54.15, and 550.54.15 on most hosts"),
    (
        "gpus.output",
        L40S.replace("45500", "15000"),
        "VRAM free",
        "warn",
        "a step is predicted to take 20 GiB",
    ),
    (
        "gpus.output",
        L40S.replace("45500", "9000"),
        "VRAM free",
        "refuse",
        "weights and optimizer alone take 10 GiB",
    ),
    (
        "disks",
        {**DISK, "free_bytes": 8 * GIB},
        "disk free",
        "refuse",
        "3 checkpoints of 3.0 GiB take 9.0 GiB",
    ),
    ("disks", {**DISK, "free_bytes": 10 * GIB}, "disk free", "warn", "no room for the best checkpoint"),
    ("disks.writable", False, "disk free", "refuse", "/runs cannot be written"),
    ("disks.shm_bytes", 2**20, "/dev/shm", "warn", "1 MiB free in /dev/shm"),
    (
        "machine.available_bytes",
        GIB,
        "RAM free",
        "warn",
        "1.0 GiB free, and 1 ranks each read weights of 6.0 GiB",
    ),
    ("machine.open_files", 256, "open files", "warn", "256 open files allowed"),
    ("network.first_host", "127.0.1.1", "first host", "warn", "it knows node1 as 127.0.1.1"),
    (
        "environment.values",
        {"HF_HOME": "/other"},
        "variables",
        "warn",
        "HF_HOME is not the same on all hosts",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "check", "severity", "message"),
    PLANTED,
    ids=[f"{number}-{check}-{severity}" for number, (_, _, check, severity, _) in enumerate(PLANTED)],
)
def test_one_planted_difference_is_found_by_its_check_alone_and_names_its_host(
    path: str, value: Any, check: str, severity: str, message: str
) -> None:
    found = [finding for finding in plant(path, value) if finding.check == check]
    assert [finding.severity for finding in found] == [severity]
    assert message in found[0].message
    assert "node2" in found[0].hosts
    if check != "variables":
        assert found[0].hosts == ("node2",)
    assert found[0].advice
    others = {finding.check for finding in plant(path, value)} - {check}
    assert others <= {"GPU", "driver"}  # no card at all is another card too


@pytest.mark.parametrize("position", range(len(CHECKS)))
def test_without_a_check_what_was_planted_for_it_is_missed(
    position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostfile = make_hostfile()
    name = CHECKS[position](make_answers(hostfile), make_situation(hostfile)).name
    monkeypatch.setattr(examine, "CHECKS", CHECKS[:position] + CHECKS[position + 1 :])
    planted = [(path, value) for path, value, check, _, _ in PLANTED if check == name]
    assert all(finding.check != name for path, value in planted for finding in plant(path, value))
    assert planted or name in ("clock", "port", "deepspeed_env")  # which have tests of their own


def test_a_probe_that_hashed_a_files_beginning_alone_would_miss_a_flipped_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole, flipped = bytes(range(256)) * 8, bytearray(bytes(range(256)) * 8)
    flipped[1500] ^= 1
    (tmp_path / "a").write_bytes(whole)
    (tmp_path / "b").write_bytes(flipped)

    def digests() -> set[str]:
        paths = {name: tmp_path / name for name in "ab"}
        found = probe.describe_files(paths, {"hashes": True, "rehash": True})
        return {found[name]["sha256"] for name in "ab"}

    assert len(digests()) == 2
    monkeypatch.setattr(probe, "hash_bytes", lambda path: str(path.read_bytes()[:1024]))
    assert len(digests()) == 1


def test_a_busy_port_on_the_first_host_is_refused_and_on_another_is_nobodys_business() -> None:
    (found,) = plant("network.port_free", False, host=0)
    assert (found.check, found.severity, found.message) == ("port", "refuse", "port 29500 is in use")
    assert plant("network.port_free", False, host=1) == []


@pytest.mark.parametrize(
    ("offset_s", "round_trip_s", "severity"),
    [
        (0.4, 0.001, None),
        (-90.0, 0.001, "warn"),
        (4000.0, 0.001, "refuse"),
        (1.5, 2.0, None),
        (2.5, 2.0, "warn"),
    ],
)
def test_a_clock_is_wrong_only_by_what_half_a_round_trip_does_not_explain(
    offset_s: float, round_trip_s: float, severity: str | None
) -> None:
    hostfile = make_hostfile()
    answers = make_answers(hostfile)
    answers[2] = replace(answers[2], clock_offset_s=offset_s, round_trip_s=round_trip_s)
    found = findings_of(answers, make_situation(hostfile))
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(finding.check == "clock" and finding.hosts == ("node3",) for finding in found)


def test_a_host_that_does_not_answer_is_a_row_of_its_own_and_the_others_are_judged() -> None:
    hostfile = make_hostfile()
    answers = make_answers(hostfile)
    answers[0] = HostAnswer(hostfile.hosts[0], error="ssh: connect to host node1 port 22: Connection refused")
    answers[2].facts["packages"]["torch"] = "2.12.0"
    found = findings_of(answers, make_situation(hostfile))
    assert [(finding.check, finding.hosts) for finding in found] == [
        ("ssh", ("node1",)),
        ("packages", ("node3",)),
    ]
    assert "start sshd" in found[0].advice
    dead = [HostAnswer(host, error="no answer for 20 s") for host in hostfile.hosts]
    assert {finding.check for finding in findings_of(dead, make_situation(hostfile))} == {"ssh"}


def test_slots_are_compared_with_what_computes() -> None:
    hostfile = make_hostfile(slots=2)
    answers, situation = make_answers(hostfile), make_situation(hostfile)
    assert {finding.message.partition(" on")[0] for finding in findings_of(answers, situation)} == {"slots=2"}
    for answer in answers:
        answer.facts["gpus"]["output"] = L40S + L40S.replace("0,", "1,", 1)
    assert findings_of(answers, situation) == []
    on_cpu = replace(situation, on_cpu=True)
    answers[0].facts["machine"]["cores"] = 1
    (found,) = findings_of(answers, on_cpu)
    assert (found.severity, found.message) == (
        "warn",
        "slots=2 on line 1 of the hostfile, and it has 1 cores",
    )


def test_hosts_without_any_gpu_are_warned_of_unless_the_cpu_was_asked_for() -> None:
    hostfile = make_hostfile()
    answers = make_answers(hostfile)
    for answer in answers:
        answer.facts["gpus"]["output"] = None
    (found,) = findings_of(answers, make_situation(hostfile))
    assert "would compute on the CPU" in found.message
    assert findings_of(answers, make_situation(hostfile, on_cpu=True)) == []


def test_only_cards_that_get_a_rank_need_free_memory() -> None:
    assert plant("gpus.output", L40S + L40S.replace("0,", "1,", 1).replace("45500", "9")) == []
    assert (
        plant("gpus.output", L40S.replace("45500", "15000"), needs=Needs(20 * GIB, 10 * GIB, searches=True))
        == []
    )
    assert plant("gpus.output", L40S.replace("45500", "9"), needs=Needs()) == []
    (found,) = plant("python.folder", True, needs=Needs(unknown="no such shape"))
    assert (found.check, found.severity) == ("VRAM free", "warn")
    assert found.message == "what a rank takes cannot be predicted: no such shape"


def test_a_world_size_that_the_hostfile_does_not_add_up_to_is_refused() -> None:
    hostfile = make_hostfile()
    (found,) = findings_of(make_answers(hostfile), make_situation(hostfile, world_size=4))
    assert found.severity == "refuse"
    assert "adds up to 3 ranks, and the config's world_size is 4" in found.message


def test_a_model_of_the_hub_may_be_absent_unless_the_hub_is_off() -> None:
    absent: dict[str, Any] = {"path": None, "files": {}}
    (found,) = plant("model", absent, model="org/name")
    assert (found.severity, found.hosts) == ("warn", ("node2",))
    environment = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1"}
    offline = plant("model", absent, model="org/name", environment=environment)
    assert [finding.severity for finding in offline if finding.check == "model"] == ["refuse"]


def test_without_hashes_sizes_and_presence_are_compared() -> None:
    def unhashed(num_bytes: int) -> dict[str, Any]:
        return {"bytes": num_bytes, "sha256": None}

    hostfile = make_hostfile()
    answers = make_answers(hostfile)
    for number, answer in enumerate(answers):
        answer.facts["data"]["train/0.arrow"] = unhashed(9)
        answer.facts["model"]["files"]["model.safetensors"] = unhashed(9 + (number == 2))
    (found,) = findings_of(answers, make_situation(hostfile))
    assert (found.check, found.hosts) == ("model", ("node3",))


def test_a_data_set_that_is_not_here_is_refused_with_its_reason() -> None:
    hostfile = make_hostfile()
    (found,) = findings_of(
        make_answers(hostfile), make_situation(hostfile, data_error="data: no such folder")
    )
    assert (found.check, found.severity, found.message) == ("shards", "refuse", "data: no such folder")


def test_where_two_values_are_as_common_the_first_host_has_the_right_one() -> None:
    assert find_common({"a": 1, "b": 2}) == (1, ["b"])
    assert find_common({"a": 1, "b": 2, "c": 2}) == (2, ["a"])
    assert find_verdict([]) == "fine"
