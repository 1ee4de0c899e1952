"""README kept true: its commands parse, its data set is built, its targets, paths, settings and exit codes exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
import typer
import typer.main

import preprocess.errors
from harness.config import RunConfig
from preprocess.errors import UserError
from tests.toys import make_tokenizer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PACKAGES = ("preprocess", "harness", "bench")
FOLDERS = (*PACKAGES, "tests", "hostfiles", "ds_configs", ".ci")

# The library that parses command lines is inside typer in newer versions; this class is in every one.
USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[1])


def bash_lines(text: str) -> list[str]:
    """The lines of the bash blocks, comments and empty ones left out."""
    blocks = [body for language, body in FENCED.findall(text) if language == "bash"]
    lines = [
        shlex.join(shlex.split(line, comments=True))
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line]


def inline_code(text: str) -> list[str]:
    """What stands in single backticks, line breaks as spaces."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCED.sub("", text))]


def section(text: str, heading: str) -> str:
    """What follows a second-level heading, up to the next."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"README has no section {heading!r}"
    return found.group(1)


def commands(text: str) -> list[str]:
    """Every command of the bash blocks, and those in backticks that begin as commands do."""
    return bash_lines(text) + [
        code for code in inline_code(text) if re.match(r"(python -m|make|deepspeed) \S", code)
    ]


def find_command_error(line: str) -> str | None:
    """What is wrong with a `python -m` or `deepspeed` command line, by the parser that would read it."""
    words = shlex.split(line)
    if words[0] == "deepspeed":
        return find_training_error(words)
    if words[:2] != ["python", "-m"]:
        return None
    if words[2] not in PACKAGES:
        return f"{words[2]}: no such command"
    command: Any = typer.main.get_command(import_module(f"{words[2]}.__main__").app)
    arguments = words[3:]
    if hasattr(command, "name_command"):
        arguments = command.name_command(arguments)
    if hasattr(command, "commands"):
        if not arguments or arguments[0] not in command.commands:
            return f"{line}: no such subcommand"
        command = command.commands[arguments.pop(0)]
    try:
        command.make_context(command.name, arguments)
    except USAGE_ERROR as error:
        return f"{line}: {cast('Any', error).format_message()}"
    return None


def find_training_error(words: Sequence[str]) -> str | None:
    from harness.train import parse_arguments

    if words[1:2] != ["--hostfile"] or words[3:5] != ["--module", "harness.train"]:
        return f"{' '.join(words)}: expected --hostfile FILE --module harness.train"
    try:
        parse_arguments(words[5:])
    except SystemExit:
        return f"{' '.join(words)}: harness.train refuses {words[5:]}"
    return None


def find_bad_commands(text: str) -> list[str]:
    return [error for line in commands(text) if (error := find_command_error(line)) is not None]


def make_targets(text: str) -> set[str]:
    """Targets that the README names as `make TARGET`."""
    return {line.split()[1] for line in commands(text) if line.startswith("make ")}


def repository_paths(text: str) -> set[str]:
    """Words in backticks and bash blocks that begin with one of the repository's folders."""
    words = [word for code in [*bash_lines(text), *inline_code(text)] for word in code.split()]
    return {word for word in words if "/" in word and word.split("/")[0] in FOLDERS and "*" not in word}


def find_missing_paths(text: str) -> list[str]:
    return sorted(path for path in repository_paths(text) if not (ROOT / path).exists())


def shipped_names(text: str) -> dict[str, list[Path]]:
    """Bare names of shipped configs that the README uses, and the files that each may stand for."""
    names: dict[str, list[Path]] = {
        name: [ROOT / "ds_configs" / f"{name}.json"]
        for name in inline_code(text)
        if re.fullmatch(r"zero\d\w*", name)
    }
    for line in commands(text):
        found = re.match(r"python -m (\w+) .*--config ([\w-]+)(?=\s|$)", line)
        if found:
            names[found.group(2)] = [ROOT / found.group(1) / "configs" / f"{found.group(2)}.yaml"]
    return names


def find_missing_configs(text: str) -> list[str]:
    return [name for name, files in shipped_names(text).items() if not all(file.is_file() for file in files)]


def settings_named(text: str) -> set[str]:
    """Settings in the first column of tables, and those that a `--set` gives a value."""
    rows = re.findall(r"^\| `([\w.*]+)` \|", text, re.MULTILINE)
    return {*rows, *re.findall(r"--set ([\w.]+)=", text)}


def find_unknown_settings(text: str) -> list[str]:
    return sorted(name for name in settings_named(text) if not is_setting(name))


def is_setting(name: str) -> bool:
    kind: Any = RunConfig
    for part in name.removesuffix(".*").split("."):
        field = getattr(kind, "model_fields", {}).get(part)
        if field is None:
            return False
        kind = field.annotation
    return True


def listed_exit_codes(text: str) -> set[int]:
    """Numbers that begin an entry of the section on exit codes."""
    entries = section(text, "Exit codes").replace("\n", " ").split("·")
    starts = [re.match(r"\s*(\d+(?:, \d+)*) [a-z]", entry) for entry in entries]
    return {int(code) for start in starts if start for code in start.group(1).split(", ")}


def error_classes(base: type[UserError] = UserError) -> list[type[UserError]]:
    """A class and all that descend from it, where `preprocess.errors` defines them."""
    below = [kind for child in base.__subclasses__() for kind in error_classes(child)]
    return [base, *(kind for kind in below if kind.__module__ == preprocess.errors.__name__)]


