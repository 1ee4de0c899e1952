"""Checkpoint folders as such: what damage is noticed, and what a crash at any operation leaves behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from harness.checkpoints import commit, find_damage, publish_adapter
from harness.checkpoints.agreement import explain_failure
from harness.checkpoints.commit import clean_up, finish_replacing, list_steps, put_in_place
from harness.checkpoints.finding import Found, choose
from harness.checkpoints.manifest import MANIFEST, STATE, read_manifest, write_manifest
from harness.checkpoints.part_file import open_part, write_part
from harness.checkpoints.places import KINDS
from harness.checkpoints.restore import check_cover
from harness.checkpoints.run_state import RunState
from harness.checkpoints.snapshot import Piece, Snapshot, read_engine_state, restore_engine_state
from harness.checkpoints.storage import Storage
from harness.checkpoints.writing import prune
from preprocess.durable import HashedFile, sha256_of
from preprocess.errors import CheckpointError, NoSpaceError

PIECES = (Piece("a", (2, 3), 1, 4, 7.0), Piece("b.weight", (2,), 0, 2, 7.0))


class CrashError(BaseException):
    """The machine stops here: nothing after it runs, not even the clean-up after errors."""


def make_checkpoint(folder: Path, step: int) -> Path:
    """A whole checkpoint with one part of two pieces."""
    folder /= f"checkpoint-{step}"
    (folder / "state").mkdir(parents=True)
    values = torch.arange(step, step + 18, dtype=torch.float32)
    with (folder / "state" / "part-0-of-1.safetensors").open("wb") as file:
        write_part(HashedFile(file), Snapshot(PIECES, values, {}))
    (folder / STATE).write_text(json.dumps({"step": step}))
    files = [path for path in folder.rglob("*") if path.is_file()]
    entries = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in files
    }
    write_manifest(folder, entries)
    return folder


def test_a_part_file_is_a_safetensors_file_and_reads_as_it_was_written(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 3)
    name = "state/part-0-of-1.safetensors"
    part = open_part(folder / name, read_manifest(folder)[name])
    assert part.pieces == PIECES
    tensors = load_file(str(folder / name))
    assert tensors.keys() == {f"{kind}:{piece.name}" for kind in KINDS for piece in PIECES}
    for piece in PIECES:
        for kind in KINDS:
            assert tensors[f"{kind}:{piece.name}"].tolist() == part.values(piece, kind).tolist()
    assert part.values(PIECES[1], "exp_avg").tolist() == [17.0, 18.0]


def test_every_flipped_bit_and_every_cut_is_noticed_and_the_file_named(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 3)
    assert find_damage(folder) is None
    for path in (path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            assert path.name in (find_damage(folder) or ""), (path.name, at)
        for size in range(0, len(whole), 5):
            path.write_bytes(whole[:size])
            assert path.name in (find_damage(folder) or ""), (path.name, size)
        path.unlink()
        assert path.name in (find_damage(folder) or "")
        path.write_bytes(whole)
    assert find_damage(folder) is None


def test_white_space_that_json_would_not_mind_is_damage_too(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 3)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace("\n  ", "\n\t ", 1))
    assert find_damage(folder) == "its manifest.json is damaged"


def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 3)
    for name in ("../other", "/etc/hostname"):
        write_manifest(folder, {name: {"sha256": "", "bytes": 0}})
        assert find_damage(folder) == "its manifest.json is damaged"


def test_a_damaged_part_is_not_parsed(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 3)
    name = "state/part-0-of-1.safetensors"
    entry = read_manifest(folder)[name]
    (folder / name).write_bytes(b"\xff" * entry["bytes"])
    with pytest.raises(CheckpointError, match=r"part-0-of-1\.safetensors: damaged"):
        open_part(folder / name, entry)


def test_a_checkpoint_of_an_earlier_version_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-2"
    (folder / "deepspeed").mkdir(parents=True)
    (folder / "deepspeed" / "mp_rank_00_model_states.pt").write_bytes(b"pickled")
    (folder / MANIFEST).write_text(json.dumps({"state.json": {"sha256": "", "bytes": 0}}))
    assert "earlier version" in (find_damage(folder) or "")


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((Piece("a", (2, 3), 0, 4, 0.0),), "each value of a once"),
        ((Piece("a", (2, 3), 0, 4, 0.0), Piece("a", (2, 3), 3, 3, 0.0)), "each value of a once"),
        ((Piece("a", (2, 3), 0, 6, 0.0), Piece("a", (2, 3), 0, 6, 0.0)), "each value of a once"),
        ((Piece("a", (6,), 0, 6, 0.0),), r"a of shape \(6,\), but this model has \(2, 3\)"),
        ((Piece("c", (6,), 0, 6, 0.0),), "no such trained weight"),
    ],
)
def test_parts_that_do_not_make_the_model_are_refused(pieces: tuple[Piece, ...], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        check_cover(Path("checkpoint-2"), pieces, {"a": (2, 3)})


def test_parts_in_any_order_make_the_model() -> None:
    pieces = [Piece("a", (2, 3), start, 2, 0.0) for start in (4, 0, 2)]
    check_cover(Path("checkpoint-2"), pieces, {"a": (2, 3)})


# What a replacement does, one after another; a crash may come before each of them.
OPERATIONS: list[tuple[Any, str]] = [
    (Path, "rename"),
    (shutil, "rmtree"),
    (commit, "sync_folder"),
    (commit, "_exchange"),
]


def crash_at(number: int, action: Callable[[], object], *, can_exchange: bool) -> bool:
    """Run an action whose n-th operation never happens. False when it had fewer."""
    count = iter(range(10_000))

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if next(count) == number:
                raise CrashError
            return operation(*args, **kwargs)

        return run

    exchange = commit._exchange if can_exchange else lambda one, other: False
    found = [(owner, name, getattr(owner, name)) for owner, name in OPERATIONS]
    patches = [
        patch.object(owner, name, counted(exchange if name == "_exchange" else function))
        for owner, name, function in found
    ]
    for one in patches:
        one.start()
    try:
        action()
    except CrashError:
        return True
    finally:
        for one in patches:
            one.stop()
    return False


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_crash_at_any_operation_of_a_replacement_leaves_a_whole_checkpoint(
    tmp_path: Path, *, can_exchange: bool
) -> None:
    number, crashed = 0, True
    while crashed:
        run_dir = tmp_path / f"run-{number}"
        final = make_checkpoint(run_dir, 4)
        new = make_checkpoint(tmp_path / f"new-{number}", 4).rename(run_dir / "checkpoint-4.tmp")
        (new / "new").touch()
        crashed = crash_at(number, lambda: put_in_place(new, final), can_exchange=can_exchange)  # noqa: B023
        finish_replacing(final)
        assert find_damage(final) is None
        assert list_steps(run_dir) == [4]
        clean_up(run_dir)
        assert {path.name for path in run_dir.iterdir()} == {"checkpoint-4"}
        number += 1
    assert (final / "new").exists()
    assert number > 3


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_crash_at_any_operation_leaves_an_adapter_or_one_that_is_put_back(
    tmp_path: Path, *, can_exchange: bool
) -> None:
    number, crashed = 0, True
    while crashed:
        run_dir = tmp_path / f"run-{number}"
        for name in ("one", "two"):
            (run_dir / name).mkdir(parents=True)
            (run_dir / name / "weights").write_text(name)
        publish_adapter(run_dir, run_dir / "one")
        crashed = crash_at(
            number,
            lambda: publish_adapter(run_dir, run_dir / "two"),  # noqa: B023
            can_exchange=can_exchange,
        )
        if can_exchange:
            assert (run_dir / "adapter" / "weights").read_text() in ("one", "two")
        publish_adapter(run_dir, run_dir / "two")
        assert (run_dir / "adapter" / "weights").read_text() == "two"
        assert {path.name for path in run_dir.iterdir()} == {"one", "two", "adapter"}
        number += 1
    assert number > 4


def test_a_deletion_that_stops_half_way_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make_checkpoint(tmp_path, step)

    def stop(path: Path, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            (path / STATE).unlink()
            raise CrashError

    with patch.object(shutil, "rmtree", stop), pytest.raises(CrashError):
        prune(tmp_path, 2, None)
    assert list_steps(tmp_path) == [2, 3]
    clean_up(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-3"}


def test_the_best_and_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    for step in range(1, 7):
        make_checkpoint(tmp_path, step)
    prune(tmp_path, 2, 3)
    assert list_steps(tmp_path) == [3, 5, 6]


def test_a_checkpoint_that_cannot_be_deleted_is_logged_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        make_checkpoint(tmp_path, step)
    with patch.object(Path, "rename", side_effect=OSError(errno.EIO, os.strerror(errno.EIO))):
        prune(tmp_path, 1, None)
    assert list_steps(tmp_path) == [1, 2]
    assert "checkpoint of step 1 stays" in caplog.text


def test_names_that_are_nearly_checkpoints_are_none(tmp_path: Path) -> None:
    for name in (
        "checkpoint-4",
        "checkpoint-4.tmp",
        "checkpoint-04",
        "checkpoint-\u0664",
        "checkpoint-",
        "x",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-5").touch()
    assert list_steps(tmp_path) == [4]


def test_errors_of_a_disk_become_the_users() -> None:
    full = explain_failure(Path("run/checkpoint-2"), OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(full, NoSpaceError)
    assert isinstance(explain_failure(Path("x"), RuntimeError("No space left on device")), NoSpaceError)
    broken = explain_failure(Path("run/checkpoint-2"), OSError(errno.EIO, "Input/output error", "run/a"))
    assert isinstance(broken, CheckpointError)
    assert str(broken).startswith("run/a: Input/output error. The checkpoints before it are as they were")


def test_the_newest_checkpoint_of_any_file_system_is_chosen() -> None:
    found = [Found(4, "a", 0), None, Found(6, "b", 2), Found(6, "c", 3)]
    assert choose(found) == Found(6, "b", 2)


def test_one_rank_of_each_file_system_commits() -> None:
    own_disks = [Storage(Path("run"), rank, (0, 0, 2, 2)) for rank in range(4)]
    assert [storage.commits for storage in own_disks] == [True, False, True, False]
    assert not own_disks[0].is_shared
    shared = [Storage(Path("run"), rank, (0, 0, 0)) for rank in range(3)]
    assert [storage.commits for storage in shared] == [True, False, False]
    assert shared[0].is_shared


def test_a_loss_scale_goes_on_where_it_was_also_at_another_zero_stage() -> None:
    partitioned = SimpleNamespace(
        dynamic=True, cur_scale=64.0, cur_iter=9, last_overflow_iter=4, cur_hysteresis=1
    )
    without_zero = SimpleNamespace(
        dynamic_loss_scale=True, cur_scale=65536.0, cur_iter=0, last_overflow_iter=-1
    )
    counters = {"global_steps": 9, "global_samples": 9, "skipped_steps": 1, "micro_steps": 9}
    one = SimpleNamespace(optimizer=SimpleNamespace(loss_scaler=partitioned), **counters)
    other = SimpleNamespace(
        optimizer=SimpleNamespace(loss_scale_config=without_zero), **dict.fromkeys(counters, 0)
    )
    restore_engine_state(other, json.loads(json.dumps(read_engine_state(one))))
    assert (without_zero.cur_scale, without_zero.cur_iter, without_zero.last_overflow_iter) == (64.0, 9, 4)
    assert not hasattr(without_zero, "cur_hysteresis")
    assert other.skipped_steps == 1


def test_the_best_state_is_the_one_with_the_lowest_finite_loss() -> None:
    state = RunState(step=2).with_eval(3.0).with_best()
    assert (state.best_step, state.best_eval_loss) == (2, 3.0)
    later = state.with_step(applied=True, overflowed=False)
    assert later.with_eval(float("nan")).with_best().best_step == 2
    assert later.with_eval(3.5).with_best().best_step == 2
    assert later.with_eval(2.5).with_best().best_step == 3
