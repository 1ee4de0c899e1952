"""From a run's configuration to what is predicted: model's shape, data set, card, hosts."""

from __future__ import annotations

from dataclasses import replace

from harness.cards import MIB, Card
from harness.config import ATTENTION_AND_MLP, RunConfig, load_run_config
from harness.deepspeed_config import load_deepspeed_config
from harness.flops import Kind
from harness.memory.case import ZeroSettings
from harness.memory.run_case import make_case
from harness.planning.model_files import find_model_shape
from harness.planning.setting import Setting
from harness.planning.workload import Workload
from harness.shapes import ModelShape
from preprocess.errors import ConfigError, DataError
from preprocess.settings import load_settings

NUM_MUSIC_TOKENS = 7
"""As many as `preprocess.tokenizer.MUSIC_TOKENS`; a test compares."""

WIDEST_FLASH_HEAD = 256


def load_planned_config(config: str | None, model: str | None, overrides: list[str]) -> RunConfig:
    """The run's configuration; without a file the defaults for a model.

    Raises:
        ConfigError: Neither is given, or the configuration is not allowed.
    """
    if config is not None:
        return load_run_config(config, [*([f"model.path={model}"] if model else []), *overrides])
    if model is None:
        raise ConfigError(
            "pass --config RUN.yaml, or --model with a shape's name, a model folder or a hub id"
        )
    filled = [f"model.path={model}", "output_dir=.", "data.path=."]
    return load_settings(RunConfig, None, [*filled, *overrides])


def make_setting(
    config: RunConfig,
    workload: Workload,
    *,
    card: Card | None,
    vram_gib: float | None,
    nodes: int,
    gpus_per_node: int,
    vram_target: float,
    link_gbps: float,
) -> tuple[Setting, str]:
    """A setting, and where the model's shape was found.

    Raises:
        ConfigError: The model's shape is not known, or a number is out of range, or the card lacks float8.
        DataError: The data set was made for another model.
    """
    _check_numbers(vram_gib, nodes, gpus_per_node, vram_target, link_gbps)
    if config.world_size not in (None, nodes * gpus_per_node):
        raise ConfigError(
            f"world_size is {config.world_size}, but --nodes {nodes} x --gpus-per-node {gpus_per_node} are "
            f"{nodes * gpus_per_node} ranks; make them agree, or --set world_size=null"
        )
    if config.model.fp8 and card is not None and card.fp8_tflops is None:
        raise ConfigError(f"model.fp8: the {card.name} has no float8; Ada, Hopper and later cards do")
    shape, found = find_model_shape(config.model.path)
    _check_targets(config)
    case = make_case(
        config,
        shape,
        _choose_attention(config, shape),
        ranks=nodes * gpus_per_node,
        device="cuda",
        lora_kernel=config.model.lora_kernel,
        new_tokens=_count_new_tokens(shape, workload),
    )
    if vram_gib is not None:
        memory = round(vram_gib * 2**30)
    else:
        assert card is not None, "the command asks for one of both"
        memory = card.memory_mib * MIB
    setting = Setting(
        case=case,
        rows=config.batch.micro_batch_size,
        workload=workload,
        target=config.batch.target,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        memory_bytes=memory,
        vram_target=vram_target,
        card=card,
        link_gbps=link_gbps,
    )
    return setting.with_rows(config.batch.micro_batch_size), found


def _check_numbers(
    vram_gib: float | None, nodes: int, gpus_per_node: int, vram_target: float, link_gbps: float
) -> None:
    for name, value in (("nodes", nodes), ("gpus-per-node", gpus_per_node)):
        if value < 1:
            raise ConfigError(f"--{name} {value}: expected at least 1")
    if not 0 < vram_target <= 1:
        raise ConfigError(
            f"--target {vram_target:g}: expected a share of the card above 0 and up to 1, as 0.94"
        )
    if vram_gib is not None and not 1 <= vram_gib <= 10_000:
        raise ConfigError(f"--vram-gib {vram_gib:g}: expected GiB of one card, at least 1")
    if not 0 < link_gbps <= 100_000:
        raise ConfigError(f"--link-gbps {link_gbps:g}: expected gigabits a second, above 0")


def _check_targets(config: RunConfig) -> None:
    known = (*ATTENTION_AND_MLP, "lm_head")
    if unknown := [name for name in config.lora.targets if name not in known]:
        raise ConfigError(
            f"lora.targets: {', '.join(unknown)}: their sizes are not known; known are {', '.join(known)}"
        )


def _count_new_tokens(shape: ModelShape, workload: Workload) -> int:
    missing = max(0, (workload.vocab_size or 0) - shape.vocab_size)
    if missing > (NUM_MUSIC_TOKENS if workload.music_tokens else 0):
        raise DataError(
            f"the data set's tokenizer has {workload.vocab_size} ids, but the model {shape.vocab_size}. Build the data "
            "set with the model's own tokenizer, or plan for the model that it was built for"
        )
    return NUM_MUSIC_TOKENS if workload.music_tokens else missing


def _choose_attention(config: RunConfig, shape: ModelShape) -> Kind:
    """As `harness.attention.choose_attention` on the cards that are known here: all of them have flash kernels."""
    if config.model.attention != "auto":
        return config.model.attention
    narrow = shape.head_dim % 8 == 0 and shape.head_dim <= WIDEST_FLASH_HEAD
    return "flash" if config.model.precision != "fp32" and narrow else "flex"


def shipped_zero(setting: Setting, stage: int) -> Setting:
    """A setting with the shipped DeepSpeed file of another stage; its own where the stage stays."""
    if stage == setting.case.zero.stage:
        return setting
    zero = ZeroSettings.read(load_deepspeed_config(f"zero{stage}"))
    return replace(setting, case=replace(setting.case, zero=zero))
