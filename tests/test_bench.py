"""The benchmarks' statistics, records and checks. No test looks at how long anything took."""

from __future__ import annotations

import json
import math
import platform
import weakref
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import bench.__main__ as command_line
from bench import loader, machine, pack, prefix
from bench.material import make_byte_tokenizer, make_rows
from bench.record import (
    FORMAT_VERSION,
    MAX_VALUES,
    Outcome,
    WrongResultError,
    append_record,
    compare,
    costs,
    make_record,
    rates,
    summarize,
    time_in_turns,
    to_line,
)
from harness.data import collate
from preprocess.build.pack import pack_lengths
from preprocess.forest import PackedRow, unpack_examples
from preprocess.schema import ROOT

KEYS = {
    "format_version",
    "name",
    "question",
    "baseline",
    "command",
    "commit",
    "versions",
    "machine",
    "load_average",
    "load_average_at_end",
    "recorded_at",
    "figures",
    "ratios",
    "facts",
}
OLD_KEYS = KEYS - {"load_average_at_end", "recorded_at"}
FIGURE_KEYS = {"unit", "median", "p20", "p80", "n", "values"}
MACHINE_KEYS = {"cpu", "cores", "threads", "usable_threads", "ram_gib"}
VERSION_KEYS = {"python", "torch", "deepspeed", "transformers", "tokenizers", "numpy", "datasets", "pyarrow"}

TINY = replace(prefix.QUICK, num_songs=1, num_layers=1)


