"""Secrets and hostile texts through launches on three hosts: no secret is seen anywhere, no text is run."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cluster import Cluster, missing_means, run_on, three_hosts
from tests.hostile import CONTROLS, HOSTILE
from tests.runs import make_config
from tests.toys import make_dataset, make_model_dir, make_tokenizer

MISSING = missing_means()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}")]

TESTS = Path(__file__).parent
ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
}
LAUNCH = (
    "import sys; from pathlib import Path; from harness.cluster.launch import launch\n"
    "import harness.cluster.environment as environment\n"
    "if sys.argv[4] == 'careless': environment.looks_secret = lambda name, value: False\n"
    "sys.exit(launch(*map(Path, sys.argv[1:4]), module=sys.argv[5]))"
)
SECRET_NAMES = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "NCCL_KEY",
    "PYTHONSECRET",
    "MLFLOW_TRACKING_PASSWORD", "TORCH_PASSPHRASE", "GITHUB_TOKEN", "DATABASE_PWD", "LYRICS_CREDENTIALS",
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with three_hosts(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def make_secrets() -> dict[str, str]:
    """A value of its own for each name, and two URLs with passwords."""
    made = {name: f"canary{os.urandom(8).hex()}" for name in SECRET_NAMES}
    for name in ("HTTPS_PROXY", "HF_ENDPOINT"):
        made[name] = f"http://me:canary{os.urandom(8).hex()}@proxy.invalid:3128"
    return made


def needles(secrets: Mapping[str, str]) -> list[bytes]:
    """What to look for: the random part of each."""
    return [value.split("me:")[-1].split("@")[0].encode() for value in secrets.values()]


@contextmanager
def watch_command_lines(wanted: Sequence[bytes]) -> Iterator[set[bytes]]:
    """Look through all command lines of the machine over and over; gather what of `wanted` is seen in them."""
    seen: set[bytes] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.03):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    line = path.read_bytes()
                    seen.update(text for text in wanted if text in line)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def find_in_files(folder: Path, wanted: Sequence[bytes]) -> set[str]:
    """The files that hold any of `wanted`."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(text in path.read_bytes() for text in wanted)
    }


def write_user_file(folder: Path) -> dict[str, str]:
    """A user's own file for DeepSpeed with secrets in it, outside of what is searched; returns those."""
    folder.mkdir()
    own = {f"OWN_{name}": f"canary{os.urandom(8).hex()}" for name in SECRET_NAMES}
    lines = ["# mine", "", *(f"{name}={value}" for name, value in own.items()), "OWN_FOLDER=/data"]
    (folder / "environment").write_text("\n".join(lines) + "\n")
    return own


def launch_watched(
    cluster: Cluster, tmp_path: Path, kind: str, config: Path, launches: Path, module: str
) -> tuple[str, set[bytes], list[bytes]]:
    """Launch on three hosts with secrets around. Returns the output, what command lines showed, and the secrets."""
    secrets = make_secrets()
    wanted = needles({**secrets, **write_user_file(tmp_path / "user")})
    environment = {**ENVIRONMENT, **secrets, "DS_ENV_FILE": str(tmp_path / "user" / "environment")}
    hostfile = cluster.write_hostfile(tmp_path / "hosts")
    command = [sys.executable, "-c", LAUNCH, str(config), str(hostfile), str(launches), kind, module]
    with watch_command_lines(wanted) as seen:
        result = run_on(cluster.hosts[0], command, environment, TESTS.parent, timeout=240)
    return result.stdout, seen, wanted


def write_plain(tmp_path: Path, kind: str) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "reports").mkdir()
    config = tmp_path / "run" / f"{kind}.json"
    config.write_text(
        json.dumps({"reports": str(tmp_path / "reports"), "ends": dict.fromkeys("012", "plain")})
    )
    return config


