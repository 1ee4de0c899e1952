"""The doctor's checks: facts of hosts in, findings out. Each has hosts that pass and hosts that fail."""

from __future__ import annotations

import copy
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness.__main__ import app
from harness.cluster.doctor import ask, examine, probe
from harness.cluster.doctor.ask import HostAnswer, ask_hosts, explain_end
from harness.cluster.doctor.devices import parse_gpus
from harness.cluster.doctor.examine import CHECKS, Diagnosis, Wishes, judge, make_request
from harness.cluster.doctor.findings import Finding, Situation, find_common, find_verdict
from harness.cluster.doctor.fix_env import fix_user_file
from harness.cluster.doctor.needs import Needs, predict_needs
from harness.cluster.doctor.software import PACKAGES
from harness.cluster.doctor.table import print_diagnosis
from harness.cluster.doctor.variables import read_lines
from harness.cluster.hostfile import Host, Hostfile
from harness.config import load_run_config
from preprocess.manifest import read_manifest
from tests.runs import make_config
from tests.toys import make_dataset, make_model_dir, make_tokenizer

GIB = 2**30
L40S = "0, NVIDIA L40S, 550.54.15, 46068, 45500\n"
SMI_OF_TWO = "0, NVIDIA RTX A6000, 535.104.05, 49140, 48669\n1, NVIDIA RTX A6000, 535.104.05, 49140, 312\n"
SMI_LOST = "0, NVIDIA GeForce RTX 3090, 525.85.12, [GPU is lost], [GPU is lost]\n"
SMI_SHARED = "0, NVIDIA GB10, 580.95.05, [N/A], [N/A]\n"

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


def with_environment(values: dict[str, str]) -> list[Finding]:
    hostfile = make_hostfile()
    environment = {"PATH": os.environ["PATH"], **values}
    return findings_of(make_answers(hostfile), make_situation(hostfile, environment=environment))


def test_what_is_set_here_and_travels_hides_what_the_hosts_have() -> None:
    hostfile = make_hostfile()
    answers = make_answers(hostfile)
    answers[1].facts["environment"]["values"]["HF_HOME"] = "/other"
    environment = {"PATH": os.environ["PATH"], "HF_HOME": "/mine"}
    assert findings_of(answers, make_situation(hostfile, environment=environment)) == []


def test_what_is_set_here_and_does_not_travel_is_told_and_a_secret_is_not_shown() -> None:
    (found,) = with_environment({"CUDA_LAUNCH_BLOCKING": "1"})
    assert "CUDA_LAUNCH_BLOCKING is set here and does not travel" in found.message
    (found,) = with_environment({"CUDA_VISIBLE_DEVICES": "1"})
    assert "will be ignored" in found.message
    (found,) = with_environment({"HF_TOKEN": "hunter2"})
    assert "HF_TOKEN is set here; it looks secret and is not sent" in found.message
    assert "hunter2" not in json.dumps([finding.message + finding.advice for finding in [found]])
    (found,) = with_environment({"NCCL_DEBUG": "a\nb"})
    assert (found.severity, found.check) == ("refuse", "variables")
    assert with_environment({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "NCCL_DEBUG": "INFO"}) == []


BAD_FILE = "A=1\n\n# mine\nexport B=2\nHF_TOKEN=hunter2\nnonsense hunter2\n"


def test_the_users_deepspeed_file_is_judged_line_by_line_without_its_secrets(tmp_path: Path) -> None:
    (tmp_path / ".deepspeed_env").write_text(BAD_FILE)
    hostfile = make_hostfile()
    found = findings_of(make_answers(hostfile), make_situation(hostfile, home=tmp_path))
    told = {int(finding.message.split(":")[1]): finding.severity for finding in found}
    assert told == {2: "warn", 3: "warn", 4: "warn", 5: "warn", 6: "refuse"}
    assert "hunter2" not in str(found)
    (tmp_path / ".deepspeed_env").write_text("A=1\nB=$HOME/x\n")
    assert findings_of(make_answers(hostfile), make_situation(hostfile, home=tmp_path)) == []


