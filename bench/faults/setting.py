"""What every fault happens to: a toy run, its unbroken reference, and what makes a later run equal to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import yaml

from bench.faults.ranks import ForkServer, start_ranks
from bench.record import WrongResultError
from tests.toys import make_dataset, make_model_dir, make_tokenizer

ADAPTER = "adapter/adapter_model.safetensors"
RUN_TIMEOUT_S = 240.0
CHANGING = (
    "_per_s",
    "_s",
    "seconds",
    "share",
    "rates",
    "parts",
    "wall",
    "time",
    "mfu",
    "hfu",
    "_of_ceiling",
    "is_warmup",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Toy data, a tiny model, and where runs go.

    Attributes:
        root: Everything is under it.
        num_steps: Steps of a run.
        save_every: Steps between checkpoints.
        num_ranks: Of a run.
        min_timeout_s: After how long a silent rank counts as hung.
        guard: Whether ranks are guarded; False is the negative control.
    """

    root: Path
    num_steps: int = 12
    save_every: int = 2
    num_ranks: int = 3
    min_timeout_s: float = 5.0
    guard: bool = True

    def write_config(self, name: str, **changes: Any) -> Path:  # noqa: ANN401 - any YAML value
        """The YAML of a run in the folder `root`/`name`; `changes` by dotted name with "__" for the dot."""
        values: dict[str, Any] = {
            "output_dir": str(self.root / name),
            "model": {"path": str(self.root / "model"), "precision": "fp32"},
            "data": {"path": str(self.root / "data")},
            # Dropout, so that a resume that draws other masks shows.
            "lora": {"r": 2, "alpha": 4, "dropout": 0.1, "targets": ["q_proj", "v_proj"]},
            "batch": {"micro_batch_size": 1, "global_batch_size": 3},
            "optimizer": {"learning_rate": 1.0e-2},
            "schedule": {
                "epochs": 100,
                "max_steps": self.num_steps,
                "save_every_steps": self.save_every,
                "keep_checkpoints": 2,
            },
            "tensorboard": False,
        }
        if has_guard():
            values["guard"] = {"min_timeout_s": self.min_timeout_s, "enabled": self.guard}
        for dotted, value in changes.items():
            *sections, key = dotted.split("__")
            place = values
            for section in sections:
                place = place.setdefault(section, {})
            place[key] = value
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def run_dir(self, name: str) -> Path:
        """The folder of a run."""
        return self.root / name


def has_guard() -> bool:
    """Whether this harness guards its ranks at all."""
    return "guard" in import_module("harness.config").RunConfig.model_fields


def make_setting(root: Path, **values: Any) -> Setting:  # noqa: ANN401 - fields of Setting
    """Write the data and the model."""
    tokenizer = make_tokenizer("chatml")
    make_dataset(
        root / "data", num_songs=12, seq_len=256, num_eval_songs=2, tokenizer=tokenizer, seal_side_files=True
    )
    make_model_dir(root / "model", tokenizer.vocab_size, tokenizer=tokenizer)
    return Setting(root, **values)


@dataclass(frozen=True, slots=True)
class Reference:
    """What an unbroken run did.

    Attributes:
        steps: By step, everything in its line of metrics.jsonl that is no time.
        adapter: sha256 of the published adapter's weights.
    """

    steps: dict[int, dict[str, Any]]
    adapter: str


def make_reference(
    setting: Setting, servers: Sequence[ForkServer], name: str = "reference", address: str = "127.0.0.1"
) -> Reference:
    """Train without a fault; rank 0 is at `address`.

    Raises:
        WrongResultError: Even that failed.
    """
    config = setting.write_config(name)
    ranks = start_ranks(servers, ["--config", str(config)], setting.root / f"{name}-logs", address=address)
    codes = ranks.wait(RUN_TIMEOUT_S)
    if any(codes):
        ranks.kill()
        raise WrongResultError(f"the run without a fault ended with {codes}:\n{ranks.read()}")
    return read_reference(setting.run_dir(name))


def read_reference(run_dir: Path) -> Reference:
    """What a finished run did."""
    return Reference({line["step"]: line for line in read_steps(run_dir)}, hash_adapter(run_dir))


def read_steps(run_dir: Path) -> list[dict[str, Any]]:
    """The "train" and, under negative steps, the "eval" lines of a run, without what a clock gave."""
    found = []
    path = run_dir / "metrics.jsonl"
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:  # the last line of a killed run
            continue
        if line["kind"] in ("train", "eval"):
            sign = 1 if line["kind"] == "train" else -1
            found.append({**cast("dict[str, Any]", without_times(line)), "step": sign * line["step"]})
    return found


def without_times(value: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON without the keys that hold times."""
    if isinstance(value, dict):
        kept = {key: v for key, v in value.items() if not key.endswith(CHANGING)}
        # Medians over the last steps begin anew with each process.
        return {key: without_times(v) for key, v in kept.items() if not key.startswith("smoothed_")}
    return value


def hash_adapter(run_dir: Path) -> str:
    """Hex digest of the published adapter's weights, names and metadata, or "none".

    safetensors writes metadata in the order of a hash table, which differs from process to process.
    """
    path = run_dir / ADAPTER
    if not path.is_file():
        return "none"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True)
    return hashlib.sha256(header.encode() + content[end:]).hexdigest()


def find_difference(run_dir: Path, reference: Reference) -> str | None:
    """How a finished run differs from the unbroken one, or None when every figure and weight is equal."""
    lines = read_steps(run_dir)
    steps = sorted(line["step"] for line in lines)
    if steps != sorted(reference.steps):
        missing = [name_line(step) for step in sorted(reference.steps) if step not in steps]
        surplus = [name_line(step) for step in steps if steps.count(step) > (step in reference.steps)]
        return f"metrics.jsonl lacks {missing} and has {surplus} too much"
    for line in lines:
        expected = reference.steps[line["step"]]
        if line != expected:
            keys = [key for key in {*line, *expected} if line.get(key) != expected.get(key)]
            return f"step {line['step']} differs in {', '.join(sorted(keys))}"
    if hash_adapter(run_dir) != reference.adapter:
        return "its adapter's weights differ"
    return None


def name_line(step: int) -> str:
    """What a step of `read_steps` is a line of."""
    return f"step {step}" if step > 0 else f"eval of step {-step}"


def steps_done(run_dir: Path) -> int:
    """The last step in metrics.jsonl; 0 when there is none."""
    return max((line["step"] for line in read_steps(run_dir)), default=0)


def find_damage(folder: Path) -> str | None:
    """What the harness itself finds wrong with a checkpoint."""
    try:
        module = import_module("harness.checkpoints")
    except ModuleNotFoundError:
        module = import_module("harness.checkpoint")
    found: str | None = module.find_damage(folder)
    return found


def whole_steps(run_dir: Path) -> list[int]:
    """Steps of the checkpoints that are whole, ascending."""
    names = [path for path in run_dir.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(int(path.name.rpartition("-")[2]) for path in names if find_damage(path) is None)
