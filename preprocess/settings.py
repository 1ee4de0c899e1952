"""Settings as typed data: YAML, overrides of the form ``a.b=c``, and errors that name the nearest legal key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from preprocess.errors import ConfigError
from preprocess.outside_yaml import parse_yaml, read_yaml
from preprocess.secret import holds_secret


class Settings(BaseModel):
    """A group of settings: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


MAX_SHOWN_CHARS = 400
"""Of a value in a message."""

SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(kind: type[SettingsT], path: Path | None, overrides: Sequence[str] = ()) -> SettingsT:
    """Read settings from a YAML file and apply overrides.

    Args:
        kind: The settings class.
        path: YAML file, or None for the defaults.
        overrides: Assignments such as ``optimizer.learning_rate=1e-4``; the value is read as YAML.

    Raises:
        ConfigError: The file is missing or no YAML mapping, a key is unknown, or a value is not allowed.
    """
    values = {} if path is None else _read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    where = "the settings" if path is None else str(path)
    _refuse_secrets(values, where)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(kind, error)}") from error


def _refuse_secrets(values: dict[str, Any], where: str) -> None:
    """Settings are copied into the run folder, the report and the launch folders of every host: no place for secrets.

    Raises:
        ConfigError: A value or a key is a secret by its form; it is not shown.
    """
    pending: list[tuple[str, Any]] = [("", values)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending += [("a key", str(key)) for key in value]
            pending += [(f"{name}.{key}".removeprefix("."), part) for key, part in value.items()]
        elif isinstance(value, list | tuple | set):
            pending += [(name, part) for part in value]
        elif isinstance(value, str) and holds_secret(value):
            raise ConfigError(
                f"{where}: {'a key' if holds_secret(name) else name} holds what looks like a password or a token (not "
                "shown here). Settings are copied into the run folder and its report: log in on each host instead "
                "(`hf auth login`), or set HF_TOKEN in its environment"
            )


def dump_settings(settings: Settings) -> str:
    """The settings as YAML that `load_settings` reads back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def find_shipped(name: str, package: str, suffix: str = ".yaml") -> Path:
    """A path as it is, or the shipped file that a bare name stands for.

    Raises:
        ConfigError: Neither a file nor a shipped name.
    """
    path = Path(name)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise ConfigError(f"config {_shorten(name)}: {error.strerror}") from error
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    shipped = folder / f"{name}{suffix}"
    if shipped.parent == folder and shipped.is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in folder.glob(f"*{suffix}")))
    raise ConfigError(f"config {name}: no such file; shipped ones: {names}")


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.is_dir() or not path.exists():
        raise ConfigError(f"config {path}: no such file")
    try:
        values = read_yaml(path)
    except ValueError as error:
        raise ConfigError(f"config {path}: not valid YAML ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {path}: expected a mapping of settings, got {type(values).__name__}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            f"--set {_shorten(override)}: expected KEY=VALUE, as in optimizer.learning_rate=1e-4"
        )
    *groups, last = key.strip().split(".")
    target = values
    for group in groups:
        target = target.setdefault(group, {})
        if not isinstance(target, dict):
            raise ConfigError(
                f"--set {_shorten(override)}: {group} is a single value, not a group of settings"
            )
    try:
        target[last] = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"--set {_shorten(override)}: the value is not valid YAML") from error


def _shorten(value: object) -> str:
    """A value as it would be written, cut where it is long; a secret is not shown."""
    text = repr(value)
    if holds_secret(text):
        return "(a value that is not shown)"
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    found = (
        _explain_one(kind, item["loc"], item["type"], item["msg"], item["input"]) for item in error.errors()
    )
    return "; ".join(dict.fromkeys(found))  # of a union pydantic tells each member's complaint


def _explain_one(
    kind: type[BaseModel], location: tuple[int | str, ...], type_: str, message: str, got: object
) -> str:
    name = ".".join(str(part) for part in location)
    if type_ == "missing":
        return f"{name} is required"
    if type_ == "extra_forbidden":
        return _explain_unknown(kind, location)
    if union := _find_union(kind, location):
        depth, members = union
        name = ".".join(str(part) for part in location[:depth])
        return f"{name}: got {_shorten(got)}; expected {', or '.join(map(_describe, members))}"
    if type_ == "value_error" and isinstance(
        got, dict
    ):  # a conflict between settings, whose message names them
        return f"{name}: {message.removeprefix('Value error, ')}".removeprefix(": ")
    return f"{name}: got {_shorten(got)}: {message.removeprefix('Value error, ')}"


def _explain_unknown(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    name = ".".join(str(part) for part in location)
    legal = _legal_keys(kind, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), legal, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"legal keys here: {', '.join(sorted(legal))}"
    return f"unknown key {_shorten(name)}; {hint}"


def _find_union(kind: type[BaseModel], location: tuple[int | str, ...]) -> tuple[int, tuple[Any, ...]] | None:
    """How much of a location names a setting that is of one type or another, and those types; None if it is not."""
    group: Any = kind
    for depth, part in enumerate(location, start=1):
        if not isinstance(group, type) or not issubclass(group, BaseModel) or part not in group.model_fields:
            return None
        group = group.model_fields[str(part)].annotation
        members = tuple(member for member in get_args(group) if member is not NoneType)
        if get_origin(group) in (Union, UnionType) and len(members) > 1:
            return depth, members
    return None


def _describe(member: Any) -> str:  # noqa: ANN401 - a type as it is annotated
    """A type in the user's words: "a whole number from 0", "all"."""
    if get_origin(member) is Literal:
        return " or ".join(str(value) for value in get_args(member))
    plain, *limits = get_args(member) if get_origin(member) is Annotated else (member,)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    least = next((limit.ge for limit in limits if hasattr(limit, "ge")), None)
    return words.get(plain, str(plain)) + ("" if least is None else f" from {least}")


def _legal_keys(kind: type[BaseModel], groups: tuple[int | str, ...]) -> list[str]:
    for group in groups:
        field = kind.model_fields.get(str(group))
        annotation = None if field is None else field.annotation
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            return []
        kind = annotation
    return list(kind.model_fields)
