"""The splits of a data set, opened for a run: their rows, and which of them each step takes."""

from __future__ import annotations

from dataclasses import dataclass

from harness.batch_plan import BatchPlan, StepTarget
from harness.config import RunConfig
from harness.dist import World
from harness.head import count_chunks
from harness.row_sizes import read_row_sizes
from preprocess.errors import DataError
from preprocess.manifest import Manifest, check_hashes, read_manifest
from preprocess.shards import ShardedRows, open_split


@dataclass(frozen=True, slots=True)
class PlannedSplit:
    """The rows of a split, and which of them each step takes."""

    rows: ShardedRows
    plan: BatchPlan

    def with_micro_batch_size(self, rows: int) -> PlannedSplit:
        """The same split in micro-batches of another size."""
        return PlannedSplit(self.rows, self.plan.with_micro_batch_size(rows))

    def passes_through_head(self, step: int, chunk: int) -> list[int]:
        """For each micro-step of a step, how often all ranks go through the head: as often as any rank ever needs to.

        Always the same, for ZeRO-3 plans its gathers anew (and waits for the device) when the order of modules changes.

        Args:
            step: Whose micro-steps.
            chunk: Supervised tokens of a pass.
        """
        most = self.plan.micro_batch_size * self.plan.most_supervised_row
        return [count_chunks(most, chunk)] * self.plan.micro_steps(step)


def open_data(config: RunConfig, world: World) -> tuple[Manifest, PlannedSplit, PlannedSplit | None]:
    """Open the shards and plan the steps; the first rank of each host hashes them.

    Raises:
        DataError: They are missing or damaged, or there are fewer rows than ranks.
    """
    folder = config.data.path
    manifest = read_manifest(folder)
    if config.data.verify_hashes and world.local_rank == 0:
        check_hashes(folder, manifest)
    micro, size = config.batch.micro_batch_size, world.size

    def plan(split: str, target: StepTarget, seed: int | None) -> PlannedSplit:
        sizes = read_row_sizes(folder, split, manifest)
        return PlannedSplit(open_split(folder, split, manifest), BatchPlan(sizes, target, micro, size, seed))

    num_rows = manifest.splits["train"].num_rows
    if num_rows < size:
        raise DataError(
            f"{folder}: {size} ranks, but only {num_rows} training rows; use fewer ranks or more songs"
        )
    has_eval = "eval" in manifest.splits and manifest.splits["eval"].num_rows > 0
    return (
        manifest,
        plan("train", config.batch.target, config.seed),
        plan("eval", StepTarget("rows", micro * size), None) if has_eval else None,
    )
