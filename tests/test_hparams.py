"""TensorBoard shows a run's settings beside the figures that it ended with."""

from __future__ import annotations

import math
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from harness.config import RunConfig, load_run_config
from harness.hparams import list_hparams, write_hparams
from tests.runs import make_config


def config_of(tmp_path: Path, *overrides: str) -> RunConfig:
    return load_run_config(make_config(tmp_path, tmp_path / "run", tmp_path / "d", tmp_path / "m", overrides))


def test_settings_have_dotted_names_and_plain_values(tmp_path: Path) -> None:
    found = list_hparams(config_of(tmp_path))
    assert found["optimizer.learning_rate"] == 1e-2
    assert found["lora.r"] == 4
    assert found["data.verify_hashes"] is True
    assert found["optimizer.betas"] == "0.9,0.95"
    assert found["world_size"] == "none"
    assert "output_dir" not in found
    assert {type(value) for value in found.values()} <= {bool, int, float, str}


def test_what_is_written_is_read_back_from_the_event_file(tmp_path: Path) -> None:
    config = config_of(tmp_path, "optimizer.learning_rate=0.003")
    metrics = {"eval_loss": 1.25, "samples_per_s": 7.5, "best_eval_loss": None, "tokens_per_s": math.nan}
    write_hparams(tmp_path / "tensorboard", config, metrics)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("final/eval_loss")[0].value == 1.25
    assert events.Tags()["scalars"] == ["final/eval_loss", "final/samples_per_s"]
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert math.isclose(settings["optimizer.learning_rate"].number_value, 0.003)
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert {one.name for one in experiment.hparam_infos} == set(list_hparams(config))
    assert [one.name.tag for one in experiment.metric_infos] == ["final/eval_loss", "final/samples_per_s"]