class Clock:
    """A clock that stands still unless work pushes it on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: list[float]) -> Callable[[], float]:
        """Work that takes the next of some durations each time."""
        left = iter(seconds)

        def run() -> float:
            self.now += (duration := next(left))
            return duration

        return run


def test_a_figure_is_the_median_and_two_percentiles() -> None:
    figure = summarize([5.0, 1.0, 2.0, 4.0, 3.0, 6.0], "s")
    assert (figure.p20, figure.median, figure.p80, figure.n, figure.unit) == (2.0, 3.5, 5.0, 6, "s")
    assert summarize([7.0], "s").p20 == summarize([7.0], "s").p80 == 7.0


def test_a_figure_keeps_its_values_in_order_and_not_too_many_of_them() -> None:
    assert summarize([2.0, 1.0, 1 / 3], "s").values == (2.0, 1.0, 0.3333333)
    many = summarize([float(value) for value in range(1, 10_001)], "s")
    assert (many.n, len(many.values), many.values[0], many.values[-1]) == (10_000, MAX_VALUES, 1.0, 10_000.0)
    steps = np.diff(many.values)
    assert steps.min() >= 25
    assert steps.max() <= 26


def test_an_outlier_does_not_move_the_median() -> None:
    assert summarize([1.0, 1.0, 1.0, 900.0], "s").median == 1.0


def test_a_figure_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarize([], "s")


def test_rates_and_costs_are_inverse_to_each_other() -> None:
    assert rates([2.0, 4.0], 8) == [4.0, 2.0]
    assert costs([2.0, 4.0], 8) == [250_000.0, 500_000.0]


def test_a_ratio_above_one_means_faster_than_the_baseline() -> None:
    assert compare([4.0, 4.0], [1.0, 2.0]).median == 3.0
    assert compare([1.0], [4.0]).median == 0.25
    assert compare([1.0], [1.0]).unit == "x"


def test_a_load_that_hits_a_turn_of_both_ways_leaves_the_ratio_as_it_is() -> None:
    assert compare([4.0, 40.0, 4.0], [2.0, 20.0, 2.0]) == compare([4.0] * 3, [2.0] * 3)


def test_ratios_of_other_numbers_of_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare([1.0, 2.0], [1.0])


def test_ways_take_turns_and_warm_ups_are_not_counted() -> None:
    clock, order = Clock(), []
    work = {"a": clock.work([50.0, 1.0, 2.0]), "b": clock.work([90.0, 3.0, 4.0])}

    def logged(name: str) -> float:
        order.append(name)
        return work[name]()

    turns = time_in_turns({"a": lambda: logged("a"), "b": lambda: logged("b")}, 2, clock=clock)
    assert order == ["a", "b"] * 3
    assert turns.seconds == {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    assert turns.results == {"a": 2.0, "b": 4.0}


def test_the_last_result_is_freed_before_the_clock_starts() -> None:
    made: list[weakref.ref[Clock]] = []
    alive: list[int] = []

    def clock() -> float:
        alive.append(sum(reference() is not None for reference in made))
        return 0.0

    def run() -> Clock:
        result = Clock()
        made.append(weakref.ref(result))
        return result

    time_in_turns({"a": run}, 2, clock=clock)
    assert alive == [0, 1] * 3


def make_outcome(value: float = 2.0) -> Outcome:
    return Outcome("old", {"new_s": summarize([value], "s")}, {"new": compare([4.0], [2.0])}, {"items": 3})


def test_a_record_is_one_line_of_json_with_every_key() -> None:
    record = make_record(
        "demo", "How?", make_outcome(), "python -m bench demo", machine.describe_surroundings()
    )
    line = to_line(record)
    assert "\n" not in line
    assert json.loads(line) == json.loads(json.dumps(record))
    assert set(record) == KEYS
    assert set(record["machine"]) == MACHINE_KEYS
    assert set(record["versions"]) == VERSION_KEYS
    assert record["format_version"] == FORMAT_VERSION


def test_a_record_with_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_line(make_record("demo", "How?", make_outcome(math.nan), "", {}))


def test_appending_keeps_earlier_records(tmp_path: Path) -> None:
    path = tmp_path / "results" / "demo.jsonl"
    for number in (1, 2):
        append_record(path, {"run": number})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"run": 1}, {"run": 2}]


def test_a_missing_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "no-such-package-anywhere"))
    versions = machine.list_versions()
    assert versions["numpy"] == np.__version__
    assert versions["no-such-package-anywhere"] is None


def test_the_processor_is_read_from_cpuinfo(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz: fast\n")
    assert machine.read_cpu_model(path) == "Some CPU @ 2 GHz: fast"
    path.write_text("processor : 0\n")
    assert machine.read_cpu_model(path) == platform.machine()


def test_there_is_no_commit_outside_git(tmp_path: Path) -> None:
    assert machine.find_commit(tmp_path) is None


@pytest.fixture(scope="module")
def shared() -> list[PackedRow]:
    return make_rows(make_byte_tokenizer(), 1, TINY.seq_len, length="short")


@pytest.fixture(scope="module")
def separate() -> list[PackedRow]:
    return make_rows(make_byte_tokenizer(), 1, TINY.seq_len, share_prefix=False, length="short")


def test_both_ways_hold_the_same_examples(shared: list[PackedRow], separate: list[PackedRow]) -> None:
    def examples(rows: list[PackedRow]) -> list[tuple[list[int], list[bool]]]:
        alone = [example for row in rows for example in unpack_examples(row)]
        return sorted((example.input_ids.tolist(), example.label_mask.tolist()) for example in alone)

    assert examples(shared) == examples(separate)
    assert prefix.count_tokens(shared) < prefix.count_tokens(separate)
    assert prefix.count_examples(shared, separate) == 5
    with pytest.raises(WrongResultError, match="examples"):
        prefix.count_examples(shared, separate[:1])


def test_both_ways_have_one_loss_and_a_lost_prefix_is_noticed(
    shared: list[PackedRow], separate: list[PackedRow]
) -> None:
    model = prefix.make_model(TINY)

    def loss(rows: list[PackedRow]) -> float:
        return prefix.mean_loss_and_gradient(model, [collate([prefix.fold_ids(row)]) for row in rows])

    expected = loss(separate)
    prefix.check_losses(loss(shared), expected)
    orphans = [replace(row, parents=np.full_like(row.parents, ROOT)) for row in shared]
    with pytest.raises(WrongResultError, match="mean token loss"):
        prefix.check_losses(loss(orphans), expected)


def test_a_loss_that_is_no_number_is_noticed() -> None:
    prefix.check_losses(1.0, 1.0 + 5e-6)
    with pytest.raises(WrongResultError):
        prefix.check_losses(math.nan, math.nan)


def test_the_head_of_the_full_size_model_is_about_an_eighth_of_its_weights() -> None:
    causal = prefix.make_model(prefix.FULL).causal
    base = {name: weight.numel() for name, weight in causal.named_parameters() if "lora" not in name}
    head = next(count for name, count in base.items() if "embed_tokens" in name)
    assert 0.10 < head / sum(base.values()) < 0.14


def test_best_fit_by_item_takes_the_fullest_bin_that_fits() -> None:
    lengths = [3, 6, 2, 5, 4]
    packed = [sorted(lengths[item] for item in bin_) for bin_ in pack.pack_by_item(lengths, 10)]
    assert sorted(packed) == [[2, 3, 5], [4, 6]]
    assert pack.pack_by_item([], 10) == []


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([[0, 1]], "2 of 3 items"),
        ([[0, 1], [1]], "1 more than once"),
        ([[0, 1, 2]], "a bin holds 12 of 10"),
    ],
)
def test_a_wrong_packing_is_noticed(bins: list[list[int]], message: str) -> None:
    lengths = np.array([4, 6, 2], dtype=np.int64)
    assert pack.fill([[0, 1], [2]], lengths, 10) == 0.6
    with pytest.raises(WrongResultError, match=message):
        pack.fill(bins, lengths, 10)


def test_drawn_lengths_look_like_songs_and_fit_a_row() -> None:
    lengths = pack.draw_lengths(20_000)
    assert lengths.min() >= 16
    assert lengths.max() <= pack.CAPACITY
    assert 380 < np.median(lengths) < 420
    assert lengths.tolist() == pack.draw_lengths(20_000).tolist()


def test_every_reader_gives_the_rows_that_were_written(tmp_path: Path, shared: list[PackedRow]) -> None:
    results = loader.time_reading(tmp_path / "train", shared, 1).results
    for way in (loader.DATASETS, loader.DATASETS_NUMPY):
        loader.check_rows(results[loader.MEMORY_MAP], results[way])
    by_order = sorted(results[loader.MEMORY_MAP], key=lambda row: row.input_ids.tolist())
    loader.check_rows(by_order, sorted(shared, key=lambda row: row.input_ids.tolist()))


def test_a_reader_that_reads_something_else_is_noticed(shared: list[PackedRow]) -> None:
    flipped = replace(shared[0], label_mask=~shared[0].label_mask)
    renamed = replace(shared[0], song_ids=("another",) * len(shared[0].song_ids))
    for wrong in (flipped, renamed):
        with pytest.raises(WrongResultError, match="row 0"):
            loader.check_rows([wrong], shared[:1])


@pytest.mark.parametrize("name", command_line.PROGRAMS)
def test_every_program_can_be_run(name: str) -> None:
    assert callable(import_module(f"bench.{name}").measure)
    assert command_line.PROGRAMS[name].endswith("?")


def run_bench(*arguments: str) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, standard error."""
    result = CliRunner().invoke(command_line.app, list(arguments))
    return result.exit_code, result.stdout.splitlines(), result.stderr


