"""Where a tokenizer comes from: a file, a folder, a GGUF model, an installed package, a hub id."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from preprocess.errors import ConfigError
from preprocess.outside_text import parse_json
from preprocess.tokenizer.byte_level import read_gguf, read_tekken, read_tiktoken
from preprocess.tokenizer.text import TextTokenizer

PACKAGE_PREFIX = "package:"


def load_tokenizer(source: str | Path) -> TextTokenizer:
    """Load a tokenizer.

    Args:
        source: A folder with `tokenizer.json` (or `tokenizer.model` in Llama 3's form, or `tekken.json`), such a file
            itself, a `.gguf` model, `package:NAME` (see `locate_source`), or a Hugging Face hub id.

    Raises:
        ConfigError: There is no such tokenizer, or it is of a kind that is not understood.
    """
    path = Path(locate_source(str(source)))
    if path.is_dir():
        path = _find_in_folder(path)
    if path.is_file():
        backend, template = _load_file(path)
        return TextTokenizer(backend, str(source), chat_template=template)
    if _looks_like_path(str(source)):
        raise ConfigError(f"tokenizer {source}: no such file or folder")
    return TextTokenizer(_load_from_hub(str(source)), str(source))


def locate_source(source: str) -> str:
    """The folder behind `package:NAME`, an installed Python package that ships a model; else the source itself.

    The package is found, not imported.

    Raises:
        ConfigError: No such package is installed.
    """
    if not source.startswith(PACKAGE_PREFIX):
        return source
    name = source.removeprefix(PACKAGE_PREFIX)
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"{source}: no Python package {name!r} is installed here; `pip install --no-deps` it first"
        )
    return next(iter(spec.submodule_search_locations))


def _looks_like_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~"))
        or source.count("/") > 1
        or source.endswith((".json", ".gguf", ".model"))
    )


def _find_in_folder(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer.model", "tekken.json"):
        if (folder / name).is_file():
            return folder / name
    gguf_files = sorted(folder.glob("*.gguf"))
    if len(gguf_files) == 1:
        return gguf_files[0]
    raise ConfigError(
        f"tokenizer folder {folder}: found neither tokenizer.json nor tokenizer.model nor tekken.json nor exactly one "
        ".gguf file"
    )


def _load_file(path: Path) -> tuple[Tokenizer, str | None]:
    """A tokenizer and the chat template beside it or in it."""
    try:
        if path.suffix == ".gguf":
            return read_gguf(path)
        if path.suffix == ".model":
            return read_tiktoken(path), _read_template(path.parent)
        if path.name.startswith("tekken"):
            return read_tekken(path), None
        _refuse_code(path.parent)
        return Tokenizer.from_file(str(path)), _read_template(path.parent)
    except ConfigError:
        raise
    except Exception as error:  # the backends raise bare Exception for a malformed file
        raise ConfigError(f"tokenizer {path}: not a tokenizer file ({error})") from error


def _refuse_code(folder: Path) -> None:
    """Refuse a tokenizer that is more than its file: with code of its own the ids may be others.

    Raises:
        ConfigError: Its configuration names Python files.
    """
    config = folder / "tokenizer_config.json"
    values = parse_json(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if isinstance(values, dict) and values.get("auto_map"):
        raise ConfigError(
            f'tokenizer {folder}: its tokenizer_config.json names Python code to run ("auto_map"), which is never run '
            "here. If tokenizer.json alone is the whole tokenizer, remove that entry from a copy of the folder"
        )


def _read_template(folder: Path) -> str | None:
    """The chat template as transformers keeps it: a file of its own, or a key of tokenizer_config.json."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    found: Any = parse_json(config.read_text(encoding="utf-8")).get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((entry["template"] for entry in found if entry["name"] == "default"), None)
    return found if isinstance(found, str) else None


def _load_from_hub(name: str) -> Tokenizer:
    try:
        return Tokenizer.from_pretrained(name)
    except Exception as error:  # network and hub errors come as many unrelated types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"tokenizer {name!r}: neither a path here nor a tokenizer that the hub gives ({reason}). "
            "Pass a folder with tokenizer.json, a .gguf file, Llama 3's tokenizer.model, or a hub id you can reach"
        ) from error
