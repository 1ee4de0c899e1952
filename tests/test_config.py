"""Settings: YAML, overrides, errors that name the nearest key; one home for every value; shipped configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.batch_plan import StepTarget
from harness.config import OptimizerSettings, RunConfig, load_run_config
from harness.deepspeed_config import deepspeed_config, load_deepspeed_config
from harness.schedule import learning_rate
from preprocess.errors import ConfigError
from preprocess.settings import dump_settings, load_settings

ROOT = Path(__file__).parent.parent
SHIPPED = sorted(path.stem for path in (ROOT / "harness" / "configs").glob("*.yaml"))
STAGES = {"zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3}

MINIMAL = "output_dir: runs/a\nmodel: {path: some/model}\ndata: {path: data}\n"


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def test_every_shipped_run_loads_and_says_what_a_step_takes() -> None:
    assert {"plan", "servable", "quickstart"} <= set(SHIPPED)
    targets = {name: load_run_config(name).batch.target for name in SHIPPED}
    assert targets["plan"] == targets["servable"] == StepTarget("examples", 72)
    assert targets["quickstart"] == StepTarget("rows", 2)


def test_deepspeed_is_left_without_micro_steps_to_count() -> None:
    values = deepspeed_config(load_run_config("plan"), 3)
    names = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert [values[name] for name in names] == [3, 1, 1]


def test_the_plan_is_the_users_own_settings_and_servable_leaves_the_head_alone() -> None:
    plan, servable = load_run_config("plan"), load_run_config("servable")
    assert (plan.lora.r, plan.lora.alpha, plan.lora.dropout) == (128, 256, 0.05)
    assert "lm_head" in plan.lora.targets
    assert len(plan.lora.targets) == 8
    assert "lm_head" not in servable.lora.targets
    assert plan.world_size == 3


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_every_shipped_deepspeed_file_names_its_stage_and_nothing_that_the_run_owns(
    name: str, stage: int
) -> None:
    assert load_deepspeed_config(name)["zero_optimization"]["stage"] == stage


def test_resolved_settings_read_back_the_same(minimal: Path, tmp_path: Path) -> None:
    config = load_run_config(minimal, ["lora.r=128", "optimizer.learning_rate=1e-4", "world_size=3"])
    assert (config.lora.r, config.optimizer.learning_rate, config.world_size) == (128, 1e-4, 3)
    (tmp_path / "again.yaml").write_text(dump_settings(config))
    assert load_run_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rat=1", "did you mean 'learning_rate'"),
        ("modle.path=a", "did you mean 'model'"),
        ("zzz=1", "legal keys here"),
        ("lora.r=0", "lora.r: got 0"),
        ("lora.r=many", "lora.r: got 'many'"),
        ("optimizer.learning_rate=.nan", "learning_rate"),
        ("lora.targets=[]", "at least one layer"),
        ("model.precision=fp8", "'bf16', 'fp16' or 'fp32'"),
        ("seed", "expected KEY=VALUE"),
        ("seed.a=1", "seed"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(minimal: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config(minimal, [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["half", "-1", "1.5"])
def test_a_setting_of_two_kinds_is_explained_in_one_line_without_a_librarys_words(
    minimal: Path, value: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config(minimal, [f"model.recompute_layers={value}"])
    got = repr(value) if value == "half" else value
    expected = f"model.recompute_layers: got {got}; expected a whole number from 0, or all"
    assert str(caught.value) == f"{minimal}: {expected}"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["batch.examples_per_step=1", "batch.tokens_per_step=3"],
            "batch: examples_per_step and tokens_per_step are set; give one of them, and null for the others",
        ),
        (["lora.targets=[]"], "lora.targets must name at least one layer, each once"),
    ],
)
def test_settings_in_conflict_are_named_and_not_printed_out(
    minimal: Path, overrides: list[str], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config(minimal, overrides)
    assert str(caught.value) == f"{minimal}: {line}"


@pytest.mark.parametrize("text", ["- a list\n", "a: [1\n", "\xff"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=str(path)):
        load_settings(RunConfig, path)


def test_a_missing_config_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        load_run_config("no-such-config")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_batch_size": 8}, "belong in the run's config"),
        ({"zero_optimization": {"stage": "auto"}}, '"auto"'),
        ({"bf16": {"enabled": True}}, "model.precision"),
        ({"zero_optimisation": {"stage": 1}}, "zero_optimisation"),
        ([], "JSON object"),
    ],
)
def test_a_deepspeed_file_that_would_be_misread_is_refused(
    tmp_path: Path, values: object, message: str
) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError) as caught:
        load_deepspeed_config(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("precision", "enabled"), [("bf16", (True, False)), ("fp16", (False, True)), ("fp32", (False, False))]
)
def test_the_runs_precision_switches_deepspeeds(
    minimal: Path, precision: str, enabled: tuple[bool, bool]
) -> None:
    values = deepspeed_config(load_run_config(minimal, [f"model.precision={precision}"]), 1)
    assert (values["bf16"]["enabled"], values["fp16"]["enabled"]) == enabled


@pytest.mark.parametrize(
    ("override", "target"),
    [
        ("batch.micro_batch_size=2", ("examples", 72)),
        ("batch.examples_per_step=null", ("examples", 72)),
        ("batch.examples_per_step=40", ("examples", 40)),
        ("batch.tokens_per_step=50_000", ("tokens", 50_000)),
        ("batch.global_batch_size=7", ("rows", 7)),
    ],
)
def test_a_step_takes_so_many_rows_examples_or_tokens_by_choice(
    minimal: Path, tmp_path: Path, override: str, target: tuple[str, int]
) -> None:
    config = load_run_config(minimal, [override])
    assert config.batch.target == target
    (tmp_path / "resolved.yaml").write_text(dump_settings(config))
    assert load_run_config(tmp_path / "resolved.yaml") == config


def test_two_targets_for_a_step_are_refused_and_null_takes_one_back() -> None:
    with pytest.raises(
        ConfigError, match=r"batch: .*examples_per_step and tokens_per_step are set; give one"
    ):
        load_run_config("plan", ["batch.tokens_per_step=50000"])
    changed = load_run_config("plan", ["batch.tokens_per_step=50000", "batch.examples_per_step=null"])
    assert changed.batch.target == StepTarget("tokens", 50_000)
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        load_run_config("plan", ["batch.examples_per_step=0"])


def test_the_rate_rises_falls_and_is_never_zero() -> None:
    settings = OptimizerSettings(learning_rate=1.0, warmup_fraction=0.1, final_fraction=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_a_run_of_one_step_has_a_rate(warmup: float) -> None:
    assert learning_rate(0, 1, OptimizerSettings(learning_rate=1.0, warmup_fraction=warmup)) > 0