def test_the_file_is_written_anew_with_what_travels_and_the_old_one_kept(tmp_path: Path) -> None:
    path = tmp_path / ".deepspeed_env"
    path.write_text(BAD_FILE + "NCCL_DEBUG=OLD\n")
    environment = {"NCCL_DEBUG": 'a "b" $c', "HF_HUB_TOKEN": "hunter2", "PYTHONPATH": "/x", "HOME": "/root"}
    fixed = fix_user_file(environment, tmp_path, tmp_path)
    assert path.read_text() == 'NCCL_DEBUG=a \\"b\\" \\$c\nA=1\nB=2\n'
    assert {line.kind for line in read_lines(path)} == {"good"}
    assert fixed.names == ("A", "B", "NCCL_DEBUG")
    assert fixed.left_out == ("HF_HUB_TOKEN", "HF_TOKEN")
    assert fixed.dropped == (6,)
    assert fixed.backup is not None
    assert fixed.backup.read_text() == BAD_FILE + "NCCL_DEBUG=OLD\n"
    assert stat.S_IMODE(fixed.backup.stat().st_mode) == 0o600
    again = fix_user_file(environment, tmp_path, tmp_path)
    assert again.backup is not None
    assert again.backup != fixed.backup
    assert path.read_text().startswith("NCCL_DEBUG=")


def test_what_nvidia_smi_prints_is_read() -> None:
    assert [(gpu.index, gpu.name, gpu.free_bytes) for gpu in parse_gpus(SMI_OF_TWO)] == [
        (0, "NVIDIA RTX A6000", 48669 * 2**20),
        (1, "NVIDIA RTX A6000", 312 * 2**20),
    ]
    assert [(gpu.driver, gpu.free_bytes) for gpu in parse_gpus(SMI_LOST + SMI_SHARED)] == [
        ("525.85.12", None),
        ("580.95.05", None),
    ]
    assert parse_gpus("No devices were found\n") == []
    assert parse_gpus("0, NVIDIA A100, SXM, 1.2, 9 MiB, 8 MiB\n")[0].name == "NVIDIA A100, SXM"


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy model, data and a run's config."""
    folder = tmp_path_factory.mktemp("doctor")
    tokenizer = make_tokenizer("chatml")
    make_dataset(folder / "data", tokenizer=tokenizer)
    make_model_dir(folder / "model", tokenizer.vocab_size, tokenizer=tokenizer)
    make_config(folder, folder / "run", folder / "data", folder / "model")
    return folder


def ask_here(toys: Path, monkeypatch: pytest.MonkeyPatch, **wishes: Any) -> HostAnswer:
    monkeypatch.setenv("XDG_CACHE_HOME", str(toys / "cache"))
    config = load_run_config(toys / "run.yaml")
    hostfile = Hostfile((Host("localhost", 1, 1),), Path("hosts"))
    request = make_request(hostfile, config, read_manifest(config.data.path), Wishes(**wishes))
    (answer,) = ask_hosts(hostfile.hosts, request, over_ssh=False)
    assert answer.error == ""
    return answer


