"""What the source may not call: shells, pickles, evaluated text, code of models. Read from the syntax tree.

An exception stands in `ALLOWED` with its reason; one that is no longer needed fails as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "preprocess", "bench")

FORBIDDEN_CALLS = {
    "eval": "evaluates text",
    "exec": "executes text",
    "__import__": "imports by name",
    "os.system": "a shell",
    "os.popen": "a shell",
    "subprocess.getoutput": "a shell",
    "subprocess.getstatusoutput": "a shell",
    "commands.getoutput": "a shell",
    "asyncio.create_subprocess_shell": "a shell",
    "pty.spawn": "a process",
    "pickle.load": "unpickles",
    "pickle.loads": "unpickles",
    "pickle.Unpickler": "unpickles",
    "cPickle.loads": "unpickles",
    "dill.load": "unpickles",
    "joblib.load": "unpickles",
    "marshal.loads": "reads code",
    "shelve.open": "unpickles",
    "pandas.read_pickle": "unpickles",
    "yaml.load": "may build objects",
    "yaml.load_all": "may build objects",
    "yaml.full_load": "may build objects",
    "yaml.unsafe_load": "builds objects",
    "yaml.Loader": "may build objects",
    "yaml.UnsafeLoader": "builds objects",
    "yaml.FullLoader": "may build objects",
    "tempfile.mktemp": "a name that another may take first",
    "os.tempnam": "a name that another may take first",
    "importlib.import_module": "imports by name",
    "importlib.util.spec_from_file_location": "runs a file",
    "runpy.run_path": "runs a file",
    "runpy.run_module": "runs a module",
    "torch.hub.load": "runs downloaded code",
    "jinja2.Template": "does not escape",
    "rich.console.Console": "reads outside text as markup; preprocess.terminal.make_console does not",
    "engine.load_checkpoint": "unpickles",
}
"""A call by its full name, whatever it was imported as."""

PROCESSES = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")} | {
    *("psutil.Popen", "asyncio.create_subprocess_exec", "webbrowser.open"),
    *(
        f"os.{name}"
        for name in ("execv", "execve", "execvp", "execvpe", "execl", "execlp", "spawnv", "posix_spawn")
    ),
}
"""Starts of processes: each file that has one is listed."""

ALLOWED = {
    "preprocess/tasks/load.py: importlib.util.spec_from_file_location": "a user's own file, named in task_files",
    "preprocess/build/workers.py: pickle.loads": "what the parent process wrote into its own 0700 folder",
    "bench/exactness/ranks.py: pickle.loads": "what this program's ranks wrote into its own 0700 folder",
    "bench/exactness/production.py: importlib.import_module": "a name written in the source",
    "bench/gpu_model.py: importlib.import_module": "a name written in the source",
    "bench/__main__.py: importlib.import_module": "a name from the program's own table",
    "bench/gpu.py: rich.console.Console": "tables of figures",
    "bench/training.py: rich.console.Console": "a quiet console",
    "harness/cluster/watch.py: subprocess.Popen": "the launcher: a list, no shell here",
    "harness/cluster/remote.py: subprocess.run": "scripts of this program with checked names and paths in them",
    "harness/cluster/keeper.py: subprocess.run": "hostname with fixed arguments",
    "harness/cluster/lifelines.py: subprocess.Popen": "ssh to a checked host name, or the keeper here",
    "harness/cluster/rank.py: runpy.run_module": "the module of the ranks, under mpirun and srun",
    "harness/cluster/tether.py: subprocess.Popen": "this Python with this program's file",
    "harness/guard/rank.py: subprocess.Popen": "this Python with this program's module",
    "harness/cluster/doctor/ask.py: subprocess.Popen": "ssh to a checked host name, or this Python",
    "harness/cluster/doctor/link.py: subprocess.Popen": "ssh to a checked host name, or this Python",
    "harness/cluster/doctor/link_start.py: os.execv": "this Python with this program's module",
    "harness/cluster/doctor/link_start.py: subprocess.run": "hostname with fixed arguments",
    "harness/cluster/doctor/probe.py: subprocess.run": "nvidia-smi and the like with fixed arguments",
    "harness/__main__.py: webbrowser.open": "report --open, a file: address",
    "bench/cards.py: subprocess.run": "nvidia-smi with fixed arguments",
    "bench/machine.py: subprocess.run": "git with fixed arguments",
    "bench/stream.py: psutil.Popen": "this Python with this program's arguments",
    "bench/rank_group.py: subprocess.Popen": "this Python with this program's arguments",
    "bench/link.py: subprocess.Popen": "this Python with this program's module, in a namespace of its own",
    "bench/round.py: subprocess.run": "this Python with the name of one of the program's own table",
    "bench/stages.py: subprocess.run": "this Python with this program's arguments",
    "bench/compare/sides.py: subprocess.run": "git rev-parse with a word that cannot be an option",
    "bench/end.py: rich.console.Console": "a quiet console",
    "bench/sweep.py: rich.console.Console": "a quiet console",
    "bench/scaling_rank.py: rich.console.Console": "a quiet console",
    "harness/profiling/stacks.py: subprocess.run": "ssh to a checked host name, every word quoted, or this Python",
    "harness/profiling/stacks_here.py: subprocess.run": "py-spy with fixed arguments and a process number",
    "bench/gpu_process.py: subprocess.Popen": "this Python with this program's arguments",
    "bench/faults/disk.py: subprocess.run": "gcc with this repository's own source",
    "bench/faults/forks.py: importlib.import_module": "a module that the fault suite names",
    "bench/faults/hosts.py: subprocess.Popen": "this Python in a namespace",
    "bench/faults/hosts.py: subprocess.check_output": "ip with namespaces of the suite's own",
    "bench/faults/kills.py: subprocess.Popen": "this Python with the launcher's arguments",
    "bench/faults/ranks.py: subprocess.Popen": "this Python with this program's arguments",
    "bench/faults/setting.py: importlib.import_module": "a name written in the source",
}  # fmt: skip
"""File and call, and why it may stand there."""


def aliases_of(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `import subprocess as sp` makes sp subprocess."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def full_name(node: ast.expr, aliases: dict[str, str]) -> str:
    """`sp.run` as subprocess.run; the empty string for what is no chain of names."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = full_name(node.value, aliases)
        return f"{before}.{node.attr}" if before else ""
    return ""


