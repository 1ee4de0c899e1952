"""The tasks there are: the project's own modules, and files of the user's."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from preprocess.errors import ConfigError
from preprocess.tasks import analysis, artist, context, generation, genre, similar, structure, style, themes
from preprocess.tasks.task import Task

_MODULES: tuple[ModuleType, ...] = (
    artist,
    genre,
    themes,
    context,
    similar,
    structure,
    style,
    analysis,
    generation,
)

OWN_TASKS: dict[str, Task] = {task.name: task for task in (module.TASK for module in _MODULES)}
"""The project's tasks by name, in order."""

DEFAULT_TASKS: tuple[str, ...] = tuple(task.name for task in OWN_TASKS.values() if task.default)
"""Names of the tasks that a build makes without being asked to."""


def load_tasks(names: Iterable[str], files: Sequence[str | Path] = ()) -> tuple[Task, ...]:
    """The tasks of these names, then those of the files that are not among them.

    Args:
        names: Names of the project's tasks or of tasks in `files`.
        files: Python files, each with a `TASK`.

    Raises:
        ConfigError: A name is unknown or taken; a file is missing, fails, or has no fit TASK.
    """
    known = dict(OWN_TASKS)
    for path in map(Path, files):
        task = _load_file(path)
        if task.name in known:
            raise ConfigError(f"task file {path}: the name {task.name!r} is taken; give TASK another name")
        known[task.name] = task
    added = [name for name in known if name not in OWN_TASKS]
    return tuple(find_task(name, known) for name in dict.fromkeys((*names, *added)))


def find_task(name: str, known: dict[str, Task] = OWN_TASKS) -> Task:
    """The task of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"task {name!r} is not known; {hint}")
    return known[name]


def _load_file(path: Path) -> Task:
    if not path.is_file():
        raise ConfigError(f"task file {path}: no such file")
    task = getattr(_run_file(path), "TASK", None)
    if not isinstance(task, Task):
        got = "has no TASK" if task is None else f"TASK is a {type(task).__name__}"
        raise ConfigError(
            f"task file {path}: {got}; it must set TASK = Task(...), see preprocess/tasks/task.py"
        )
    questions: object = task.questions
    if not task.name or not isinstance(questions, tuple) or not questions or not all(questions):
        raise ConfigError(f"task file {path}: TASK needs a name and a tuple of one question or more")
    return task


def _run_file(path: Path) -> ModuleType:
    """Run a user's file as a module of its own; what it raises is told with its line."""
    name = f"task_file_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"task file {path}: not a Python file; its name must end in .py")
    module = module_from_spec(spec)
    # Dataclasses look their own module up there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"task file {path}, line {_line_of(error, path)}: {what}") from error
    return module


def _line_of(error: Exception, path: Path) -> int:
    """The line of a file at which an error left it."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno or 1 for frame in frames if frame.filename == str(path)]
    return lines[-1] if lines else 1
