"""Predicted seconds of an optimizer step: computation and communication, one after the other.

Computation: hardware FLOPs of the rank with the most rows (`harness.flops`) over peak times efficiency; frozen
projections at the float8 peak where they run in float8. Communication: a rank's bytes (`harness.memory.traffic`)
over its host's link; a ring leaves each host once, whatever ranks it has. Nothing overlaps: gradients stay on their
rank until the last backward pass. Left out, for they follow from no size: kernel launches, loading, latency, the
optimizer (each below a few percent of a step that fills a card).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.cards import Card
from harness.config import RunConfig, load_run_config
from harness.flops import FlopParts, count_step_flops
from harness.json_lines import JsonObject, read_json_lines
from harness.linear_flops import LoraShape
from harness.memory.case import MemoryCase
from harness.memory.traffic import Traffic, count_traffic
from harness.planning.model_files import find_model_shape
from harness.planning.setting import ASSUMED_BF16, ASSUMED_FP8, Efficiency, Setting
from preprocess.errors import ConfigError, DataError
from preprocess.outside_text import parse_json

TERA = 1e12


@dataclass(frozen=True, slots=True)
class StepTime:
    """A mean step.

    Attributes:
        rows: Over all ranks.
        micro_steps: Forward passes on each rank.
        examples: Over all ranks.
        tokens: Over all ranks.
        flops: Hardware FLOPs of the rank with the most rows.
        compute_s: Seconds of them, None without a card.
        traffic: Bytes that a rank sends.
        communication_s: Seconds of them; 0 on one host, whose inner links are not counted.
    """

    rows: int
    micro_steps: int
    examples: float
    tokens: float
    flops: FlopParts
    compute_s: float | None
    traffic: Traffic
    communication_s: float

    @property
    def step_s(self) -> float | None:
        """Seconds in all."""
        return None if self.compute_s is None else self.compute_s + self.communication_s

    @property
    def tokens_per_s(self) -> float | None:
        """Real tokens a second over all ranks."""
        return None if self.step_s is None else self.tokens / self.step_s

    @property
    def examples_per_s(self) -> float | None:
        """Examples a second over all ranks."""
        return None if self.step_s is None else self.examples / self.step_s


def predict_step(setting: Setting) -> StepTime:
    """Predict a mean step of a setting."""
    work, rows = setting.workload, setting.rows_of_step
    flops = count_flops(setting.case, setting.rows_of_rank, setting)
    traffic = count_traffic(setting.case, setting.micro_steps)
    return StepTime(
        rows=rows,
        micro_steps=setting.micro_steps,
        examples=rows * work.examples,
        tokens=rows * work.tokens,
        flops=flops,
        compute_s=None
        if setting.card is None
        else compute_seconds(flops, setting.case, setting.card, setting.efficiency),
        traffic=traffic,
        communication_s=send_seconds(traffic.total, setting.link_gbps) if setting.nodes > 1 else 0.0,
    )


def send_seconds(num_bytes: int, link_gbps: float) -> float:
    """Seconds that a link of so many Gb/s takes for some bytes."""
    return num_bytes * 8 / (link_gbps * 1e9)


def count_flops(case: MemoryCase, rows: int, setting: Setting) -> FlopParts:
    """Hardware FLOPs of so many mean rows on one rank."""
    work = setting.workload
    dense = case.attention in ("sdpa", "eager")
    pairs = round(rows * work.pairs)
    return count_step_flops(
        case.shape,
        case.lora,
        tokens=round(rows * work.tokens),
        attention_pairs=pairs,
        supervised_tokens=round(rows * work.supervised),
        recompute_layers=case.recompute_layers,
        attention=case.attention,
        computed_pairs=rows * work.longest_row**2 if dense else pairs,
        lora_kernel=case.lora_kernel,
        fused_head=case.zero.stage != 3,
    ).hardware


def split_fp8(flops: FlopParts, case: MemoryCase) -> tuple[float, float]:
    """FLOPs at the bf16 peak and at the float8 peak."""
    if not case.fp8:
        return float(flops.total), 0.0
    forward = flops.forward_base + flops.forward_lora + flops.forward_attention
    repeated = flops.recompute * flops.forward_base / max(1, forward)
    fp8 = flops.forward_base + flops.backward_base + repeated
    return flops.total - fp8, fp8


def compute_seconds(flops: FlopParts, case: MemoryCase, card: Card, efficiency: Efficiency) -> float:
    """Seconds of some FLOPs on one card; float32 has no peak of its own here and runs at half of bf16's (TF32)."""
    at_bf16, at_fp8 = split_fp8(flops, case)
    peak = card.bf16_tflops * TERA * (0.5 if case.precision == "fp32" else 1.0)
    seconds = at_bf16 / (peak * efficiency.bf16)
    if at_fp8:
        assert card.fp8_tflops is not None, "float8 is asked only of cards that have it"
        seconds += at_fp8 / (card.fp8_tflops * TERA * efficiency.fp8)
    return seconds


