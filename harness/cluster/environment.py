r"""Which environment variables reach the ranks on the other hosts, and how.

DeepSpeed puts the variables that it exports on the command line of ssh, so a value that travels can be read by
everyone who may list the processes of a host. Therefore:

- these travel: names that begin with `HF_`, `TRANSFORMERS_`, `TOKENIZERS_`, `NCCL_`, `GLOO_`, `TORCH_`, `PYTORCH_`,
  `PYTHON`, `UCX_`, `MLFLOW_`, `MV2_`, `LYRICS_`, and `OMP_NUM_THREADS`, `MKL_NUM_THREADS`, `CUBLAS_WORKSPACE_CONFIG`,
  `CUDA_DEVICE_ORDER`, `DS_ACCELERATOR`, `DEEPSPEED_TIMEOUT`; and what the user's own `.deepspeed_env` lists;
- DeepSpeed exports `MLFLOW*`, `MV2*`, `UCX*`, `PYTHON*`, `NCCL*` and, by accelerator, a few others by itself and
  unquoted, so a shell would run what stands in them: those that do not travel by the rule above are kept from it;
- values that look secret (a name with TOKEN, KEY, SECRET, PASSWORD, … as a word, or a URL with a password) never
  do: log in on each host instead;
- `CUDA_VISIBLE_DEVICES` does not: DeepSpeed sets it on each host from the hostfile's slots;
- on one local host nothing travels: the ranks inherit the whole environment.

A value passes through DeepSpeed's file of `NAME=VALUE` lines, its double quotes, pdsh's % sequences and a shell.
`quote_value` prepares it so that the rank gets it unchanged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from preprocess.errors import ConfigError
from preprocess.secret import looks_secret

TRAVELLING_PREFIXES = (
    "HF_",
    "TRANSFORMERS_",
    "TOKENIZERS_",
    "NCCL_",
    "GLOO_",
    "TORCH_",
    "PYTORCH_",
    "PYTHON",
    "UCX_",
    "MLFLOW_",
    "MV2_",
    "LYRICS_",
)
TRAVELLING_NAMES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "DS_ACCELERATOR",
    "DEEPSPEED_TIMEOUT",
)
_EXPORTED_BY_DEEPSPEED = (
    *("MLFLOW", "PYTHON", "MV2", "UCX", "NCCL"),
    *("ASCEND", "HCCL", "NEUWARE_HOME", "CNCL", "BKCL", "XPU", "XMLIR", "BCCL", "BIREN", "SUPA"),
)
"""Prefixes that DeepSpeed's launcher (0.19) puts on ssh's command line as they are, its own and its accelerators'."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_variable_name(name: str) -> bool:
    """Whether a shell takes a text for the name of a variable."""
    return _NAME.fullmatch(name) is not None


def select_travelling(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that travel to other hosts: by name, without those that look secret."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if (name.startswith(TRAVELLING_PREFIXES) or name in TRAVELLING_NAMES)
        and _NAME.fullmatch(name)
        and not looks_secret(name, value)
    }


def withhold_secrets(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Split the environment for DeepSpeed's launcher, which exports some prefixes (PYTHON, NCCL, MLFLOW …) by itself.

    Returns:
        The environment without secrets, and the names of the secrets left out that a rank might miss.
    """
    secrets = {name for name, value in environment.items() if looks_secret(name, value)}
    travelling = select_travelling(environment)
    kept = {
        name: value
        for name, value in environment.items()
        if name not in secrets and (name in travelling or not name.startswith(_EXPORTED_BY_DEEPSPEED))
    }
    return kept, sorted(name for name in secrets if name.startswith(TRAVELLING_PREFIXES))


def quote_value(name: str, value: str) -> str:
    """Prepare a value for DeepSpeed's environment file, so that the remote rank gets it as it is.

    DeepSpeed strips a value and wraps it in double quotes when it has an unusual character, without escaping
    anything in it; pdsh replaces %h, %u, %n and turns %% into %.

    Raises:
        ConfigError: The value has a line break, another control character or a byte that is no UTF-8 (which
            Python reads as a lone surrogate); the file cannot hold these.
    """
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value):
        raise ConfigError(
            f"the value of {name} has a line break, a control character or a byte that is no UTF-8, and cannot "
            "travel to other hosts; unset it here and set it on each host"
        )
    return re.sub(r'([\\"$`])', r"\\\1", value).replace("%", "%%")


def format_environment(variables: Mapping[str, str], user_lines: Iterable[str] = ()) -> str:
    """The text of DeepSpeed's environment file: no blank line, no comment, the project's own variables last."""
    ours = {name: value for name, value in variables.items() if name.startswith("LYRICS_")}
    others = {name: value for name, value in variables.items() if name not in ours}
    lines = [f"{name}={quote_value(name, value)}" for name, value in others.items()]
    lines += list(user_lines)
    lines += [f"{name}={quote_value(name, value)}" for name, value in ours.items()]
    return "".join(f"{line}\n" for line in lines)


def read_user_file(environment: Mapping[str, str], home: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Read the user's own environment files where DeepSpeed would look for them.

    Its name is `.deepspeed_env` or the value of DS_ENV_FILE, in the home folder, then in the working folder. Lines
    are passed on as they are: DeepSpeed's users write shell expressions there. Blank lines and comments, on which
    DeepSpeed fails, are dropped.

    Returns:
        The lines to pass on, and the names of the variables that look secret and were left out.

    Raises:
        ConfigError: A line is not NAME=VALUE.
    """
    file_name = environment.get("DS_ENV_FILE", ".deepspeed_env")
    lines: list[str] = []
    secrets: list[str] = []
    for path in dict.fromkeys([home / file_name, folder / file_name]):
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        for number, raw in enumerate(text.split("\n"), start=1):
            line = raw.strip().removeprefix("export ").strip()
            if not line or line.startswith("#"):
                continue
            name, separator, value = line.partition("=")
            if not separator or not _NAME.fullmatch(name.strip()):
                raise ConfigError(f"{path}:{number}: expected NAME=VALUE (the value is not shown)")
            if looks_secret(name, value):
                secrets.append(name.strip())
            else:
                lines.append(f"{name.strip()}={value.strip()}")
    return lines, secrets


def extend_python_path(environment: Mapping[str, str], folder: Path) -> str:
    """PYTHONPATH for other hosts: the working folder first, every entry absolute."""
    entries = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    paths = [str(folder), *(os.path.join(folder, entry) for entry in entries)]
    return os.pathsep.join(dict.fromkeys(paths))
