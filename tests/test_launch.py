from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.cluster import keeper
from harness.cluster import start as start_module
from harness.cluster.environment import (
    extend_python_path,
    format_environment,
    quote_value,
    read_user_file,
    select_travelling,
    withhold_secrets,
)
from harness.cluster.hostfile import Hostfile, parse_hostfile
from harness.cluster.hosts import check_shell_safe, choose_devices, is_local, needs_ssh
from harness.cluster.launch import launch
from harness.cluster.outcome import Outcome, read_outcome, record_exit
from preprocess.errors import ConfigError, HostLostError, PreflightError
from preprocess.secret import looks_secret

TESTS = Path(__file__).parent
# A shell starts background jobs with SIGINT ignored, which children inherit: the launch heeds it again.
LAUNCH_LINE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "import sys; from pathlib import Path; from harness.cluster.launch import launch; "
    "sys.exit(launch(*map(Path, sys.argv[1:4]), module='rank_program'))"
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Launch `rank_program` on this machine; the keyword `ends` says how each rank ends."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))

    def start(slots: int, ends: Mapping[str, str], **options: Any) -> int:
        config, hostfile = write_inputs(tmp_path, slots, ends)
        return launch(config, hostfile, tmp_path / "launch", module="rank_program", **options)

    return start


def write_inputs(tmp_path: Path, slots: int, ends: Mapping[str, str]) -> tuple[Path, Path]:
    config, hostfile = tmp_path / "a run's config.yaml", tmp_path / "hosts"
    config.write_text(json.dumps({"reports": str(tmp_path), "ends": ends}))
    hostfile.write_text(f"localhost\tslots={slots} # comment\r\n")
    return config, hostfile


def read_report(tmp_path: Path, rank: int) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((tmp_path / f"rank-{rank}.json").read_text())
    return report


def hostfile_of(tmp_path: Path, text: str) -> Hostfile:
    (tmp_path / "hosts").write_text(text)
    return parse_hostfile(tmp_path / "hosts")


