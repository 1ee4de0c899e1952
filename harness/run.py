"""One training run on one rank: the order of its events, from the model to the adapter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, cast

import numpy as np
from rich.console import Console

from harness.building import build_model
from harness.checkpoints import CheckpointFolder, RunState, publish_adapter
from harness.config import RunConfig
from harness.dist import World, run_together
from harness.engine import gather_adapter
from harness.guard.marks import MARKS
from harness.loader import DEPTH, StepLoader, StepSource
from harness.lora import save_adapter
from harness.memory.case import PHASES
from harness.memory.fit import MemoryFit
from harness.memory.limit import is_out_of_memory
from harness.memory.profile import MemoryProfile
from harness.metering.run_meter import RunMeter
from harness.meters import APART, MetricsWriter, Part
from harness.profiling.run_profile import announce_profile, open_recorder, write_profile
from harness.progress import StepProgress
from harness.recompute import decoder_layers
from harness.redo import compute_eval, compute_step
from harness.run_folder import describe_run, setup_of
from harness.run_records import write_prediction, write_step, write_tables
from harness.schedule import learning_rate
from harness.splits import PlannedSplit
from harness.step import StepResult, StopRequestedError, name_rows
from preprocess.errors import StoppedError, TrainingError
from preprocess.manifest import Manifest


class Run:
    """One training run on one rank: what it holds, and its few events."""

    def __init__(
        self,
        config: RunConfig,
        console: Console,
        world: World,
        manifest: Manifest,
        train_split: PlannedSplit,
        eval_split: PlannedSplit | None,
        checkpoints: CheckpointFolder,
    ) -> None:
        self.config = config
        self.console = console
        self.world = world
        self.manifest = manifest
        self.train_split = train_split
        self.eval_split = eval_split
        self.plan = train_split.plan
        self.checkpoints = checkpoints
        self.num_steps = self.plan.num_steps(config.schedule.epochs, config.schedule.max_steps)
        self.memory = MemoryProfile(world.rank, world.device)
        eval_tokens = 0 if eval_split is None else manifest.splits["eval"].num_tokens
        self.meter = RunMeter(config, world, self.num_steps, eval_tokens)
        self.metrics = MetricsWriter(config.output_dir, config.tensorboard) if world.is_main else None
        self.recorder = open_recorder(config, world)
        self.state = RunState()
        self.skips_in_a_row = 0
        self.looks_closely = True

    def go(self) -> None:
        """The whole run.

        Raises:
            OutOfMemoryError: Memory ran out where nothing can be done again.
            StoppedError: A signal asked for it; the state is saved.
        """
        try:
            self.follow()
        except StopRequestedError as request:
            write_profile(self, ends=True)
            self.save()
            self.checkpoints.wait()
            raise StoppedError(
                f"stopped by {request} after step {self.state.step} of {self.num_steps}, which is saved; --resume goes "
                "on from there",
                request.signal_number,
            ) from None
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) and hasattr(self, "fit")):
                raise
            raise self.fit.explain(error, f"step {self.state.step + 1}") from None
        finally:
            self.recorder.stop()
            with suppress(Exception):  # what ends the run is told; a good end has waited already
                self.checkpoints.wait()

    def follow(self) -> None:
        """Build the engine, take every step, leave an adapter and the tables."""
        self.build()
        if self.config.resume and not self.resume():
            self.publish()  # a run that was killed at its end may have none
            return
        with (
            StepProgress(
                self.console, self.num_steps, self.state.step, enabled=self.world.is_main
            ) as progress,
            self.load_steps(self.train_split, self.state.step, self.num_steps) as steps,
        ):
            if self.owes_evaluation():
                self.complete_step(progress)
            announce_profile(self.recorder, self.state.step + 1, self.num_steps, self.say)
            while self.state.step < self.num_steps:
                with self.recorder.step(self.state.step + 1, decoder_layers(self.engine.module.causal)):
                    self.take_step(steps, progress)
                write_profile(self)
                self.checkpoints.check()
                self.complete_step(progress)
        self.finish()

    def is_due(self, every: int | None) -> bool:
        """Whether what is done at this interval of steps, and at the end, is due after the last step."""
        step = self.state.step
        return step == self.num_steps or bool(every and step and step % every == 0)

    def evaluates(self) -> bool:
        """Whether an evaluation is due after the last step: every checkpoint has one."""
        schedule = self.config.schedule
        return self.is_due(schedule.eval_every_steps) or self.is_due(schedule.save_every_steps)

    def owes_evaluation(self) -> bool:
        """Whether a stop came between the step that is resumed from and its evaluation."""
        return self.eval_split is not None and self.state.eval_loss is None and self.evaluates()

    def complete_step(self, progress: StepProgress) -> None:
        """Evaluate and save, where that is due after the last step."""
        if self.evaluates():
            self.evaluate(progress)
        if self.is_due(self.config.schedule.save_every_steps):
            self.save()

    def resume(self) -> bool:
        """Go back to the newest whole checkpoint. False when the run was already at its end."""
        MARKS.enter("resume")
        self.state = self.checkpoints.load_newest(self.engine, self.say)
        if self.checkpoints.commits:
            describe_run(self.config)  # now that it is known to be the same run
        if self.state.step >= self.num_steps and not self.owes_evaluation():
            self.say(f"the run is at its end, step {self.state.step}; nothing is left to do")
            return False
        self.say(f"going on after step {self.state.step}")
        if self.metrics:
            self.metrics.truncate_after(self.state.step)
        return True

    def build(self) -> None:
        """Ceilings, model, adapter, engine, and how many rows memory has room for."""
        MARKS.enter("load")
        self.meter.measure()
        built = build_model(self.config, self.world, self.manifest, self.memory, self.say)
        self.engine, self.adapter, self.flat = built.engine, built.adapter, built.flat
        self.fit = MemoryFit(
            self.config,
            self.world,
            self.engine,
            case=built.case,
            split=self.train_split,
            holds_for=setup_of(self.config, self.manifest, self.world.size),
            writes=self.checkpoints.commits,
            say=self.say,
        )
        MARKS.enter("search")
        self.fit.settle()
        self.lay_out()

    def lay_out(self) -> None:
        """Plan the steps in micro-batches of as many rows as memory has room for."""
        rows = self.fit.choice.rows
        if rows != self.plan.micro_batch_size:
            self.train_split = self.train_split.with_micro_batch_size(rows)
            self.plan = self.train_split.plan
        if self.eval_split is not None and (
            self.config.memory.target is not None or rows < self.eval_split.plan.micro_batch_size
        ):
            self.eval_split = self.eval_split.with_micro_batch_size(rows)
        self.meter.count_flops(self.fit.case, self.fit.choice.layers)
        write_prediction(self)

    def load_steps(self, split: PlannedSplit, start: int, end: int) -> StepLoader:
        """This rank's micro-batches of the steps from `start` to before `end`, laid out ahead where a thread can be."""
        pin = self.world.device.type == "cuda"
        depth = 0 if self.fit.memory.enforced and not pin else DEPTH
        return StepLoader(
            split.rows, split.plan, self.world.rank, start, end, flat=self.flat, pin=pin, depth=depth
        )

    def take_step(self, steps: StepSource, progress: StepProgress) -> None:
        """One optimizer step."""
        MARKS.enter("step")
        closely = self.meter.start_step()
        self.looks_closely = closely or self.world.device.type == "cpu"
        self.memory.start_step(self.state.step + 1, closely=closely)
        step, events = self.state.step, list[dict[str, Any]]()
        rate = learning_rate(step - self.state.skipped_steps, self.num_steps, self.config.optimizer)
        while (result := compute_step(self, steps, rate, events)) is None:
            self.lay_out()
            steps.restart(self.plan, step)
        measures = self.meter.end_step(step + 1, result)
        MARKS.end_step(step + 1, measures.rates.step_time_s, measures.rates.parts_s)
        self.memory.end_step()
        self.state = self.state.with_step(applied=result.applied, overflowed=result.overflowed)
        progress.advance(step + 1, result.loss, measures)
        events += self.tell_of_slow_ranks()
        write_step(self, rate, result, measures, events)
        self.skips_in_a_row = 0 if result.applied else self.skips_in_a_row + 1
        if not result.applied:
            self.skip(step, result)
        if result.stop:
            raise StopRequestedError(result.stop)

    def tell_of_slow_ranks(self) -> list[dict[str, Any]]:
        """Say which ranks the guardians have found slow since the last step, and return that as events."""
        events = MARKS.take_events()
        for event in events:
            self.say(event["message"])
        return events

    def skip(self, step: int, result: StepResult) -> None:
        """Say that a step was left out, and stop when too many in a row were.

        Raises:
            TrainingError: They were; the state is saved.
        """
        limit = self.config.schedule.max_skipped_steps
        self.say(f"step {step + 1} left out: {result.reason}{name_rows(self.plan, step, result.faults)}")
        if self.skips_in_a_row < limit:
            return
        self.stop(f"{limit} steps in a row were left out, the last one because {result.reason}")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of a step and, where it is a phase too, profile its memory, in the steps that are looked at."""
        MARKS.beat()
        with self.recorder.part(name), self.meter.clock.part(cast("Part", name)):
            if name not in PHASES or not (self.looks_closely or name in APART):
                yield
            else:
                with self.memory.phase(name):
                    yield

    def evaluate(self, progress: StepProgress) -> None:
        """Loss on the eval split."""
        if self.eval_split is None:
            return
        MARKS.enter("eval")
        tasks = self.manifest.tasks
        started_s = time.perf_counter()
        while (found := compute_eval(self, self.eval_split)) is None:
            rows = self.eval_split.plan.micro_batch_size // 2
            self.eval_split = self.eval_split.with_micro_batch_size(rows)
        loss, by_task, supervised = found
        if not supervised:
            return
        self.state = self.state.with_eval(loss)
        if not np.isfinite(loss):
            self.stop(f"the eval loss is {loss}")
        progress.note_eval(self.state.step, loss)
        if self.metrics:
            named = {task: value for task, value in zip(tasks, by_task, strict=True) if np.isfinite(value)}
            self.metrics.write_eval(self.state.step, loss, named, supervised, time.perf_counter() - started_s)

    def stop(self, reason: str) -> NoReturn:
        """End a run that has diverged: its state is saved beside the checkpoints that it had, none is pruned.

        Raises:
            TrainingError: Always.
        """
        self.save(prunes=False)
        self.checkpoints.wait()
        write_tables(self, self.state.best_step)
        saved = self.checkpoints.path_of(self.state.step)
        raise TrainingError(
            f"step {self.state.step}: {reason}. The state is saved in {saved}; --resume goes on from there. If its "
            "weights have diverged, remove that folder, and --resume goes on from the checkpoint before it; "
            "optimizer.learning_rate may be lowered then"
        )

    def save(self, *, prunes: bool = True) -> None:
        """Begin a checkpoint, and count it as the best one if its eval loss is the lowest so far."""
        MARKS.enter("save")
        self.state = self.state.with_best()
        with self.part("save"):
            weights = gather_adapter(self.engine, self.adapter)
            if self.checkpoints.commits:  # a copy, for training goes on while it is written
                weights = {name: weight.clone() for name, weight in weights.items()}
            self.checkpoints.save(
                self.engine,
                self.state,
                lambda folder: save_adapter(folder, self.adapter, weights),
                prunes=prunes,
            )

    def publish(self) -> int:
        """Put the best checkpoint's adapter where users look for it, and return its step."""
        best = self.state.best_step if self.state.best_step is not None else self.state.step
        source = self.checkpoints.path_of(best) / "adapter"
        if self.checkpoints.commits:
            run_together(lambda: publish_adapter(self.config.output_dir, source))
        else:
            run_together(lambda: None)
        return best

    def finish(self) -> None:
        """Publish the best checkpoint's adapter and print where the time and the memory went."""
        MARKS.enter("save")
        with self.part("save"):
            self.checkpoints.wait()
        MARKS.enter("finish")
        best = self.publish()
        write_tables(self, best)
        self.say(f"adapter of step {best}: {self.config.output_dir / 'adapter'}")

    def say(self, line: str) -> None:
        """A line on rank 0's terminal."""
        if self.world.is_main:
            self.console.print(line, highlight=False)
