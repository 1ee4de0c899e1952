"""The direction of imports, read from the source: what the layers may know of each other."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SHARED_BY_PREPROCESS = {"errors", "forest", "manifest", "prompt", "schema", "shards", "tokenizer"} | {
    "outside_text",
    "secret",
    "durable",
    "settings",
    "terminal",
    # What a data set knows of its songs, for the truth check.
    "knowledge",
}
"""What the harness may import from the preprocessor: the data format, and what every command line shares."""

READ_BY_EVALUATION = {"measure", "tasks", "read", "check", "choose", "clean"}
"""What evaluation may import besides: answers are judged by the rules that made them, genres by their spellings,
prompts are taken apart by the checks' own reader, and leaks are found by the rules that keep them out of a data set."""

HEAVY = {"torch", "transformers", "deepspeed", "peft", "accelerate"}
DISTRIBUTED = {"deepspeed", "torch.distributed"}
OWNERS_OF_DISTRIBUTED = {
    "dist.py",
    "engine.py",
    "cluster/doctor/link_rank.py",
    "profiling/deepspeed_flops.py",
}
MODULES_WITHOUT_TORCH = (
    "harness.guard.process",
    "harness.guard.rank",
    "preprocess.__main__",
    "harness.__main__",
    "harness.cards",
    "harness.config",
    "harness.deepspeed_config",
    "harness.evaluation.baselines",
    "harness.evaluation.leakage",
    "harness.evaluation.scoring",
    "harness.cluster.doctor.command",
    "harness.cluster.doctor.examine",
    "harness.cluster.doctor.link",
    "harness.cluster.doctor.table",
    "harness.cluster.hostfile",
    "harness.cluster.launch",
    "harness.planning.tables",
    "harness.profiling.breakdown",
    "harness.profiling.top",
    "harness.report.plan",
    "harness.report.roofline",
    "harness.roofline.tables",
)


def names_used(source: str, package: str = "") -> set[str]:
    """Dotted names that a module imports or reaches as attributes of `torch`.

    `from a import b` gives both `a` and `a.b`, for b may be a module; a relative import is resolved in `package`.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch"
        ):
            names.add(f"torch.{node.attr}")
    return names


def uses(names: set[str], package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in names)


def modules_of(package: str) -> Iterator[tuple[str, Path, set[str]]]:
    """Path inside the package, whole path, and names used, for each of its source files."""
    for path in sorted((ROOT / package).rglob("*.py")):
        dotted = ".".join(path.relative_to(ROOT).parent.parts)
        yield path.relative_to(ROOT / package).as_posix(), path, names_used(path.read_text("utf-8"), dotted)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch", "torch"),
        ("import numpy, torch.distributed as dist", "torch.distributed"),
        ("from torch import distributed", "torch.distributed"),
        ("from torch.distributed import barrier", "torch.distributed"),
        ("def f():\n    import deepspeed", "deepspeed"),
        ("if 1:\n    from deepspeed.accelerator import get_accelerator", "deepspeed"),
        ("import torch\ntorch.distributed.barrier()", "torch.distributed"),
        ("from preprocess import songs", "preprocess.songs"),
        ("from . import engine", "harness.engine"),
        ("from .engine import Engine", "harness.engine"),
        ("from ..preprocess.read.songs import read", "preprocess.read.songs"),
    ],
)
def test_the_reader_sees_every_form_of_import(source: str, expected: str) -> None:
    assert uses(names_used(source, "harness"), expected)


@pytest.mark.parametrize(
    "source", ["import torchvision", "x = 'import torch'", "# import torch", "from a import torch_like"]
)
def test_the_reader_sees_no_import_that_is_not_there(source: str) -> None:
    assert not uses(names_used(source), "torch")


def test_the_source_files_are_found() -> None:
    assert {"schema.py", "forest.py"} <= {name for name, _, _ in modules_of("preprocess")}
    assert {"cluster/hostfile.py", "config.py"} <= {name for name, _, _ in modules_of("harness")}


def test_preprocess_imports_neither_the_harness_nor_a_training_library() -> None:
    found = [
        f"{name}: {package}"
        for name, _, names in modules_of("preprocess")
        for package in sorted({"harness", "bench", "tests"} | HEAVY)
        if uses(names, package)
    ]
    assert found == []


def test_the_harness_imports_only_the_shared_part_of_preprocess() -> None:
    found = []
    modules = {path.stem for path in (ROOT / "preprocess").glob("*.py")}
    modules |= {path.parent.name for path in (ROOT / "preprocess").glob("*/__init__.py")}
    for name, _, names in modules_of("harness"):
        allowed = SHARED_BY_PREPROCESS | (READ_BY_EVALUATION if name.startswith("evaluation/") else set())
        parts = [used.split(".")[1] for used in names if used.startswith("preprocess.")]
        found += [f"{name}: preprocess.{part}" for part in parts if part in modules - allowed]
    assert found == []


def test_the_harness_imports_neither_bench_nor_tests() -> None:
    found = [name for name, _, names in modules_of("harness") if uses(names, "bench") or uses(names, "tests")]
    assert found == []


def test_deepspeed_and_torch_distributed_have_few_owners() -> None:
    found = [
        f"{name}: {package}"
        for name, _, names in modules_of("harness")
        for package in sorted(DISTRIBUTED)
        if name not in OWNERS_OF_DISTRIBUTED and uses(names, package)
    ]
    assert found == []


def import_in_a_fresh_process(statement: str) -> list[str]:
    """The heavy packages (and the harness) that are loaded after a statement."""
    watched = sorted(HEAVY | {"harness"})
    code = f"{statement}\nimport json, sys\nprint(json.dumps([m for m in {watched} if m in sys.modules]))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


@pytest.mark.parametrize("module", MODULES_WITHOUT_TORCH)
def test_these_modules_start_without_torch(module: str) -> None:
    assert set(import_in_a_fresh_process(f"import {module}")) <= {"harness"}


def test_no_module_of_preprocess_loads_torch_or_the_harness() -> None:
    modules = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for _, path, _ in modules_of("preprocess")
    ]
    assert len(modules) > 10
    assert import_in_a_fresh_process("\n".join(f"import {module}" for module in modules)) == []


def test_a_listed_module_that_does_not_exist_is_no_pass() -> None:
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        import_in_a_fresh_process("import harness.no_such_module")


def test_a_module_that_does_load_torch_is_noticed() -> None:
    assert import_in_a_fresh_process("import torch.version") == ["torch"]


@pytest.mark.parametrize(
    "name", ["harness.guard.process", "harness.cluster.keeper", "harness.cluster.tether"]
)
def test_what_watches_over_ranks_starts_without_any_other_package(name: str) -> None:
    command = [sys.executable, "-S", "-E", "-c", f"import {name}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    with_package = [*command[:-1], f"import {name}, yaml"]
    assert subprocess.run(with_package, cwd=ROOT, check=False, capture_output=True, timeout=60).returncode