def find_dangers(source: str) -> Iterator[str]:
    """Every forbidden use in a source, by its full name, or by the argument that makes it one."""
    tree = ast.parse(source)
    aliases = aliases_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = full_name(node, aliases)
            name = name if name in FORBIDDEN_CALLS else ".".join(name.split(".")[-2:])
            if name in FORBIDDEN_CALLS or name in PROCESSES:
                yield name
        elif isinstance(node, ast.Call):
            yield from find_dangerous_arguments(node, full_name(node.func, aliases))


def find_dangerous_arguments(call: ast.Call, name: str) -> Iterator[str]:
    """Arguments that let a call run code, and the ones that it must have so that it does not."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    values = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
    if "shell" in given and values.get("shell") is not False:
        yield "shell="
    if "allow_pickle" in given and values.get("allow_pickle") is not False:
        yield "allow_pickle="
    if values.get("trust_remote_code") is True:
        yield "trust_remote_code=True"
    if name == "torch.load" and values.get("weights_only") is not True:
        yield "torch.load without weights_only=True"
    if name in ("jinja2.Environment", "Environment") and values.get("autoescape") is not True:
        yield "jinja2 without autoescape"
    from_hub = name.endswith((".from_pretrained", ".from_config")) and name.split(".")[-2].startswith("Auto")
    if (
        from_hub
        and name.endswith(".from_pretrained")
        and "trust_remote_code" not in given
        and None not in given
    ):
        yield "Auto….from_pretrained without trust_remote_code"


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_nothing_dangerous_is_called_but_what_is_listed_with_a_reason() -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()}: {danger}"
        for package in PACKAGES
        for path in files_of(package)
        for danger in find_dangers(path.read_text(encoding="utf-8"))
        if danger != "rich.console.Console" or calls_console(path)
    }
    found -= {"preprocess/terminal.py: rich.console.Console"}
    assert sorted(found - set(ALLOWED)) == []
    assert sorted(set(ALLOWED) - found) == []


def calls_console(path: Path) -> bool:
    """Whether a file makes a console, and does not only name the type."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aliases = aliases_of(tree)
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(full_name(call.func, aliases) == "rich.console.Console" for call in calls)


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "exec(x)", "__import__(x)", "import os\nos.system(x)", "from os import system\nsystem(x)",
        "from os import system as s\ns(x)", "import subprocess as sp\nsp.getoutput(x)", "import os\nf = os.popen",
        "import subprocess\nsubprocess.run(x, shell=True)", "from subprocess import run\nrun(x, shell=flag)",
        "import subprocess\nsubprocess.run(x)", "import pickle\npickle.load(f)", "from pickle import loads as l\nl(b)",
        "import yaml\nyaml.load(x, Loader=L)", "import yaml\nyaml.load(x, yaml.Loader)",
        "from yaml import unsafe_load\nunsafe_load(x)", "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)", "import numpy as np\nnp.load(p, allow_pickle=True)",
        "from transformers import AutoModel\nAutoModel.from_pretrained(x)",
        "from transformers import AutoConfig as A\nA.from_pretrained(x, trust_remote_code=True)",
        "from transformers import AutoTokenizer\nAutoTokenizer.from_pretrained(x)",
        "import tempfile\ntempfile.mktemp()", "import importlib\nimportlib.import_module(x)",
        "from importlib import import_module\nimport_module(x)", "import os\nos.execvp(a, b)",
        "from jinja2 import Environment\nEnvironment()", "self.engine.load_checkpoint(x)",
        "from rich.console import Console\nConsole()",
    ],
)  # fmt: skip
def test_the_reader_sees_every_form(source: str) -> None:
    assert list(find_dangers(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()", "import re\nre.compile(x)", "import torch\ntorch.compile(m)", "'os.system(x)'", "# eval(x)",
        "import torch\ntorch.load(p, weights_only=True)", "import yaml\nyaml.safe_load(x)",
        "import numpy as np\nnp.load(p, mmap_mode='r')", "A.from_pretrained(**source)",
        "from jinja2 import Environment\nEnvironment(autoescape=True)",
    ],
)  # fmt: skip
def test_the_reader_sees_nothing_that_is_not_there(source: str) -> None:
    assert list(find_dangers(source)) == []
