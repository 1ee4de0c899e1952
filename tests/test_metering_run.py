"""The meter of real runs on three ranks: against a count by hand, against another clock, and with planted delays."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
import torch
from rich.console import Console

import harness.loader
import harness.redo
from harness.config import RunConfig, load_run_config
from harness.dist import World
from harness.flops import count_step_flops
from harness.linear_flops import LoraShape
from harness.loss import ForestLanguageModel
from harness.metering.ceilings import read_ceilings
from harness.planning.model_files import find_model_shape
from harness.splits import open_data
from harness.train import train
from tests.dist_ranks import run_ranks
from tests.runs import make_config, read_metrics
from tests.toys import make_dataset, make_model_dir, make_tokenizer

RANKS = 3
DELAY_S = 0.8
STEP_PARTS = ("data", "forward", "loss", "backward", "wait", "communication", "optimizer", "other")


@contextmanager
def delayed(where: str) -> Iterator[None]:
    """Plant a delay: in every rank's loader, or in the forward passes of rank 1; one a step."""
    load, forward = harness.loader.load_step, ForestLanguageModel.hidden_states

    def load_late(*arguments: Any, **options: Any) -> Any:
        time.sleep(DELAY_S)
        return load(*arguments, **options)

    def forward_late(self: ForestLanguageModel, batch: Any) -> torch.Tensor:
        time.sleep(DELAY_S if self.training and os.environ["RANK"] == "1" else 0.0)
        return forward(self, batch)

    with ExitStack() as stack:
        if where == "loader":
            # Not a step ahead in a thread, where a delay hides behind a step that takes as long.
            stack.enter_context(patch("harness.run.DEPTH", 0))
            stack.enter_context(patch("harness.loader.load_step", load_late))
        if where == "forward":
            stack.enter_context(patch.object(ForestLanguageModel, "hidden_states", forward_late))
        yield


def train_and_look(runs: dict[str, Path]) -> list[float]:
    """Train with a delay in each run but the one without a name; the seconds that this rank saw in that one's steps."""
    seen: list[float] = []
    compute = harness.redo.compute_step

    def compute_watched(*arguments: Any) -> Any:
        started = time.perf_counter()
        result = compute(*arguments)
        seen.append(time.perf_counter() - started)
        return result

    for where, path in runs.items():
        watch = patch("harness.run.compute_step", compute_watched if where == "none" else compute)
        with watch, delayed(where):
            train(load_run_config(path), Console(quiet=True))
    return seen


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metering")
    make_dataset(folder / "data", num_songs=60, seq_len=256, num_eval_songs=0)
    make_model_dir(folder / "model", make_tokenizer().vocab_size)
    return folder


@pytest.fixture(scope="module")
def seen(root: Path) -> list[list[float]]:
    """Rows of different lengths beside each other (padding), 13 a step over three ranks, two in a micro-batch; and two
    runs of one micro-batch a step with a delay. The seconds of the first one's steps, by rank."""
    plain = make_config(
        root,
        root / "none",
        root / "data",
        root / "model",
        [
            "model.attention=sdpa",
            "model.recompute_layers=1",
            "deepspeed=zero1",
            "batch.micro_batch_size=2",
            "batch.global_batch_size=13",
            "schedule.max_steps=3",
            "tensorboard=true",
        ],
    )
    late = ["deepspeed=zero0", "batch.global_batch_size=3", "schedule.max_steps=3"]
    runs = {"none": plain}
    for where in ("loader", "forward"):
        runs[where] = make_config(root, root / where, root / "data", root / "model", late)
    return run_ranks(train_and_look, RANKS, runs, timeout_s=300)


def lines_of(root: Path, run: str, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(root / run) if line["kind"] == kind]


# The count by hand


def read_rows(folder: Path) -> list[dict[str, list[Any]]]:
    """A split's rows as the shards hold them: the four arrays of each, as plain lists."""
    rows: list[dict[str, list[Any]]] = []
    for path in sorted(folder.glob("*.arrow")):
        with pa.ipc.open_stream(path) as stream:
            rows += stream.read_all().select(["input_ids", "label_mask", "seq_lens", "parents"]).to_pylist()
    return rows