def test_no_secret_is_in_a_file_an_output_or_a_process_list(cluster: Cluster, tmp_path: Path) -> None:
    config = write_plain(tmp_path, "careful")
    output, seen, wanted = launch_watched(
        cluster, tmp_path, "careful", config, tmp_path / "run" / "launch", "rank_program"
    )
    assert seen == set()
    assert not [text for text in wanted if text in output.encode()]
    assert find_in_files(tmp_path / "run", wanted) == set()
    for name in ("HF_TOKEN", "OWN_HF_TOKEN", "HF_ENDPOINT"):
        assert name in output  # told by its name
    report = json.loads((tmp_path / "reports" / "rank-2.json").read_text())
    assert report["environment"]["OWN_FOLDER"] == "/data"
    assert next((tmp_path / "run" / "launch").glob("*/environment")).stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_launch_that_does_not_withhold_secrets_is_caught(cluster: Cluster, tmp_path: Path) -> None:
    config = write_plain(tmp_path, "careless")
    _, seen, wanted = launch_watched(
        cluster, tmp_path, "careless", config, tmp_path / "run" / "launch", "rank_program"
    )
    assert len(seen) > 10
    assert find_in_files(tmp_path / "run", wanted)


@pytest.mark.slow
def test_a_training_and_its_report_hold_no_secret(cluster: Cluster, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("chatml")
    (tmp_path / "all").mkdir()
    make_dataset(tmp_path / "all" / "data", tokenizer=tokenizer)
    model = make_model_dir(tmp_path / "all" / "model", tokenizer.vocab_size, tokenizer=tokenizer)
    run = tmp_path / "all" / "run"
    overrides = ["world_size=3", "schedule.max_steps=4", "tensorboard=true", "schedule.save_every_steps=2"]
    config = make_config(tmp_path / "all", run, tmp_path / "all" / "data", model, overrides)
    output, seen, wanted = launch_watched(
        cluster, tmp_path, "careful", config, run / "launch", "harness.train"
    )
    secrets = {f"S{number}_TOKEN": text.decode() for number, text in enumerate(wanted)}
    report = [sys.executable, "-m", "harness", "report", str(run)]
    output += run_on(cluster.hosts[0], report, {**ENVIRONMENT, **secrets}, TESTS.parent, timeout=120).stdout
    names = {path.name for path in run.rglob("*")}
    assert {"report.html", "config.yaml", "versions.json", "metrics.jsonl", "rank-2.log", "hostfile"} <= names
    assert any("tfevents" in name for name in names)
    assert seen == set()
    assert not [text for text in wanted if text in output.encode()]
    assert find_in_files(tmp_path / "all", wanted) == set()


@pytest.mark.slow
def test_hostile_values_reach_the_ranks_of_three_hosts_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    texts = [text for text in HOSTILE if text and text == text.strip() and not CONTROLS & set(text)]
    texts = [text for text in texts if not set(text) & set("\n\t\0\r\u2028")]
    hostile = {f"HF_T{number}": text for number, text in enumerate(texts)}
    hostile |= {"NCCL_DEBUG_FILE": "$(touch canary)", "MV2X": "$(touch canary)", "UCXX": "`touch canary`"}
    hostile["NCCL_$(touch canary)"] = hostile["PYTHON;touch canary;"] = "1"
    config = write_plain(tmp_path, "careful")
    hostfile = cluster.write_hostfile(tmp_path / "hosts")
    command = [sys.executable, "-c", LAUNCH, str(config), str(hostfile), str(tmp_path / "run" / "launch")]
    before = set(TESTS.parent.iterdir())
    run_on(
        cluster.hosts[0],
        [*command, "careful", "rank_program"],
        {**ENVIRONMENT, **hostile},
        TESTS.parent,
        timeout=240,
    )
    assert len(texts) >= 120
    for rank in range(3):
        report = json.loads((tmp_path / "reports" / f"rank-{rank}.json").read_text())
        got = {name: report["environment"].get(name) for name in hostile if name.startswith("HF_T")}
        assert got == {name: text for name, text in hostile.items() if name.startswith("HF_T")}
        assert "MV2X" not in report["environment"]
    assert {path.name for path in set(TESTS.parent.iterdir()) - before} == set()
    assert not list(tmp_path.rglob("canary"))
    assert not (Path.home() / "canary").exists()