def test_without_a_name_the_questions_are_listed() -> None:
    code, lines, _ = run_bench()
    assert code == 0
    assert [line.split()[0] for line in lines] == list(command_line.PROGRAMS)
    code, lines, _ = run_bench("--json")
    assert json.loads(lines[0]) == command_line.PROGRAMS


def test_an_unknown_program_is_refused_with_the_known_ones() -> None:
    code, lines, message = run_bench("prefixes")
    assert (code, lines) == (2, [])
    assert "prefix, pack, loader" in message


def test_a_quick_run_ends_with_its_record_and_keeps_it_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "RESULTS", tmp_path)
    code, lines, _ = run_bench("pack", "--quick", "--record")
    assert code == 0
    record: dict[str, Any] = json.loads(lines[-1])
    assert len(lines) > 5
    assert set(record) == KEYS
    assert record["command"] == "python -m bench pack --quick"
    for figure in [*record["figures"].values(), *record["ratios"].values()]:
        assert set(figure) == FIGURE_KEYS
        assert 0 < figure["p20"] <= figure["median"] <= figure["p80"]
    assert record["baseline"] == "by_item"
    assert set(record["ratios"]) == {"by_counts", "by_counts_all", "evened_all"}
    assert (tmp_path / "pack.jsonl").read_text().splitlines() == [lines[-1]]


def test_packing_by_counts_is_fuller_than_packing_by_item() -> None:
    lengths = pack.draw_lengths(3_000)
    by_item = pack.fill(pack.pack_by_item(lengths.tolist(), 2048), lengths, 2048)
    by_counts = pack.fill(pack_lengths(lengths, 2048), lengths, 2048)
    assert by_item + 0.001 < by_counts <= 1


def test_json_alone_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "measure", lambda *, quick: make_outcome())
    _, lines, _ = run_bench("pack", "--json")
    assert len(lines) == 1
    assert json.loads(lines[0])["command"] == "python -m bench pack"


def test_a_program_whose_ways_disagree_ends_without_a_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def disagree(*, quick: bool) -> Outcome:
        raise WrongResultError(f"quick is {quick}, and the ways differ")

    monkeypatch.setattr(pack, "measure", disagree)
    monkeypatch.setattr("sys.argv", ["bench", "pack"])
    with pytest.raises(SystemExit) as stop:
        command_line.main()
    assert stop.value.code == 1
    assert capsys.readouterr() == ("", "error: quick is False, and the ways differ\n")


def test_recorded_results_have_every_key() -> None:
    for path in (Path(command_line.__file__).parent / "results").glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            assert set(record) >= (OLD_KEYS if record["format_version"] == 1 else KEYS), path
            assert record["name"] == path.stem
