"""Rows, recomputed layers and ZeRO stage with the most predicted tokens/s under the target; what would free most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from harness.linear_flops import LoraShape
from harness.planning.from_config import shipped_zero
from harness.planning.setting import Setting
from harness.planning.speed import StepTime, predict_step

STAGES = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A setting that fits, and its predicted step."""

    setting: Setting
    time: StepTime

    @property
    def rank(self) -> tuple[float, int, int, int]:
        """More is better: tokens/s; then fewer micro-steps, fewer bytes on the wire, fewer in memory."""
        speed = self.time.tokens_per_s
        if speed is None:
            speed = -float(self.setting.case.recompute_layers)
        return (
            round(speed, 3),
            -self.time.micro_steps,
            -self.time.traffic.total,
            -self.setting.peak_bytes,
        )


def first_true(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """The least number of a range for which something holds that goes on to hold; None where it never does."""
    if low > high or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def fewest_recomputed(setting: Setting, rows: int) -> Setting | None:
    """The setting with so many rows and as few recomputed layers as fit; None where even all do not."""
    if setting.with_rows(rows, 0).fits:
        return setting.with_rows(rows, 0)
    layers = first_true(1, setting.case.shape.num_layers, lambda count: setting.with_rows(rows, count).fits)
    return None if layers is None else setting.with_rows(rows, layers)


def most_rows(setting: Setting, recompute_layers: int = 0, at_most: int = 4096) -> int:
    """The most rows that fit with so many recomputed layers; 0 where one does not.

    Bytes grow with rows along nearly straight lines, so each look is where the line so far meets the limit.
    """

    def peak(rows: int) -> int:
        return setting.with_rows(rows, recompute_layers).peak_bytes

    limit, least = setting.limit_bytes, peak(1)
    if least > limit:
        return 0
    low, low_bytes, high, slope = 1, least, at_most + 1, max(1, peak(2) - least)
    while high - low > 1:
        rows = min(max(low + (limit - low_bytes) // slope, low + 1), high - 1)
        found = peak(rows)
        slope = max(1, (found - least) // (rows - 1))
        if found <= limit:
            low, low_bytes = rows, found
        else:
            high = rows
    return low


def try_rows(most: int) -> Iterator[int]:
    """Numbers of rows worth a look: each that changes the number of micro-steps, beginning with all at once."""
    seen = 0
    for micro_steps in range(1, most + 1):
        rows = -(-most // micro_steps)
        if rows != seen:
            yield rows
            seen = rows


def best_at_stage(setting: Setting) -> Candidate | None:
    """The best rows and recomputed layers of a setting at its stage, or None where nothing fits.

    No more rows than a rank has of a step: more would stand empty.
    """
    found: list[Candidate] = []
    for rows in try_rows(setting.rows_of_rank):
        fitting = fewest_recomputed(setting, rows)
        if fitting is None:
            continue
        found.append(Candidate(fitting, predict_step(fitting)))
        if fitting.case.recompute_layers == 0 and (fitting.case.zero.stage < 3 or len(found) > 1):
            break  # fewer rows only mean more micro-steps
    return max(found, key=lambda candidate: candidate.rank, default=None)


def best_by_stage(setting: Setting) -> dict[int, Candidate | None]:
    """The best of each ZeRO stage."""
    return {stage: best_at_stage(shipped_zero(setting, stage)) for stage in STAGES}


def best(setting: Setting) -> Candidate | None:
    """The best of all stages, or None where nothing fits."""
    found = [candidate for candidate in best_by_stage(setting).values() if candidate is not None]
    return max(found, key=lambda candidate: candidate.rank, default=None)


@dataclass(frozen=True, slots=True)
class Fill:
    """Steps that fill the card.

    Attributes:
        rows: Most rows of a micro-batch that fit without recomputation.
        examples: Examples of a step in which every rank has them once.
        setting: With such a step.
        time: Its prediction.
    """

    rows: int
    examples: int
    setting: Setting
    time: StepTime


def fill(setting: Setting) -> Fill | None:
    """What a step would have to take for each rank to fill its card in one pass; None where one row does not fit."""
    rows = most_rows(setting)
    if rows == 0:
        return None
    filled = setting.with_rows(rows, 0).with_rows_of_step(rows * setting.case.ranks)
    return Fill(
        rows, round(rows * setting.case.ranks * setting.workload.examples), filled, predict_step(filled)
    )


@dataclass(frozen=True, slots=True)
class Relief:
    """One change, what it frees, and whether it alone makes the run fit."""

    change: str
    freed_bytes: int
    fits: bool


def list_relief(setting: Setting) -> list[Relief]:
    """Single changes by the bytes that each frees of a rank's peak, most first; those that free nothing left out."""
    peak = setting.peak_bytes
    found = [
        Relief(change, peak - other.peak_bytes, other.peak_bytes <= setting.limit_bytes)
        for change, other in _changes(setting)
    ]
    return sorted(
        (relief for relief in found if relief.freed_bytes > 0), key=lambda relief: -relief.freed_bytes
    )


def _changes(setting: Setting) -> Iterator[tuple[str, Setting]]:
    case = setting.case
    if setting.rows > 1:
        yield "batch.micro_batch_size=1", setting.with_rows(1)
    if setting.rows > 2:
        yield f"batch.micro_batch_size={setting.rows // 2}", setting.with_rows(setting.rows // 2)
    if case.recompute_layers < case.shape.num_layers:
        yield "model.recompute_layers=all", setting.with_rows(setting.rows, case.shape.num_layers)
    for stage in range(case.zero.stage + 1, 4):
        yield f"deepspeed=zero{stage}", shipped_zero(setting, stage)
    if case.zero.stage == 3 and not case.zero.offload_parameters:
        yield "deepspeed=zero3_offload", _offload(setting)
    elif case.zero.stage < 3:
        yield "deepspeed=zero3_offload", _offload(shipped_zero(setting, 3))
    if case.loss_chunk > 256:
        yield "model.loss_chunk=256", replace(setting, case=replace(case, loss_chunk=256))
    if case.lora_kernel == "peft":
        yield "model.lora_kernel=lean", replace(setting, case=replace(case, lora_kernel="lean"))
    if case.dropout:
        yield "lora.dropout=0", replace(setting, case=replace(case, dropout=0.0))
    if case.lora is not None and case.lora.r > 1:
        smaller = LoraShape(max(1, case.lora.r // 4), case.lora.targets)
        yield f"lora.r={smaller.r}", replace(setting, case=replace(case, lora=smaller))
    if case.lora is not None and "lm_head" in case.lora.targets and len(case.lora.targets) > 1:
        rest = LoraShape(case.lora.r, tuple(name for name in case.lora.targets if name != "lm_head"))
        yield "lora.targets without lm_head", replace(setting, case=replace(case, lora=rest))
    if not case.fp8 and setting.card is not None and setting.card.fp8_tflops is not None:
        yield "model.fp8=true", replace(setting, case=replace(case, fp8=True))


def _offload(setting: Setting) -> Setting:
    zero = replace(setting.case.zero, offload_optimizer=True, offload_parameters=True)
    return replace(setting, case=replace(setting.case, zero=zero))
