"""Runs the jobs of `bench.gpu` in a process of their own, within a time, and starts another one when it is lost."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import IO, Any

from bench.gpu_jobs import PLAN, Job, Result, Setting
from bench.machine import ROOT

ANSWER = "ANSWER "
"""What an answer's line starts with; other lines of standard output are some library's."""

START_S = 120.0
"""Longest that a process may take until it has its card and its rows."""


class Worker:
    """A process that measures; see `bench.gpu_worker`."""

    def __init__(self, setting: Setting) -> None:
        # One process fills a card: blocks that can grow leave less of it in pieces.
        env = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.gpu_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._send(json.dumps(asdict(setting)))

    def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        for line in stdout:
            if line.startswith(ANSWER):
                self.lines.put(line.removeprefix(ANSWER))
        self.lines.put(None)

    def _send(self, line: str) -> None:
        stdin: IO[str] | None = self.process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, which the missing answer will tell
            stdin.write(line + "\n")
            stdin.flush()

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next answer; None when the process has ended.

        Raises:
            TimeoutError: It took longer.
        """
        try:
            line = self.lines.get(timeout=max(seconds, 0.0))
        except queue.Empty as error:
            raise TimeoutError from error
        return None if line is None else json.loads(line)

    def ask(self, job: Job, seconds: float) -> dict[str, Any] | None:
        """Have a job measured; see `receive`."""
        self._send(json.dumps(asdict(job)))
        return self.receive(seconds)

    def stop(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.kill()
        self.process.wait()


def run_jobs(
    jobs: Sequence[Job], setting: Setting, deadline: float, start: Callable[[], Worker]
) -> tuple[list[Result], dict[str, Any]]:
    """Measure jobs until the deadline; a process that dies or takes too long is replaced.

    Args:
        jobs: In the order of importance.
        setting: Shared by all.
        deadline: On the clock of `time.monotonic`.
        start: Starts a process.

    Returns:
        A result for each job, and the card as the first process described it.
    """
    worker: Worker | None = None
    card: dict[str, Any] = {}
    results: list[Result] = []
    try:
        for job in jobs:
            if deadline - time.monotonic() <= 0:
                results.append(Result(job.name, "not reached", "the time was up"))
                continue
            if worker is None:
                worker = start()
                try:
                    found = worker.receive(min(START_S, deadline - time.monotonic()))
                except TimeoutError:
                    found = None
                if found is None:
                    worker.stop()
                    worker = None
                    results.append(Result(job.name, "error", "the measuring process did not start"))
                    continue
                card = card or found
            result, alive = ask(worker, with_hint(job, results), deadline)
            results.append(result)
            if not alive:
                worker.stop()
                worker = None
    finally:
        if worker is not None:
            worker.stop()
    return results, card


def ask(worker: Worker, job: Job, deadline: float) -> tuple[Result, bool]:
    """One job's result, and whether the process is still of use."""
    try:
        found = worker.ask(job, deadline - time.monotonic())
    except TimeoutError:
        return Result(job.name, "out of time", "stopped when the time was up"), False
    if found is None:
        return Result(job.name, "error", "the measuring process died"), False
    return Result(**found), True


def with_hint(job: Job, results: Sequence[Result]) -> Job:
    """A compiled job with the rows of its uncompiled sister: looking for them would compile again and again."""
    sister = next((one for one in PLAN if one == replace(job, name=one.name, compile=False)), None)
    if not job.compile or job.rows is not None or sister is None:
        return job
    rows = next((one.rows for one in results if one.name == sister.name and one.rows), None)
    return replace(job, rows=rows)