def test_commands_of_every_kind_are_found() -> None:
    starts = {" ".join(line.split()[:3]) for line in commands(README)}
    assert {"python -m preprocess", "python -m harness", "make test"} <= starts
    assert any(line.startswith("deepspeed ") for line in commands(README))


@pytest.mark.parametrize("line", sorted(set(commands(README))))
def test_every_command_line_is_one_that_the_program_takes(line: str) -> None:
    assert find_command_error(line) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("python -m preprocess verify data/lyrics --thorough", "--thorough"),
        ("python -m preprocess tidy songs.parquet", "no such subcommand"),
        ("python -m preprocess build --input songs.parquet --output data", "--tokenizer"),
        ("python -m preprocess inspect data/lyrics --row first", "first"),
        ("python -m harness demo runs/other --run runs/plan", "runs/other"),
        ("python -m trainer --config plan", "no such command"),
        ("deepspeed --hostfile hostfiles/local --module harness.train --confg run.yaml", "--confg"),
        ("deepspeed --module harness.train --config run.yaml", "expected --hostfile"),
    ],
)
def test_an_invented_command_line_is_caught(line: str, reason: str) -> None:
    text = f"```bash\n{line}   # do it\n```\n"
    assert len(find_bad_commands(text)) == 1
    assert reason in find_bad_commands(text)[0]
    assert len(find_bad_commands(f"Then `{line}` does it.")) == 1


def run_in(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a `python -m` line as a user would, with this interpreter and this repository's code."""
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"]
    return subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_for_your_songs_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "tokenizer.json").write_text(make_tokenizer().to_json(), encoding="utf-8")
    text = section(README, "Use it on your songs")
    corpus = [code for code in inline_code(text) if code.startswith("python -m preprocess corpus ")]
    assert len(corpus) == 1
    small, changes = re.subn(r"--songs \d+", "--songs 60 --artists-per-genre 2", corpus[0])
    lines = bash_lines(text)
    block, replaced = re.subn(r"(--tokenizer) \S+", r"\1 toy", "\n".join(lines))
    assert (changes, replaced) == (1, 1)
    outputs = {}
    for line in [small, *block.splitlines()]:
        done = run_in(tmp_path, line)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        outputs[line.split()[3]] = done.stdout
    assert list(outputs) == ["corpus", "quality", "build", "inspect", "verify"]
    assert all(outputs.values())
    assert (tmp_path / "data" / "lyrics" / "manifest.json").is_file()


def plan_shown() -> list[str]:
    """The sentences of README's excerpt of a plan, each with single spaces."""
    (excerpt,) = (
        body for language, body in FENCED.findall(README) if not language and "As configured" in body
    )
    return [" ".join(part.split()) for part in re.split(r"\n(?=\S|  \S)|\n\n", excerpt) if part.strip()]


def test_the_plan_that_is_shown_is_what_the_command_says() -> None:
    (line,) = (line for line in bash_lines(README) if " harness plan " in line)
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said = " ".join(done.stdout.split())
    shown = " ".join(plan_shown())
    assert len(plan_shown()) > 5
    assert [part for part in plan_shown() if part not in said] == [], shown


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    assert run_in(tmp_path, "python -m preprocess verify data/lyrics").returncode == 4


def targets_in_help(folder: Path) -> set[str]:
    done = subprocess.run(["make", "-s", "help"], cwd=folder, capture_output=True, text=True, check=True)
    return {line.split()[0] for line in done.stdout.splitlines() if line.strip()}


def test_every_make_target_exists_and_is_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = make_targets(README)
    assert {"quickstart", "test"} <= targets
    assert [
        target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, re.MULTILINE)
    ] == []
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    assert targets - targets_in_help(ROOT) == set()
    assert make_targets("```bash\nmake coffee\n```\n") - targets_in_help(ROOT) == {"coffee"}


def test_every_path_of_the_repository_exists() -> None:
    assert {"tests/test_loss.py", "hostfiles/three_nodes"} <= repository_paths(README)
    assert find_missing_paths(README) == []
    assert find_missing_paths("see `tests/test_nothing.py`\n```bash\ncat hostfiles/nine\n```\n") == [
        "hostfiles/nine",
        "tests/test_nothing.py",
    ]


def test_every_shipped_config_exists() -> None:
    assert {"zero0", "zero3_offload", "plan"} <= set(shipped_names(README))
    assert find_missing_configs(README) == []
    assert find_missing_configs("`zero9`\n```bash\npython -m harness launch --config moon\n```\n") == [
        "zero9",
        "moon",
    ]
    assert find_spec("harness.configs") is not None


def test_every_setting_exists() -> None:
    assert {"batch.global_batch_size", "schedule.*", "optimizer.learning_rate"} <= settings_named(README)
    assert find_unknown_settings(README) == []
    assert find_unknown_settings("| `batch.size` | rows |\n`--set seeed=1`") == ["batch.size", "seeed"]


def test_every_exit_code_of_an_error_is_listed() -> None:
    codes = {kind.exit_code for kind in error_classes()}
    assert {2, 4, 10} <= codes
    assert codes - listed_exit_codes(README) == set()
    assert 0 in listed_exit_codes(README)
    without = README.replace("4 bad data", "bad data")
    assert codes - listed_exit_codes(without) == {4}


def test_no_exit_code_is_listed_that_nothing_ends_with() -> None:
    others = {0, 1, 130, 143}  # done, an exception that was not foreseen, SIGINT, SIGTERM
    assert listed_exit_codes(README) - {kind.exit_code for kind in error_classes()} - others == set()