def count_by_hand(batches: list[list[dict[str, list[Any]]]]) -> dict[str, int]:
    """Counts of some micro-batches, each a list of rows that lie beside each other, padded to the longest.

    A rank without a row left takes part in a micro-step with one slot of padding.
    """
    found = dict.fromkeys(("rows", "examples", "tokens", "supervised_tokens", "slots", "attention_pairs"), 0)
    found["dense_pairs"] = 0
    for rows in batches:
        longest = max((len(row["input_ids"]) for row in rows), default=1)
        found["slots"] += longest * max(len(rows), 1)
        found["dense_pairs"] += longest * longest * max(len(rows), 1)
        for row in rows:
            found["rows"] += 1
            found["tokens"] += len(row["input_ids"])
            found["supervised_tokens"] += sum(row["label_mask"])
            start = 0
            for length, parent in zip(row["seq_lens"], row["parents"], strict=True):
                before, ancestor = 0, parent
                while ancestor >= 0:
                    before += row["seq_lens"][ancestor]
                    ancestor = row["parents"][ancestor]
                for place in range(length):
                    found["attention_pairs"] += before + place + 1
                found["examples"] += any(row["label_mask"][start : start + length])
                start += length
    return found


def batches_of_step(config: RunConfig, rows: list[Any], step: int, rank: int) -> list[list[Any]]:
    """What a rank is given in a step, by the plan of its batches."""
    _, split, _ = open_data(config, World(rank, RANKS, rank, torch.device("cpu")))
    return [[rows[int(index)] for index in part] for part in split.plan.rows_of_rank(step, rank)]


def step_batches(root: Path, step: int) -> list[list[list[Any]]]:
    config = load_run_config(root / "none.yaml")
    rows = read_rows(root / "data" / "train")
    return [batches_of_step(config, rows, step, rank) for rank in range(RANKS)]


def test_the_run_has_padding_shared_prefixes_accumulation_and_uneven_ranks(
    root: Path, seen: list[list[float]]
) -> None:
    by_rank = step_batches(root, 0)
    assert len({len(batches) for batches in by_rank}) == 1
    assert len(by_rank[0]) > 1
    assert len({sum(map(len, batches)) for batches in by_rank}) > 1
    all_batches = list(chain.from_iterable(by_rank))
    assert [] in all_batches
    count = count_by_hand(all_batches)
    assert count["tokens"] < count["slots"]
    assert any(parent >= 0 for rows in all_batches for row in rows for parent in row["parents"])


def test_every_count_of_a_step_is_the_count_by_hand_to_the_last_token(
    root: Path, seen: list[list[float]]
) -> None:
    lines = lines_of(root, "none", "train")
    assert len(lines) == 3
    for step, line in enumerate(lines):
        count = count_by_hand(list(chain.from_iterable(step_batches(root, step))))
        assert {key: line[key] for key in count if key != "dense_pairs"} == {
            key: value for key, value in count.items() if key != "dense_pairs"
        }
        assert line["samples_per_s"] == count["examples"] / line["step_time_s"]
        assert line["rows_per_s"] == count["rows"] / line["step_time_s"]
        assert line["tokens_per_s"] == count["tokens"] / line["step_time_s"]
        assert line["supervised_tokens_per_s"] == count["supervised_tokens"] / line["step_time_s"]
        assert line["slots_per_s"] == count["slots"] / line["step_time_s"]
        assert line["tokens_per_example"] == count["tokens"] / count["examples"]


def test_a_count_that_takes_padding_for_tokens_or_repeats_prefixes_would_be_noticed(
    root: Path, seen: list[list[float]]
) -> None:
    line = lines_of(root, "none", "train")[0]
    batches = list(chain.from_iterable(step_batches(root, 0)))
    count = count_by_hand(batches)
    assert line["tokens"] != count["slots"]
    unshared = 0
    for row in (row for rows in batches for row in rows):
        for length, parent in zip(row["seq_lens"], row["parents"], strict=True):
            unshared += length + (row["seq_lens"][parent] if parent >= 0 else 0)
    assert line["tokens"] != unshared
    alone = count_by_hand(step_batches(root, 0)[0])
    assert line["tokens"] != RANKS * alone["tokens"]


def test_the_flops_of_a_step_are_those_of_the_count_by_hand(root: Path, seen: list[list[float]]) -> None:
    config = load_run_config(root / "none.yaml")
    shape, _ = find_model_shape(config.model.path)
    line = lines_of(root, "none", "train")[1]
    count = count_by_hand(list(chain.from_iterable(step_batches(root, 1))))
    flops = count_step_flops(
        shape,
        LoraShape(config.lora.r, config.lora.targets),
        tokens=count["tokens"],
        attention_pairs=count["attention_pairs"],
        supervised_tokens=count["supervised_tokens"],
        recompute_layers=1,
        attention="sdpa",
        slots=count["slots"],
        computed_pairs=count["dense_pairs"],
    )
    assert line["model_flops"] == flops.model.total
    assert line["hardware_flops"] == flops.hardware.total
    ceilings = read_ceilings(root / "none" / "ceilings.json")
    possible = ceilings.matmul_flops_per_s * line["step_time_s"]
    assert line["mfu_of_ceiling"] == pytest.approx(flops.model.total / possible)
    assert (line["mfu"], line["hfu"]) == (None, None)