def read_efficiency(run_dir: Path, setting: Setting) -> Efficiency:
    """The share of a card's peak that a finished run reached, from its config.yaml and the last line of metrics.jsonl.

    Time is that of forward, loss and backward where steps were timed by parts; else all of it, communication included.

    Raises:
        ConfigError: No card is named, or the run computed on a CPU.
        DataError: The folder holds no finished run.
    """
    if setting.card is None:
        raise ConfigError("--measured needs --gpu: an efficiency is a share of a card's peak")
    summary, config = _read_run(run_dir)
    shape, _ = find_model_shape(config.model.path)
    counts, world = summary["counts"], int(summary["world_size"])
    layers = shape.num_layers if config.model.recompute_layers == "all" else config.model.recompute_layers
    case = replace(
        setting.case,
        shape=shape,
        lora=LoraShape(config.lora.r, config.lora.targets),
        recompute_layers=layers,
        lora_kernel=config.model.lora_kernel,
        fp8=config.model.fp8,
        precision=config.model.precision,
    )
    flops = count_step_flops(
        case.shape,
        case.lora,
        tokens=counts["tokens"],
        attention_pairs=counts["attention_pairs"],
        supervised_tokens=counts["supervised_tokens"],
        recompute_layers=layers,
        slots=counts["slots"],
        lora_kernel=case.lora_kernel,
    ).hardware
    shares = summary.get("time_share_by_part") or {}
    share = sum(shares.get(part) or 0.0 for part in ("forward_loss", "forward", "loss", "backward")) or 1.0
    ideal_s = compute_seconds(flops, case, setting.card, Efficiency(1.0, 1.0)) / world
    reached = ideal_s / (summary["step_time_total_s"] * share)
    if not 0 < reached <= 1:
        raise ConfigError(
            f"--measured {run_dir}: it reached {reached:.2f} of a {setting.card.name}'s peak; expected a run on that "
            "card"
        )
    fp8 = reached if config.model.fp8 else reached * ASSUMED_FP8 / ASSUMED_BF16
    return Efficiency(reached, fp8, f"measured in {run_dir}, as a share of a {setting.card.name}'s peak")


def _read_run(run_dir: Path) -> tuple[JsonObject, RunConfig]:
    metrics = run_dir / "metrics.jsonl"
    if not metrics.is_file() or not (run_dir / "config.yaml").is_file():
        raise DataError(
            f"--measured {run_dir}: no metrics.jsonl and config.yaml there; give a finished run's folder"
        )
    summaries = [line for line in read_json_lines(metrics) if line.get("kind") == "summary"]
    if not summaries or not summaries[-1].get("step_time_total_s"):
        raise DataError(
            f"--measured {run_dir}: the run has no summary of measured steps; give one that finished"
        )
    memory = run_dir / "memory.jsonl"
    if memory.is_file() and any(line.get("device") == "cpu" for line in read_json_lines(memory)):
        raise ConfigError(
            f"--measured {run_dir}: it ran on a CPU, which tells nothing of a card's efficiency"
        )
    return summaries[-1], load_run_config(run_dir / "config.yaml")


def read_link(text: str) -> float:
    """Gb/s: a number, or a JSON file with `gb_per_s` (bytes) or `gbps` (bits), as a link's measurement writes.

    Raises:
        ConfigError: Neither.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        found = parse_json(Path(text).read_text(encoding="utf-8"))
        return float(found["gbps"]) if "gbps" in found else 8 * float(found["gb_per_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--link-gbps {text}: neither a number of gigabits a second nor a JSON file with gbps or gb_per_s"
        ) from error
