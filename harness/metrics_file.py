"""The run's record on disk: metrics.jsonl, one JSON object a line, and the same figures for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from harness.json_lines import close_last_line, encode_line, read_json_lines, write_json_lines

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from harness.memory.profile import MemoryRecord
    from harness.metering.efficiency import StepEfficiency
    from harness.throughput import StepCounts, StepRates, TaskStep, ThroughputSummary

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
GIB = 2**30
EFFICIENCY = ("model_flops", "hardware_flops", "mfu", "hfu", "mfu_of_ceiling")
"""Fields of `harness.metering.efficiency.StepEfficiency`."""

TRAIN_TAGS = {
    "train/loss": "loss",
    "train/learning_rate": "learning_rate",
    "train/grad_norm": "grad_norm",
    "throughput/samples_per_s": "samples_per_s",
    "throughput/tokens_per_s": "tokens_per_s",
    "throughput/supervised_tokens_per_s": "supervised_tokens_per_s",
    "throughput/rows_per_s": "rows_per_s",
    "throughput/slots_per_s": "slots_per_s",
    "throughput/tokens_per_example": "tokens_per_example",
    "throughput/smoothed_samples_per_s": "smoothed_samples_per_s",
    "throughput/smoothed_tokens_per_s": "smoothed_tokens_per_s",
    "throughput/step_time_s": "step_time_s",
    "throughput/mfu": "mfu",
    "throughput/hfu": "hfu",
    "throughput/mfu_of_ceiling": "mfu_of_ceiling",
    "throughput/eta_s": "eta_s",
    "step/rows": "rows",
    "step/examples": "examples",
    "step/tokens": "tokens",
    "step/supervised_tokens": "supervised_tokens",
    "step/attention_pairs": "attention_pairs",
}
"""TensorBoard tag to the key of a "train" line that it shows; one that is not known is not shown."""


class MetricsWriter:
    """Appends a run's figures as they come; each line is flushed, so a killed run keeps what it measured.

    One process of the run writes. On a resume call `truncate_after` before the first line, or the steps that
    are trained again appear twice.
    """

    def __init__(self, run_dir: Path, tensorboard: bool) -> None:
        """Open the files.

        Args:
            run_dir: Folder of the run; made if it is missing.
            tensorboard: Whether to write event files to `run_dir`/tensorboard too.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = run_dir / METRICS_FILE
        self._tensorboard_dir = run_dir / TENSORBOARD_FOLDER if tensorboard else None
        self._events: SummaryWriter | None = None
        self._purge_step: int | None = None
        close_last_line(self.path)
        self._file = self.path.open("a", encoding="utf-8", newline="\n")

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files; more than once does no harm."""
        self._file.close()
        if self._events is not None:
            self._events.close()
            self._events = None

    def truncate_after(self, step: int) -> None:
        """Forget what came after a step, and any summary: the run goes on from that step's checkpoint.

        Args:
            step: The last optimizer step to keep. TensorBoard hides its later points likewise.

        Raises:
            DataError: The file is damaged before its last line.
        """
        self._file.close()
        lines = read_json_lines(self.path)
        write_json_lines(self.path, [x for x in lines if x.get("kind") != "summary" and x["step"] <= step])
        self._file = self.path.open("a", encoding="utf-8", newline="\n")
        if self._events is not None:
            self._events.close()
            self._events = None
        self._purge_step = step + 1

    def write_train(
        self,
        step: int,
        epoch: float,
        loss: float,
        learning_rate: float,
        grad_norm: float,
        counts: StepCounts,
        rates: StepRates,
        by_task: Mapping[str, TaskStep] | None = None,
        skipped: str | None = None,
        efficiency: StepEfficiency | None = None,
        eta_s: float | None = None,
    ) -> None:
        """Write one optimizer step.

        Args:
            step: Optimizer steps done so far, this one included.
            epoch: Epochs done, as a fraction.
            loss: Mean loss over the global batch's supervised tokens, in nats.
            learning_rate: The rate that this step used.
            grad_norm: Global norm of the gradient before clipping.
            counts: The step's work over all ranks.
            rates: What `ThroughputMeter.end_step` gave for it.
            by_task: What the step saw of each task, from `harness.throughput.name_tasks`.
            skipped: Why the step changed no weight, None where it did.
            efficiency: Its FLOPs and their shares, None where they are not known.
            eta_s: Seconds to the end of the run.
        """
        line: dict[str, Any] = {
            "kind": "train",
            "step": step,
            "epoch": epoch,
            "loss": loss,
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "skipped": skipped,
            **asdict(counts),
            "by_task": {task: asdict(part) for task, part in (by_task or {}).items()},
            "step_time_s": rates.step_time_s,
            "parts_s": rates.parts_s,
            "stalls_s": rates.stalls_s,
            "is_warmup": rates.is_warmup,
            **{name: getattr(rates, name) for name in rates.smoothed},
            **{f"smoothed_{name}": value for name, value in rates.smoothed.items()},
            **{name: getattr(efficiency, name, None) for name in EFFICIENCY},
            "eta_s": eta_s,
        }
        self._append(line)
        tags = {tag: line[key] for tag, key in TRAIN_TAGS.items() if line[key] is not None}
        tags |= {f"throughput/parts/{part}_s": seconds for part, seconds in rates.parts_s.items()}
        by_task_tags = {
            f"train/{task}/{key}": value
            for task, part in line["by_task"].items()
            for key, value in part.items()
        }
        self._add_scalars(step, tags | by_task_tags)

    def write_ranks(self, line: Mapping[str, Any]) -> None:
        """Write the times of a step on all ranks, as `harness.metering.ranks.describe_ranks` gives them."""
        self._append(line)
        parts = {"step_time": line["step_time_s"], **line["parts_s"]}
        tags = {
            f"throughput/rank{rank}/{part}_s": seconds
            for part, of_ranks in parts.items()
            for rank, seconds in enumerate(of_ranks)
        }
        self._add_scalars(line["step"], tags)

    def write_eval(
        self, step: int, loss: float, by_task: Mapping[str, float], supervised_tokens: int, time_s: float
    ) -> None:
        """Write one evaluation.

        Args:
            step: Optimizer steps done so far.
            loss: Mean loss over the eval split's supervised tokens, in nats.
            by_task: The same by task.
            supervised_tokens: Tokens that the loss is the mean of, over all ranks.
            time_s: Seconds that the evaluation took.
        """
        self._append(
            {
                "kind": "eval",
                "step": step,
                "loss": loss,
                "by_task": dict(by_task),
                "supervised_tokens": supervised_tokens,
                "time_s": time_s,
            }
        )
        tags = {"eval/loss": loss} | {f"eval/{task}/loss": value for task, value in by_task.items()}
        self._add_scalars(step, tags)

    def write_event(self, step: int, event: Mapping[str, Any]) -> None:
        """Write what happened in a step beside its training, as plain values: memory that ran out."""
        self._append({"kind": "event", "step": step, **event})

    def write_memory(self, step: int, records: Iterable[MemoryRecord]) -> None:
        """Give TensorBoard the peak of every phase on every rank, and the parts that are state, at their most.

        The file of record is memory.jsonl.
        """
        tags: dict[str, float] = {}
        for record in records:
            tags[f"memory/rank{record.rank}/{record.phase}_gib"] = record.peak_bytes / GIB
            for part, num_bytes in record.parts.items():
                tag = f"memory/rank{record.rank}/parts/{part}_gib"
                tags[tag] = max(tags.get(tag, 0.0), num_bytes / GIB)
        self._add_scalars(step, tags)

    def write_summary(
        self, step: int, throughput: ThroughputSummary, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Write the run's last line.

        Args:
            step: Optimizer steps done.
            throughput: What `ThroughputMeter.summary` gave.
            extra: Further figures, as plain values.
        """
        self._append({"kind": "summary", "step": step, **throughput.to_dict(), **(extra or {})})

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(encode_line(line))
        self._file.flush()

    def _add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._tensorboard_dir is None:
            return
        if self._events is None:
            # Imported late: the report reads these files and needs no torch.
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self._tensorboard_dir), purge_step=self._purge_step)
        from tensorboard.compat.proto.summary_pb2 import Summary

        # One event for all of them: the device waits meanwhile, and `add_scalar` would make one each.
        scalars = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
        writer = self._events._get_file_writer()  # type: ignore[no-untyped-call] # torch's has no types
        writer.add_summary(Summary(value=scalars), step)