# Parts and ranks


def test_the_parts_of_a_step_add_up_to_it_on_every_rank_and_to_what_a_second_clock_saw(
    root: Path, seen: list[list[float]]
) -> None:
    lines = lines_of(root, "none", "ranks")
    assert [line["step"] for line in lines] == [1, 2, 3]
    apart = []
    for rank in range(RANKS):
        for line, seconds in zip(lines, seen[rank], strict=True):
            total = sum(line["parts_s"][part][rank] for part in STEP_PARTS)
            assert total == pytest.approx(line["step_time_s"][rank], rel=0.02)
            apart.append(abs(total - seconds) / seconds)
    # The median: between the two clocks' readings a busy machine may put the process aside.
    assert statistics.median(apart) < 0.02


def test_the_first_rank_says_of_itself_what_the_ranks_line_says_of_it(
    root: Path, seen: list[list[float]]
) -> None:
    for line, ranks in zip(lines_of(root, "none", "train"), lines_of(root, "none", "ranks"), strict=True):
        assert line["step_time_s"] == ranks["step_time_s"][0]
        assert {part: line["parts_s"][part] for part in STEP_PARTS} == {
            part: ranks["parts_s"][part][0] for part in STEP_PARTS
        }


def test_the_summary_has_totals_by_rank_hosts_and_shares(root: Path, seen: list[list[float]]) -> None:
    (summary,) = lines_of(root, "none", "summary")
    ranks = lines_of(root, "none", "ranks")
    assert len(summary["hosts"]) == RANKS
    assert summary["by_rank"]["steps"] == 2
    for part in STEP_PARTS:
        for rank in range(RANKS):
            expected = sum(line["parts_s"][part][rank] for line in ranks[1:])
            assert summary["by_rank"]["parts_s"][part][rank] == pytest.approx(expected)
    lines = lines_of(root, "none", "train")[1:]
    assert summary["model_flops"] == sum(line["model_flops"] for line in lines)
    assert summary["mfu"] is None
    assert summary["energy_j"] is None or summary["joules_per_example"] > 0
    left = [line["eta_s"] for line in lines_of(root, "none", "train")]
    assert left[0] > left[-1]


def test_ceilings_of_every_rank_and_of_the_link_lie_beside_the_run(
    root: Path, seen: list[list[float]]
) -> None:
    ceilings = read_ceilings(root / "none" / "ceilings.json")
    assert [one.rank for one in ceilings.ranks] == [0, 1, 2]
    assert {one.matmul_dtype for one in ceilings.ranks} == {"fp32"}
    assert ceilings.allreduce_gbps is not None
    assert ceilings.allreduce_gbps > 0
    assert ceilings.allreduce_latency_s is not None
    assert json.loads((root / "none" / "ceilings.json").read_text())["format_version"] == 1


def typical(root: Path, run: str) -> dict[str, list[float]]:
    """Seconds of a step by part and rank, the median of the run's steps but the first."""
    lines = lines_of(root, run, "ranks")[1:]
    return {
        part: [statistics.median(line["parts_s"][part][rank] for line in lines) for rank in range(RANKS)]
        for part in STEP_PARTS
    }


def least(root: Path, run: str) -> dict[str, list[float]]:
    """The same, the least: what a busy machine adds is in some steps only."""
    lines = lines_of(root, run, "ranks")[1:]
    return {
        part: [min(line["parts_s"][part][rank] for line in lines) for rank in range(RANKS)]
        for part in STEP_PARTS
    }


def test_a_slow_loader_shows_as_data_and_nowhere_else(root: Path, seen: list[list[float]]) -> None:
    assert max(typical(root, "loader")["data"]) > DELAY_S / 2
    found = least(root, "loader")
    for part in STEP_PARTS:
        if part not in ("data", "wait"):  # ranks end their delays at different moments, and wait for the last
            assert max(found[part]) < DELAY_S / 2, part
    assert max(least(root, "forward")["data"]) < DELAY_S / 2


def test_a_slow_rank_shows_as_waiting_on_the_others_and_nowhere_else(
    root: Path, seen: list[list[float]]
) -> None:
    usual, found = typical(root, "forward"), least(root, "forward")
    assert usual["forward"][1] >= DELAY_S
    assert min(usual["wait"][0], usual["wait"][2]) > DELAY_S / 2
    assert found["wait"][1] < DELAY_S / 2
    for part in STEP_PARTS:
        for rank in range(RANKS):
            if (part, rank) not in (("forward", 1), ("wait", 0), ("wait", 2)):
                assert found[part][rank] < DELAY_S / 2, (part, rank)
