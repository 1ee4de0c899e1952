"""Signals and losses in a real training: what the ranks agree on, what is saved, what can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from harness.step import StepTally, read_stop, stop_flags
from preprocess.errors import StoppedError
from tests.guarded import REPOSITORY, free_port, wait_for
from tests.runs import make_config, read_metrics
from tests.toys import make_dataset, make_model_dir, make_tokenizer


@pytest.mark.parametrize(
    ("of_ranks", "expected"),
    [((0, 0, 0), 0), ((0, 15, 0), 15), ((15, 15, 15), 15), ((15, 0, 2), 2), ((2, 2, 0), 2)],
)
def test_all_ranks_read_the_same_stop_from_the_steps_sums(of_ranks: Sequence[int], expected: int) -> None:
    total = torch.zeros(())
    for rank, stop in enumerate(of_ranks):
        tally = StepTally(2, torch.device("cpu"), 1, stop=stop)
        total = total + tally.to_vector(torch.tensor(1.0), rank, len(of_ranks))
    sums = StepTally(2, torch.device("cpu"), 1).read(total, len(of_ranks))
    assert sums.stop == expected
    assert sums.ran_out == ()
    assert sums.faults == ()


def test_a_stop_has_the_shells_exit_code() -> None:
    assert StoppedError("stopped", signal.SIGTERM).exit_code == 143
    assert StoppedError("stopped", signal.SIGINT).exit_code == 130
    assert read_stop(stop_flags(0).tolist()) == 0


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    tokenizer = make_tokenizer("chatml")
    make_dataset(folder / "data", tokenizer=tokenizer)
    make_model_dir(folder / "model", tokenizer.vocab_size, tokenizer=tokenizer)
    return folder


@contextmanager
def train(config: Path, *arguments: str, num_ranks: int = 3) -> Iterator[list[subprocess.Popen[str]]]:
    """Ranks of a real training on this machine, without a launcher."""
    common = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "harness.train", "--config", str(config), *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def finish(processes: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def has_trained(run_dir: Path) -> bool:
    path = run_dir / "metrics.jsonl"
    return path.exists() and path.read_text().count("\n") >= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "rank", "number", "code"),
    [("zero1", 1, signal.SIGTERM, 143), ("zero3", 0, signal.SIGINT, 130)],
)
def test_a_signal_to_a_rank_saves_and_the_run_goes_on_to_its_end(
    toys: Path, stage: str, rank: int, number: int, code: int
) -> None:
    run_dir = toys / f"run-{stage}"
    overrides = [f"deepspeed={stage}", "schedule.max_steps=100000", "schedule.epochs=100000"]
    config = make_config(toys, run_dir, toys / "data", toys / "model", overrides)
    with train(config) as ranks:
        wait_for(lambda: has_trained(run_dir), 120)
        began_s = time.monotonic()
        ranks[rank].send_signal(number)
        codes, outputs = finish(ranks)
        print(f"{signal.Signals(number).name} in a step: all ended after {time.monotonic() - began_s:.1f} s")
    assert codes == [code] * 3, outputs
    (saved,) = run_dir.glob("checkpoint-*")
    step = int(saved.name.removeprefix("checkpoint-"))
    assert f"after step {step} of 100000, which is saved" in outputs[0]
    assert read_metrics(run_dir)[-1]["step"] == step
    assert not (run_dir / "logs" / "verdict.json").exists()
    with train(config, "--resume", "--set", f"guard.min_timeout_s={20}") as ranks:
        wait_for(lambda: read_metrics(run_dir)[-1]["step"] > step, 120)
        os.kill(ranks[2].pid, signal.SIGKILL)
        codes, outputs = finish(ranks)
    assert codes == [6, 6, -signal.SIGKILL], outputs
    assert "error: lost: rank 2" in outputs[0]
    assert f"going on after step {step}" in outputs[0]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["zero1", "zero3"])
def test_a_signal_in_a_long_evaluation_leaves_it_and_saves(toys: Path, stage: str) -> None:
    run_dir = toys / f"eval-{stage}"
    long = toys / "long"
    if not long.exists():
        tokenizer = make_tokenizer("chatml")
        make_dataset(long, tokenizer=tokenizer, num_songs=12, num_eval_songs=3000, rows_per_shard=500)
    overrides = [f"deepspeed={stage}", "schedule.eval_every_steps=3", "data.verify_hashes=false"]
    config = make_config(toys, run_dir, long, toys / "model", overrides)
    with train(config) as ranks:
        wait_for(lambda: (run_dir / "metrics.jsonl").exists() and len(read_metrics(run_dir)) >= 3, 150)
        ranks[2].send_signal(signal.SIGTERM)
        codes, outputs = finish(ranks)
    assert codes == [143] * 3, outputs
    assert [path.name for path in run_dir.glob("checkpoint-*")] == ["checkpoint-3"]
    assert [line["kind"] for line in read_metrics(run_dir)] == ["train"] * 3


@pytest.mark.slow
def test_a_signal_while_a_model_loads_ends_all_ranks_with_its_code(toys: Path) -> None:
    run_dir = toys / "early"
    config = make_config(toys, run_dir, toys / "data", toys / "model", ["schedule.epochs=100000"])
    with train(config) as ranks:
        wait_for(lambda: (run_dir / "logs" / "rank-0.log").exists(), 120)
        ranks[1].send_signal(signal.SIGTERM)
        codes, outputs = finish(ranks)
    assert codes == [143] * 3, outputs
    assert not any("Traceback" in output for output in outputs)
