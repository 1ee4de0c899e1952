"""The whole loop over toy data: the same curve on any number of ranks, resume, adapters, wrong input."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from harness.checkpoints import find_damage
from preprocess.manifest import read_manifest
from tests.dist_ranks import run_ranks
from tests.runs import (
    fail_together_on,
    make_config,
    read_adapter,
    read_losses,
    read_metrics,
    start_train,
    train_on_own_disks,
    train_on_ranks,
    train_with_bad_eval,
    train_with_bad_gradients,
    write_zero3_that_splits_everything,
)
from tests.toys import make_dataset, make_model_dir, make_tokenizer

MATRIX = [(stage, accumulation) for stage in range(4) for accumulation in (1, 4)]
CURVE_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    make_dataset(folder / "data", num_songs=60, seq_len=256, num_eval_songs=6)
    make_model_dir(folder / "model", make_tokenizer().vocab_size)
    return folder


def config_of(root: Path, name: str, *overrides: str) -> Path:
    return make_config(root, root / name, root / "data", root / "model", overrides)


def deepspeed_of(root: Path, stage: int) -> str:
    name = f"zero{stage}" if stage < 3 else write_zero3_that_splits_everything(root)
    return f"deepspeed={name}"


def matrix_configs(root: Path, world_size: int) -> list[Path]:
    return [
        config_of(
            root,
            f"zero{stage}-accumulate{accumulation}-ranks{world_size}",
            deepspeed_of(root, stage),
            f"batch.micro_batch_size={12 // accumulation // world_size}",
        )
        for stage, accumulation in MATRIX
    ]


@pytest.fixture(scope="module")
def curves(root: Path) -> dict[tuple[int, int, int], Path]:
    """Run folders by (stage, accumulation, ranks), each trained on the same global batches."""
    for world_size in (1, 3):
        train_on_ranks(world_size, matrix_configs(root, world_size))
    return {
        (stage, accumulation, ranks): root / f"zero{stage}-accumulate{accumulation}-ranks{ranks}"
        for stage, accumulation in MATRIX
        for ranks in (1, 3)
    }


def test_the_loss_curve_is_the_same_for_every_stage_accumulation_and_number_of_ranks(
    curves: dict[tuple[int, int, int], Path],
) -> None:
    reference = read_losses(curves[0, 1, 1])
    assert len(reference) == 6
    assert reference[-1] < reference[0]
    for key, run_dir in curves.items():
        assert read_losses(run_dir) == pytest.approx(reference, abs=CURVE_TOLERANCE), key


def test_another_learning_rate_would_not_pass_as_the_same_curve(
    root: Path, curves: dict[tuple[int, int, int], Path]
) -> None:
    path = config_of(root, "other-rate", "optimizer.learning_rate=0.012")
    train_on_ranks(1, [path])
    assert read_losses(root / "other-rate") != pytest.approx(
        read_losses(curves[0, 1, 1]), abs=CURVE_TOLERANCE
    )


def test_the_adapters_of_all_runs_are_the_same_and_every_lora_b_has_moved(
    curves: dict[tuple[int, int, int], Path],
) -> None:
    reference = read_adapter(curves[0, 1, 1])
    assert len(reference) == 2 * 7 * 2
    for key, run_dir in curves.items():
        adapter = read_adapter(run_dir)
        assert adapter.keys() == reference.keys()
        for name, weight in adapter.items():
            torch.testing.assert_close(weight, reference[name], rtol=0, atol=2e-3, msg=f"{key} {name}")


def test_every_lora_b_is_nonzero_after_two_steps_with_recomputation(root: Path) -> None:
    paths = [
        config_of(
            root,
            f"two-steps-{stage}",
            deepspeed_of(root, stage),
            "schedule.max_steps=2",
            "model.recompute_layers=all",
        )
        for stage in (1, 3)
    ]
    train_on_ranks(1, paths)
    for stage in (1, 3):
        for name, weight in read_adapter(root / f"two-steps-{stage}").items():
            assert bool(weight.any()), name


def test_counts_are_global_and_do_not_depend_on_ranks(curves: dict[tuple[int, int, int], Path]) -> None:
    names = ("rows", "examples", "tokens", "supervised_tokens")
    one, three = (
        [
            [line[name] for name in names]
            for line in read_metrics(curves[1, 1, ranks])
            if line["kind"] == "train"
        ]
        for ranks in (1, 3)
    )
    assert one == three
    assert one[0][0] == 12


def test_the_last_step_of_an_epoch_takes_the_rows_that_are_left(root: Path) -> None:
    num_rows = read_manifest(root / "data").splits["train"].num_rows
    assert num_rows % 9
    paths = [
        config_of(
            root,
            f"epoch-{ranks}",
            "batch.global_batch_size=9",
            "schedule.max_steps=null",
            "schedule.epochs=1",
        )
        for ranks in (1, 3)
    ]
    train_on_ranks(1, paths[:1])
    train_on_ranks(3, paths[1:])
    rows = [line["rows"] for line in read_metrics(root / "epoch-3") if line["kind"] == "train"]
    assert sum(rows) == num_rows
    assert rows[-1] == num_rows % 9
    assert read_losses(root / "epoch-3") == pytest.approx(read_losses(root / "epoch-1"), abs=CURVE_TOLERANCE)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_resumed_run_goes_on_bit_for_bit(root: Path, stage: int) -> None:
    overrides = (deepspeed_of(root, stage), "schedule.save_every_steps=2", "lora.dropout=0.2")
    whole = config_of(root, f"whole-{stage}", *overrides)
    resumed = config_of(root, f"resumed-{stage}", *overrides, "resume=true")
    train_on_ranks(3, [whole])
    # A run that died after step 5: its newest checkpoint is step 4, and step 5 is in the metrics.
    shutil.copytree(root / f"whole-{stage}", root / f"resumed-{stage}")
    shutil.rmtree(root / f"resumed-{stage}" / "checkpoint-6")
    shutil.rmtree(root / f"resumed-{stage}" / "adapter")
    train_on_ranks(3, [resumed])
    assert read_losses(root / f"resumed-{stage}") == read_losses(root / f"whole-{stage}")
    one, other = read_adapter(root / f"whole-{stage}"), read_adapter(root / f"resumed-{stage}")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stage", [1, 3])
def test_every_host_without_a_shared_disk_has_the_whole_checkpoint_and_a_new_one_gets_it(
    root: Path, stage: int
) -> None:
    folders = root / f"disks-{stage}"
    overrides = (deepspeed_of(root, stage), "schedule.max_steps=4", "schedule.save_every_steps=2")
    config = config_of(root, f"own-disks-{stage}", *overrides)
    run_ranks(train_on_own_disks, 3, config, folders, [], timeout_s=240)
    hosts = [folders / f"host{rank}" for rank in range(3)]
    assert all((host / "adapter" / "adapter_model.safetensors").is_file() for host in hosts)
    assert all(find_damage(host / "checkpoint-4") is None for host in hosts)
    losses = read_losses(hosts[0])
    # Two hosts are replaced by empty ones, and the newest checkpoint of the third is gone.
    for lost in (hosts[1], hosts[2], hosts[0] / "checkpoint-4"):
        shutil.rmtree(lost)
    run_ranks(train_on_own_disks, 3, config, folders, ["resume=true"], timeout_s=240)
    assert read_losses(hosts[0]) == losses
    assert all(find_damage(host / f"checkpoint-{step}") is None for host in hosts for step in (2, 4))
    adapters = [read_adapter(host) for host in hosts]
    assert all(torch.equal(adapters[0][name], other[name]) for other in adapters for name in adapters[0])


def test_a_killed_run_resumes_from_its_last_checkpoint(root: Path) -> None:
    overrides = ("schedule.max_steps=400", "schedule.save_every_steps=5", "batch.global_batch_size=2")
    path = config_of(root, "killed", *overrides)
    process = start_train(path)
    deadline = time.monotonic() + 90
    while not (root / "killed" / "checkpoint-10").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    last = max(int(folder.name.split("-")[1]) for folder in (root / "killed").glob("checkpoint-*[0-9]"))
    assert 10 <= last < 400
    again = start_train(path, "--resume", "--set", "schedule.max_steps=400")
    deadline = time.monotonic() + 90
    while not (root / "killed" / f"checkpoint-{last + 5}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    again.kill()
    again.communicate()
    steps = [line["step"] for line in read_metrics(root / "killed") if line["kind"] == "train"]
    assert all(after == before + 1 for before, after in pairwise(steps))
    assert steps[-1] >= last + 5


def test_a_damaged_newest_checkpoint_is_passed_over(root: Path) -> None:
    overrides = ("schedule.save_every_steps=2", "schedule.max_steps=4")
    path = config_of(root, "damaged", *overrides)
    train_on_ranks(1, [path])
    victim = next((root / "damaged" / "checkpoint-4" / "state").glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    process = start_train(path, "--resume")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "checkpoint-4" in output
    assert "passing over" in output
    assert "going on after step 2" in output


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_one_bad_step_is_left_out_and_the_run_goes_on(root: Path, precision: str) -> None:
    path = config_of(root, f"one-bad-{precision}", f"model.precision={precision}")
    run_ranks(train_with_bad_gradients, 1, path, [2])
    run_dir = root / f"one-bad-{precision}"
    lines = [line for line in read_metrics(run_dir) if line["kind"] == "train"]
    rates = [line["learning_rate"] for line in lines]
    assert len(lines) == 6
    assert rates[2] == rates[1]  # the schedule waits for the step that was left out
    assert all(bool(weight.any()) for weight in read_adapter(run_dir).values())
    assert json.loads((run_dir / "checkpoint-6" / "state.json").read_text())["state"]["skipped_steps"] == 1


@pytest.mark.parametrize("stage", [0, 1])
def test_a_run_whose_gradients_stay_bad_stops_with_its_state_saved_and_can_be_resumed(
    root: Path, stage: int
) -> None:
    limit = ["schedule.max_skipped_steps=2"]
    path, run_dir = config_of(root, f"bad-{stage}", f"deepspeed=zero{stage}"), root / f"bad-{stage}"
    with pytest.raises(RuntimeError, match=r"TrainingError: step 3: 2 steps in a row were left out"):
        run_ranks(train_with_bad_gradients, 1, path, [2, 3, 4], limit)
    assert not (run_dir / "adapter").exists()
    assert find_damage(run_dir / "checkpoint-3") is None
    skipped = [line["skipped"] for line in read_metrics(run_dir) if line["kind"] == "train"]
    assert skipped[0] is None
    assert all("not finite" in reason for reason in skipped[1:])
    assert read_metrics(run_dir)[-1]["skipped_steps"] == 2
    run_ranks(train_with_bad_gradients, 1, path, [], [*limit, "resume=true"])
    assert len(read_losses(run_dir)) == 6
    assert json.loads((run_dir / "checkpoint-6" / "state.json").read_text())["state"]["skipped_steps"] == 2


def test_a_finished_run_has_nothing_to_resume_and_keeps_its_summary(
    root: Path, curves: dict[tuple[int, int, int], Path]
) -> None:
    run_dir = curves[1, 1, 1]
    before, adapter = (run_dir / "metrics.jsonl").read_text(), read_adapter(run_dir)
    shutil.rmtree(run_dir / "adapter")  # as if it had been killed before it published one
    process = start_train(root / f"{run_dir.name}.yaml", "--resume")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "nothing is left to do" in output
    assert (run_dir / "metrics.jsonl").read_text() == before
    again = read_adapter(run_dir)
    assert all(torch.equal(again[name], weight) for name, weight in adapter.items())


def test_a_run_whose_eval_loss_is_no_number_saves_its_state_and_goes_on_at_a_lower_rate(root: Path) -> None:
    path, run_dir = config_of(root, "bad-eval", "schedule.save_every_steps=2"), root / "bad-eval"
    with pytest.raises(RuntimeError, match=r"TrainingError: step 4: the eval loss is nan.*checkpoint-4"):
        run_ranks(train_with_bad_eval, 1, path, 2)
    names = {folder.name for folder in run_dir.glob("checkpoint-*")}
    assert names == {"checkpoint-2", "checkpoint-4"}
    shutil.rmtree(run_dir / "checkpoint-4")
    run_ranks(train_with_bad_eval, 1, path, None, ["resume=true", "optimizer.learning_rate=0.001"])
    rates = [line["learning_rate"] for line in read_metrics(run_dir) if line["kind"] == "train"]
    assert len(rates) == 6
    assert max(rates[2:]) <= 0.001 < min(rates[:2])


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(
    root: Path, curves: dict[tuple[int, int, int], Path]
) -> None:
    run_dir = curves[0, 1, 1]
    before = (run_dir / "config.yaml").read_text()
    process = start_train(root / f"{run_dir.name}.yaml", "--resume", "--set", "lora.r=8")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 5, errors
    assert "made by another run" in errors
    assert (run_dir / "config.yaml").read_text() == before


def test_an_error_on_one_rank_alone_ends_every_rank_with_it() -> None:
    for rank, answer in enumerate(run_ranks(fail_together_on, 3, 1)):
        assert answer == ("DataError", "no data here" if rank == 1 else "on rank 1: no data here")


def test_only_the_newest_checkpoints_and_the_best_are_kept(root: Path) -> None:
    overrides = ("schedule.save_every_steps=1", "schedule.keep_checkpoints=2", "schedule.max_steps=6")
    train_on_ranks(1, [config_of(root, "kept", *overrides)])
    kept = {folder.name for folder in (root / "kept").glob("checkpoint-*")}
    best = json.loads((root / "kept" / "checkpoint-6" / "state.json").read_text())["state"]["best_step"]
    assert kept == {"checkpoint-5", "checkpoint-6", f"checkpoint-{best}"}
    losses = {line["step"]: line["loss"] for line in read_metrics(root / "kept") if line["kind"] == "eval"}
    assert best == min(losses, key=lambda step: losses[step])


def test_a_checkpoint_leaves_the_frozen_base_out(
    root: Path, curves: dict[tuple[int, int, int], Path]
) -> None:
    base = sum(file.stat().st_size for file in (root / "model").glob("*.safetensors"))
    for stage in range(4):
        checkpoint = curves[stage, 1, 3] / "checkpoint-6"
        size = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        adapter = (checkpoint / "adapter" / "adapter_model.safetensors").stat().st_size
        assert size < 6 * adapter + 150_000
        assert adapter < base / 4


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        (["data.path=/nowhere"], 4, ["/nowhere", "no such folder"]),
        (["model.path=/nowhere"], 2, ["model.path", "/nowhere"]),
        (["batch.tokens_per_step=500"], 2, ["global_batch_size and tokens_per_step", "give one"]),
        (["lora.targets=[q_proj, nothing_proj]"], 2, ["nothing_proj", "q_proj"]),
        (["world_size=3"], 3, ["1 ranks were started", "3"]),
        (["resume=true"], 5, ["no whole checkpoint"]),
        (["optimizer.learning_rat=1"], 2, ["learning_rat", "did you mean 'learning_rate'"]),
        (["deepspeed=zero9"], 2, ["zero9", "zero1"]),
        (["output_dir=/dev/null/run"], 2, ["/dev/null/run", "there is a file", "choose another"]),
        (["deepspeed={root}/misspelt.json"], 2, ["misspelt.json", "reduce_bucket_sise", "5"]),
        (["deepspeed={root}/stage.json"], 2, ["stage.json", '"stage": 9', "0, 1, 2 or 3"]),
    ],
)
def test_wrong_input_gives_one_clear_line_and_its_exit_code(
    root: Path, overrides: list[str], code: int, words: list[str]
) -> None:
    path = config_of(root, "wrong")
    for name, zero in (("misspelt", {"stage": 1, "reduce_bucket_sise": 5}), ("stage", {"stage": 9})):
        (root / f"{name}.json").write_text(json.dumps({"zero_optimization": zero}))
    arguments = [word for value in overrides for word in ("--set", value.replace("{root}", str(root)))]
    process = start_train(path, *arguments)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert all(word in errors for word in words), errors


def test_a_port_that_is_taken_is_named(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = start_train(config_of(root, "port"), env={"MASTER_PORT": str(port)})
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert f"error: port {port} of 127.0.0.1 cannot be used" in errors
    assert "Traceback" not in errors


def test_a_shard_with_a_flipped_byte_is_refused(root: Path) -> None:
    shutil.copytree(root / "data", root / "flipped")
    shard = next((root / "flipped" / "train").glob("*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(bytes(data))
    process = start_train(config_of(root, "flipped-run", f"data.path={root / 'flipped'}"))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 4
    assert shard.name in errors
    assert "damaged" in errors


def test_more_ranks_than_rows_is_refused(root: Path) -> None:
    make_dataset(root / "tiny", num_songs=1, seq_len=512, num_eval_songs=0)
    path = config_of(root, "too-many", f"data.path={root / 'tiny'}")
    with pytest.raises(RuntimeError, match="3 ranks, but only 1 training rows"):
        train_on_ranks(3, [path])


def test_a_folder_that_holds_a_run_is_not_overwritten(
    root: Path, curves: dict[tuple[int, int, int], Path]
) -> None:
    process = start_train(root / f"{curves[0, 1, 1].name}.yaml")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "already holds a run" in errors
