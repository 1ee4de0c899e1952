from __future__ import annotations

import errno
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from preprocess.errors import DataError
from preprocess.terminal import exit_on_user_error


def run_raising(error: BaseException) -> tuple[int, str]:
    """Exit code and output of a command that raises this."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @exit_on_user_error
    def fail() -> None:
        raise error

    result = CliRunner().invoke(app, [])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b.yaml"),
            (4, "error: a/b.yaml: Permission denied\n"),
        ),
        (OSError(errno.ENOSPC, "No space left on device", "x"), (9, "error: x: No space left on device\n")),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), (9, "error: Disk quota exceeded\n")),
        (OSError("no number"), (4, "error: no number\n")),
        (DataError("bad songs"), (4, "error: bad songs\n")),
    ],
)
def test_what_the_user_can_mend_ends_in_one_line_and_a_code(
    error: Exception, expected: tuple[int, str]
) -> None:
    assert run_raising(error) == expected


def test_a_mistake_of_the_program_keeps_its_traceback() -> None:
    code, output = run_raising(KeyError("bug"))
    assert (code, output) == (1, "")


def test_a_config_that_may_not_be_read_gives_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from preprocess.__main__ import app

    def refuse(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    config = tmp_path / "settings.yaml"
    config.write_text("seed: 1")
    monkeypatch.setattr(Path, "open", refuse)
    result = CliRunner().invoke(
        app, ["build", "--input", "x", "--output", "y", "--tokenizer", "z", "--config", str(config)]
    )
    assert (result.exit_code, result.output) == (4, f"error: {config}: Permission denied\n")