def test_two_local_ranks_know_what_was_asked_for(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(2, {"0": "plain", "1": "plain"}, num_ranks=2, extra=["--note", "two words"]) == 0
    (launch_dir,) = (path for path in (tmp_path / "launch").iterdir() if path.is_dir())
    for rank in range(2):
        report = read_report(tmp_path, rank)
        assert report["world_size"] == 2
        assert report["rest"] == ["--note", "two words"]
        assert report["environment"]["LYRICS_WORLD_SIZE"] == "2"
        assert report["environment"]["LYRICS_LAUNCH_DIR"] == str(launch_dir)
        assert report["environment"]["LYRICS_LAUNCH_ID"] == launch_dir.name
    assert (launch_dir / "hostfile").read_text() == "localhost slots=2\n"


@pytest.mark.slow
def test_two_local_ranks_form_a_group(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(2, {}) == 0
    assert [read_report(tmp_path, rank)["total"] for rank in range(2)] == [3.0, 3.0]


def test_the_code_that_a_rank_recorded_is_the_code_of_the_launch(run: Callable[..., int]) -> None:
    assert run(2, {"0": "sleep", "1": "exit:4"}) == 4


@pytest.mark.slow
def test_a_traceback_on_a_rank_is_code_1(run: Callable[..., int]) -> None:
    assert run(1, {"0": "fail"}) == 1


@pytest.mark.parametrize(
    "end", ["kill-parent", *(pytest.param(end, marks=pytest.mark.slow) for end in ("kill", "vanish"))]
)
def test_a_rank_or_a_launcher_that_dies_is_a_lost_host_even_where_deepspeed_says_0(
    run: Callable[..., int], end: str, tmp_path: Path
) -> None:
    with pytest.raises(HostLostError) as caught:
        run(1, {"0": end})
    assert caught.value.exit_code == 6
    assert_ended(read_report(tmp_path, 0)["pid"])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_ranks_and_the_launch(tmp_path: Path, number: int, code: int) -> None:
    config, hostfile = write_inputs(tmp_path, 1, {"0": "sleep"})
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    arguments = [sys.executable, "-c", LAUNCH_LINE, str(config), str(hostfile), str(tmp_path / "launch")]
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: (tmp_path / "rank-0.json").exists())
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert_ended(read_report(tmp_path, 0)["pid"])


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")


def assert_ended(pid: int) -> None:
    status = Path(f"/proc/{pid}/status")
    wait_for(lambda: not status.exists() or "State:\tZ" in status.read_text())


def test_a_keeper_goes_when_its_launcher_is_silent_and_nothing_of_the_launch_is_left() -> None:
    kept = keeper.Keeper("1-b", Path(), Path())
    assert not kept.is_forgotten()
    kept.heard_s -= keeper.SILENCE_S + 1
    rank = subprocess.Popen(["sleep", "300"], env={"LYRICS_LAUNCH_ID": "1-b"})
    try:
        wait_for(lambda: b"1-b" in Path(f"/proc/{rank.pid}/environ").read_bytes())
        assert not kept.is_forgotten()  # the launcher may only be stopped, and go on
    finally:
        rank.kill()
        rank.wait()
    assert kept.is_forgotten()


def test_stopping_finds_the_ranks_of_one_launch_and_of_no_other() -> None:
    sleep = ["sleep", "300"]
    mine = subprocess.Popen(sleep, env={"LYRICS_LAUNCH_ID": "1-a"}, start_new_session=True)
    other = subprocess.Popen(sleep, env={"LYRICS_LAUNCH_ID": "1-ab", "X": "LYRICS_LAUNCH_ID=1-a"})
    try:
        wait_for(lambda: b"1-a" in Path(f"/proc/{mine.pid}/environ").read_bytes())
        assert [found.pid for found in keeper.find_processes("1-a")] == [mine.pid]
        keeper.Keeper("1-a", Path(), Path()).kill()
        assert mine.wait(timeout=10) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        mine.kill()
        other.kill()
        mine.wait()
        other.wait()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(0, {}, {0: 0, 1: 0}, 0), 0),
        (Outcome(0, {}, {}, 0), 0),
        (Outcome(1, {"b": 1}, {0: 8, 1: 4}, 8), 4),
        (Outcome(4, {"b": 4}), 4),
        (Outcome(0, {}, {0: 5}, 5), 5),
        (Outcome(0, {}, {1: 4}, 0), 4),
        (Outcome(1, {"b": 1, "a": 137}, {0: 143, 1: 8}), 8),
        (Outcome(143, {}, {0: 143}, 143), 143),
        (Outcome(1, {}, {0: 0}, 0), 1),
        (Outcome(247, {"b": 247}, {0: 6}, 6), 6),
    ],
)
def test_the_exit_code_follows_from_what_is_known(outcome: Outcome, code: int) -> None:
    assert outcome.exit_code() == code


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(0), "did not write that it finished"),
        (Outcome(0, {}, {1: 0}, None), "did not write that it finished"),
        (Outcome(255, {"node3": 255, "node1": 1}), "node3: the connection broke"),
        (Outcome(247, {"node2": 247}), "node2: a rank was killed by SIGKILL"),
        (Outcome(137), "SIGKILL"),
        (Outcome(0, {}, {0: 143, 1: 143}, 143), "pdsh was killed"),
        (Outcome(247, {}, {0: 143, 1: 143}, 143), "pdsh or a launcher was killed by SIGKILL"),
        (Outcome(-9), "SIGKILL"),
        (Outcome(245), "SIGSEGV"),
        (Outcome(255, {"node3": 255}, {0: 7, 1: 7}, 7), "node3"),
    ],
)
def test_a_death_without_a_recorded_reason_is_a_lost_host(outcome: Outcome, said: str) -> None:
    with pytest.raises(HostLostError, match=said):
        outcome.exit_code()


def test_ranks_record_their_codes_and_rank_0_the_proof(tmp_path: Path) -> None:
    folder = tmp_path / "launch" / "an-id"
    record_exit(folder, 1, 4)
    assert read_outcome(folder, 0, {}) == Outcome(0, {}, {1: 4}, None)
    record_exit(folder, 0, 0)
    assert json.loads((folder / "finished.json").read_text()) == {"launch_id": "an-id", "exit_code": 0}
    assert read_outcome(folder, 0, {}) == Outcome(0, {}, {0: 0, 1: 4}, 0)
    record_exit(None, 0, 0)


def test_the_proof_of_another_launch_counts_for_nothing(tmp_path: Path) -> None:
    record_exit(tmp_path / "old", 0, 0)
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_outcome(tmp_path / "new", 0, {}).finished_code is None


