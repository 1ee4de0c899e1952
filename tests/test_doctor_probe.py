"""What the doctor's probe tells of a host: its environment, cards, files, model, what a run
needs, and that nothing starts where it is refused."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.cluster.doctor import ask, probe
from harness.cluster.doctor.ask import HostAnswer, ask_hosts, explain_end
from harness.cluster.doctor.devices import parse_gpus
from harness.cluster.doctor.examine import Wishes, make_request
from harness.cluster.doctor.findings import Finding
from harness.cluster.doctor.fix_env import fix_user_file
from harness.cluster.doctor.needs import predict_needs
from harness.cluster.doctor.variables import read_lines
from harness.cluster.hostfile import Host, Hostfile
from harness.config import load_run_config
from preprocess.manifest import read_manifest
from tests.doctor_facts import (
    findings_of,
    make_answers,
    make_hostfile,
    make_situation,
)
from tests.runs import make_config
from tests.toys import make_dataset, make_model_dir, make_tokenizer

SMI_OF_TWO = "0, NVIDIA RTX A6000, 535.104.05, 49140, 48669\n1, NVIDIA RTX A6000, 535.104.05, 49140, 312\n"
SMI_LOST = "0, NVIDIA GeForce RTX 3090, 525.85.12, [GPU is lost], [GPU is lost]\n"
SMI_SHARED = "0, NVIDIA GB10, 580.95.05, [N/A], [N/A]\n"


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