def test_the_probe_tells_of_this_machine_what_is_there(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    answer = ask_here(toys, monkeypatch)
    assert [name for name, fact in answer.facts.items() if isinstance(fact, dict) and "error" in fact] == []
    assert answer.facts["code"]["harness/train.py"] == probe.hash_bytes(Path("harness/train.py"))
    manifest = read_manifest(toys / "data")
    shard = manifest.splits["train"].shards[0]
    assert answer.facts["data"][f"train/{shard.file}"] == {"bytes": shard.num_bytes, "sha256": shard.sha256}
    assert answer.facts["packages"]["torch"]
    assert "model.safetensors" in answer.facts["model"]["files"]
    assert answer.facts["environment"]["values"]["NCCL_DEBUG"] == "WARN"
    assert answer.facts["environment"]["secrets"] == ["HF_TOKEN"]
    assert "hunter2" not in json.dumps(dict(answer.facts))
    assert abs(answer.clock_offset_s) <= answer.round_trip_s


def test_a_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "shard"
    request = {"hashes": True, "rehash": False}

    def digest(**changes: bool) -> tuple[str, list[Path]]:
        hashed: list[Path] = []
        real = probe.hash_bytes

        def note(file: Path) -> str:
            hashed.append(file)
            return real(file)

        with monkeypatch.context() as patched:
            patched.setattr(probe, "hash_bytes", note)
            found = probe.describe_files({"shard": path}, {**request, **changes})
        return found["shard"]["sha256"], hashed

    path.write_bytes(b"one")
    os.utime(path, (1000, 1000))
    first, hashed = digest()
    assert hashed == [path]
    assert digest() == (first, [])
    assert digest(rehash=True) == (first, [path])
    path.write_bytes(b"two")
    os.utime(path, (2000, 2000))
    assert digest()[0] != first
    # A file that has just been written may be written again within the same tick.
    path.write_bytes(b"new")
    assert digest()[1] == digest()[1] == [path]


def test_a_damaged_memory_of_digests_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "lyrics-harness" / "hashes.json"
    cache.parent.mkdir()
    (tmp_path / "shard").write_bytes(b"one")
    for text in ("[1]", "{", '{"x": 3}'):
        cache.write_text(text)
        found = probe.describe_files({"a": tmp_path / "shard"}, {"hashes": True, "rehash": False})
        assert found["a"]["sha256"] == probe.hash_bytes(tmp_path / "shard")


@pytest.mark.parametrize("source", ["folder", "file", "package:llm_toy", "org/name"])
def test_a_model_is_found_where_the_ranks_will_find_it(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "folder": tmp_path / "folder",
        "file": tmp_path / "file.gguf",
        "package:llm_toy": tmp_path / "llm_toy",
        "org/name": tmp_path / "hub" / "models--org--name" / "snapshots" / "abc",
    }
    for name, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if name == "file":
            place.write_text("x")
        else:
            place.mkdir()
    (tmp_path / "llm_toy" / "__init__.py").touch()
    references = tmp_path / "hub" / "models--org--name" / "refs"
    references.mkdir()
    (references / "main").write_text("abc\n")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.syspath_prepend(str(tmp_path))
    place = places[source]
    asked = str(place) if source in ("folder", "file") else source
    assert probe.locate_model(asked) == place
    assert probe.locate_model("package:no_such_package") is None
    assert probe.locate_model("org/other") is None


def test_a_host_that_hangs_prints_noise_or_has_no_python_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host("localhost", 1, 1)

    def answer_of(program: str) -> HostAnswer:
        (tmp_path / "probe.py").write_text(f"import json, sys, time\ndef serve(request):\n    {program}\n")
        monkeypatch.setattr(ask, "PROBE", tmp_path / "probe.py")
        return ask_hosts([host], {}, over_ssh=False, silence_s=1.0)[0]

    assert answer_of("time.sleep(60)").error == "no answer for 1 s"
    assert answer_of("sys.exit('boom')").error == "boom (exit code 1)"
    said = [{"time": 1}] * 5 + [{"hashing": 1}, {"facts": {"a": 1}}]
    noisy = f"print('Welcome to node1!'); [print({probe.MARK!r} + json.dumps(v), flush=True) for v in {said}]"
    assert answer_of(noisy).facts == {"a": 1}
    assert explain_end(127, "sh: 1: /x: not found\n").startswith("no Python at")
    assert explain_end(255, "Permission denied (publickey).\n") == "ssh: Permission denied (publickey)."


def test_the_users_own_ssh_options_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDSH_SSH_ARGS_APPEND", "-p 2222 -o 'ProxyCommand=a b'")
    command = ask.ssh_command("node1")
    assert command[:5] == ["ssh", "-p", "2222", "-o", "ProxyCommand=a b"]
    assert command[-2] == "node1"
    assert command[-1].startswith(sys.executable)


def test_needs_are_those_of_the_plan_and_what_cannot_be_predicted_says_why(toys: Path) -> None:
    config = load_run_config(toys / "run.yaml")
    needs = predict_needs(config, 3)
    assert needs.peak_bytes is not None
    assert needs.rest_bytes is not None
    assert needs.peak_bytes > needs.rest_bytes > 0
    assert needs.checkpoint_bytes
    assert needs.checkpoint_bytes % 16 == 0
    missing = load_run_config(toys / "run.yaml", [f"data.path={toys / 'nothing'}"])
    assert "no such folder" in predict_needs(missing, 3).unknown


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


def test_a_launch_starts_nothing_when_the_doctor_refuses(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def note_start(*given: object, **options: object) -> int:
        started.append(given)
        return 0

    monkeypatch.setattr("harness.__main__.launch_ranks", note_start)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".deepspeed_env").write_text("nonsense\n")
    (tmp_path / "hosts").write_text("localhost slots=1\n")
    arguments = ["launch", "--hostfile", str(tmp_path / "hosts"), "--config", str(toys / "run.yaml")]
    arguments += ["--set", f"output_dir={tmp_path / 'run'}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 3, done.output
    assert ".deepspeed_env:1: expected NAME=VALUE" in " ".join(done.stderr.split())
    assert not started
    assert not (tmp_path / "run").exists()
    assert CliRunner().invoke(app, [*arguments, "--no-doctor"]).exit_code == 0
    assert len(started) == 1
    (tmp_path / ".deepspeed_env").unlink()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(started) == 2
