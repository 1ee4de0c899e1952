"""All that a prediction depends on, in one value, so that "what if" is `dataclasses.replace`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from harness.batch_plan import StepTarget
from harness.cards import DRIVER_RESERVE_MIB, MIB, Card
from harness.memory.case import MemoryCase
from harness.memory.predict import predict
from harness.planning.workload import Workload

ASSUMED_BF16, ASSUMED_FP8 = 0.5, 0.45
"""Assumed shares of the dense peak that a step's matrix products reach; a run of one's own tells better."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the dense peaks that are reached, and where that is known from."""

    bf16: float = ASSUMED_BF16
    fp8: float = ASSUMED_FP8
    source: str = "assumed"


@dataclass(frozen=True, slots=True)
class Setting:
    """A run as it is planned.

    Attributes:
        case: One rank's work; `slots`, `supervised` and `row_slots` follow from `rows`, so set them by `with_rows`.
        rows: Rows of a micro-batch.
        workload: What rows are like.
        target: What a step takes.
        nodes: Hosts.
        gpus_per_node: Ranks on each.
        memory_bytes: Of a card, as the driver shows it.
        vram_target: Share of it that is to be used at most.
        card: Its peaks, None where only its memory is known.
        link_gbps: Of a host's link to the others, in Gb/s.
        efficiency: Shares of the peaks that are reached.
    """

    case: MemoryCase
    rows: int
    workload: Workload
    target: StepTarget
    nodes: int
    gpus_per_node: int
    memory_bytes: int
    vram_target: float
    card: Card | None
    link_gbps: float
    efficiency: Efficiency = Efficiency()

    @property
    def limit_bytes(self) -> int:
        """What one rank may use: the target's share, and never what the driver keeps for itself."""
        return min(round(self.vram_target * self.memory_bytes), self.usable_bytes)

    @property
    def usable_bytes(self) -> int:
        """What a program can get at all."""
        return self.memory_bytes - DRIVER_RESERVE_MIB * MIB

    @property
    def peak_bytes(self) -> int:
        """Predicted peak of a rank."""
        return predict(self.case).peak.total

    @property
    def fits(self) -> bool:
        """Whether the predicted peak is within the target."""
        return self.peak_bytes <= self.limit_bytes

    @property
    def rows_of_step(self) -> int:
        """Rows of a mean step over all ranks, at least one."""
        each = {"rows": 1.0, "examples": self.workload.examples, "tokens": self.workload.tokens}
        return max(1, round(self.target.amount / each[self.target.unit]))

    @property
    def rows_of_rank(self) -> int:
        """Rows of a mean step on the rank that has the most; more than these in a micro-batch are of no use."""
        return -(-self.rows_of_step // self.case.ranks)

    @property
    def micro_steps(self) -> int:
        """Forward passes of a mean step on each rank."""
        return -(-self.rows_of_step // (self.rows * self.case.ranks))

    def with_rows(self, rows: int, recompute_layers: int | None = None) -> Self:
        """The same with another micro-batch: so many rows, each as long as the longest and as supervised as any."""
        layers = self.case.recompute_layers if recompute_layers is None else recompute_layers
        longest = self.workload.longest_row
        supervised = min(rows * self.workload.most_supervised, rows * longest)
        case = replace(
            self.case,
            slots=rows * longest,
            supervised=supervised,
            row_slots=longest,
            recompute_layers=layers,
        )
        return replace(self, case=case, rows=rows)

    def with_stage(self, stage: int) -> Self:
        """The same at another ZeRO stage, without offload below the stages that have it."""
        zero = replace(
            self.case.zero,
            stage=stage,
            offload_optimizer=self.case.zero.offload_optimizer and stage > 0,
            offload_parameters=self.case.zero.offload_parameters and stage == 3,
        )
        return replace(self, case=replace(self.case, zero=zero))

    def with_nodes(self, nodes: int) -> Self:
        """The same on so many hosts."""
        case = replace(self.case, ranks=nodes * self.gpus_per_node)
        return replace(self, case=case, nodes=nodes)

    def with_workload(self, workload: Workload) -> Self:
        """The same on other rows, as many in a micro-batch."""
        return replace(self, workload=workload).with_rows(self.rows)

    def with_rows_of_step(self, rows: int) -> Self:
        """The same with steps of so many rows."""
        return replace(self, target=StepTarget("rows", rows))