def test_a_missing_hostfile_a_wrong_number_of_ranks_and_a_missing_config_start_nothing(
    run: Callable[..., int], tmp_path: Path
) -> None:
    config, hostfile = write_inputs(tmp_path, 2, {})
    with pytest.raises(PreflightError, match="no such hostfile"):
        launch(config, tmp_path / "hsots", tmp_path / "launch")
    with pytest.raises(PreflightError, match="adds up to 2 ranks, 3 were asked for"):
        run(2, {}, num_ranks=3)
    with pytest.raises(ConfigError, match="no such config"):
        launch(tmp_path / "absent.yaml", hostfile, tmp_path / "launch")
    assert not (tmp_path / "launch").exists()


def test_a_busy_port_is_refused(run: Callable[..., int]) -> None:
    with socket.create_server(("", 0)) as server, pytest.raises(PreflightError, match="in use"):
        run(1, {}, master_port=server.getsockname()[1])
    with pytest.raises(PreflightError, match="65535"):
        run(1, {}, master_port=70000)


def test_remote_hosts_without_pdsh_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, hostfile = write_inputs(tmp_path, 1, {})
    hostfile.write_text("node1.invalid slots=1\nnode2.invalid slots=1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="apt install pdsh"):
        launch(config, hostfile, tmp_path / "launch")


def test_a_single_host_elsewhere_is_never_taken_for_this_one(tmp_path: Path) -> None:
    assert is_local("localhost")
    assert is_local("127.0.0.1")
    assert not is_local("192.0.2.1")  # reserved for documentation (RFC 5737)
    assert not is_local("no-such-host.invalid")
    assert not needs_ssh(hostfile_of(tmp_path, "localhost slots=4\n"))
    assert needs_ssh(hostfile_of(tmp_path, "192.0.2.1 slots=4\n"))
    assert needs_ssh(hostfile_of(tmp_path, "localhost slots=1\n192.0.2.1 slots=1\n"))


def test_visible_devices_are_kept_or_refused_but_never_ignored(tmp_path: Path) -> None:
    hostfile = hostfile_of(tmp_path, "localhost slots=2\n")
    assert choose_devices(hostfile, {}) is None
    assert choose_devices(hostfile, {"CUDA_VISIBLE_DEVICES": ""}) is None
    assert choose_devices(hostfile, {"CUDA_VISIBLE_DEVICES": "5", "DS_ACCELERATOR": "cpu"}) is None
    assert choose_devices(hostfile, {"CUDA_VISIBLE_DEVICES": "3, 1"}) == [1, 3]
    with pytest.raises(PreflightError, match=r"shows 1 devices, .* asks for 2"):
        choose_devices(hostfile, {"CUDA_VISIBLE_DEVICES": "3"})
    with pytest.raises(PreflightError, match="expected device numbers"):
        choose_devices(hostfile, {"CUDA_VISIBLE_DEVICES": "GPU-8f2,GPU-9a1"})


def test_a_path_that_a_shell_would_change_is_copied_or_refused(tmp_path: Path) -> None:
    (tmp_path / "my config;date.yaml").write_text("a: 1\n")
    (tmp_path / "run").mkdir()
    place, check = start_module._place_config, check_shell_safe
    placed = place(tmp_path / "my config;date.yaml", tmp_path / "run", ())
    assert (placed.name, placed.read_text()) == ("config.yaml", "a: 1\n")
    check(["--config", "/data/run-1/config.yaml", "--set", "a.b=1e-4"])
    for unsafe in ["/my run/c.yaml", "$(date)", "a;b", "%h", "a*", ""]:
        with pytest.raises(ConfigError, match="shell"):
            check([unsafe])


def test_a_host_with_a_disk_of_its_own_gets_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("a: 'b;c % d'\n# été\n", encoding="utf-8")
    launch_dir = tmp_path / "run" / "launch" / "1-a"
    launch_dir.mkdir(parents=True)
    scripts: list[str] = []

    def note_script(script: str, hosts: Sequence[str], timeout_s: float) -> dict[str, str]:
        scripts.append(script)
        return {}

    monkeypatch.setattr(start_module, "run_everywhere", note_script)
    placed = start_module._place_config(config, launch_dir, ["node2"])
    shutil.rmtree(tmp_path / "run")  # the other host's disk has none of these folders
    subprocess.run(["sh", "-c", scripts[0]], check=True)
    assert "%" not in scripts[0]  # pdsh would replace it
    assert placed.read_bytes() == config.read_bytes()

    monkeypatch.setattr(start_module, "run_everywhere", lambda *_: {"node2": "disk full"})
    with pytest.raises(PreflightError, match="node2: disk full"):
        start_module._place_config(config, launch_dir.parent, ["node2"])


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "HF_HUB_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "LYRICS_SECRET", "NCCL_AUTH"],
)
def test_secrets_do_not_travel(name: str) -> None:
    assert select_travelling({name: "hunter2", "HF_HOME": "/data"}) == {"HF_HOME": "/data"}
    kept, left_out = withhold_secrets({name: "hunter2", "HOME": "/root"})
    assert kept == {"HOME": "/root"}
    assert left_out == ([name] if not name.startswith("WANDB") else [])


def test_what_only_sounds_secret_travels() -> None:
    harmless = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "NCCL_KEYS_MAX": "0"}
    assert select_travelling(harmless) == harmless
    assert looks_secret("HF_ENDPOINT", "https://user:hunter2@mirror.example")
    assert not looks_secret("HF_ENDPOINT", "https://mirror.example:8080/a@b")


def test_variables_travel_by_name_and_visible_devices_do_not() -> None:
    travelling = {
        "NCCL_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "GLOO_X": "1",
    }
    others = {"HOME": "/root", "CUDA_VISIBLE_DEVICES": "0", "MY_OMP_NUM_THREADS": "1", "BASH_FUNC_x%%": "()"}
    assert select_travelling({**travelling, **others}) == travelling


def shell_reads(name: str, value: str) -> str:
    """What a remote shell makes of a value after DeepSpeed, pdsh and the shell had it."""
    from deepspeed.launcher.multinode_runner import MultiNodeRunner

    class Exports(MultiNodeRunner):  # type: ignore[misc]
        def __init__(self) -> None:
            self.exports: dict[str, str] = {}

        backend_exists = get_cmd = None

    runner = Exports()
    key, written = format_environment({name: value}).split("=", maxsplit=1)
    runner.add_export(key, written)
    expanded = runner.exports[key].replace("%%", "%")
    script = f"export {key}={expanded}; printenv {key}"
    return subprocess.check_output(["sh", "-c", script]).decode().removesuffix("\n")


@settings(max_examples=40, deadline=None)
@given(value=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12))
def test_any_value_reaches_the_rank_unchanged(value: str) -> None:
    assume(value == value.strip())
    assert shell_reads("HF_VALUE", value) == value


@pytest.mark.parametrize("value", ['a "quoted" word', "$HOME `date` $(date)", r"back\slash", "100%h %n", "~"])
def test_values_with_shell_characters_reach_the_rank_unchanged(value: str) -> None:
    assert shell_reads("HF_VALUE", value) == value


def test_a_value_that_the_file_cannot_hold_is_refused_without_being_shown() -> None:
    for value in ["hunter2\nPATH=/tmp", "hunter2\x1b[0m", "hunter2\udcff"]:
        with pytest.raises(ConfigError, match="HF_VALUE") as caught:
            quote_value("HF_VALUE", value)
        assert "hunter2" not in str(caught.value)


def test_the_users_own_environment_file_is_kept_without_what_deepspeed_breaks_on(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".deepspeed_env").write_text("# mine\n\nA=$HOME/x=y\r\nexport HF_TOKEN=hunter2\n")
    (tmp_path / ".deepspeed_env").write_text("B=2")
    lines, secrets = read_user_file({}, tmp_path / "home", tmp_path)
    assert (lines, secrets) == (["A=$HOME/x=y", "B=2"], ["HF_TOKEN"])
    assert format_environment({"LYRICS_WORLD_SIZE": "3", "HF_HOME": "/d"}, lines).splitlines() == [
        "HF_HOME=/d", "A=$HOME/x=y", "B=2", "LYRICS_WORLD_SIZE=3",
    ]  # fmt: skip
    (tmp_path / "mine").write_text("A 1\n")
    with pytest.raises(ConfigError, match="mine:1: expected NAME=VALUE"):
        read_user_file({"DS_ENV_FILE": str(tmp_path / "mine")}, tmp_path / "home", tmp_path)


def test_python_path_is_absolute_and_begins_with_the_working_folder() -> None:
    assert extend_python_path({"PYTHONPATH": "lib:/opt/x::/w"}, Path("/w")) == "/w:/w/lib:/opt/x"
    assert extend_python_path({}, Path("/w")) == "/w"


def test_importing_the_launcher_does_not_import_torch() -> None:
    script = (
        "import sys, harness.cluster.launch; sys.exit('torch' in sys.modules or 'deepspeed' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=TESTS.parent)
