"""From a base model's files to an engine that trains an adapter on it; every rank takes part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peft import PeftModel
from torch import nn

from harness.assembly import Assembly, assemble
from harness.config import RunConfig
from harness.deepspeed_config import zero_stage
from harness.dist import Engine, World, run_together
from harness.engine import build_engine
from harness.guard.marks import MARKS
from harness.memory.case import MemoryCase
from harness.memory.measured import measure_parts
from harness.memory.profile import MemoryProfile
from harness.memory.run_plan import read_case
from harness.model import check_vocabulary, load_base_model
from harness.recompute import decoder_layers
from harness.vocabulary import NewTokens, find_new_tokens
from preprocess.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Built:
    """What a run trains with.

    Attributes:
        engine: The DeepSpeed engine.
        adapter: The peft wrapper around the same weights.
        flat: Whether the attention takes rows end to end, without padding.
        case: What memory is predicted from, or None where the model's layers are not known.
    """

    engine: Engine
    adapter: PeftModel
    flat: bool
    case: MemoryCase | None


def build_model(
    config: RunConfig, world: World, manifest: Manifest, memory: MemoryProfile, say: Callable[[str], None]
) -> Built:
    """Load the base, put adapters on it, and hand it to the engine.

    Args:
        config: The run's.
        world: This rank's place.
        manifest: Of the data set, which the model must fit.
        memory: Records each phase, and watches the layers and the state from then on.
        say: Takes a line for the user.

    Raises:
        ConfigError: Model, data set, settings or device do not go together.
    """
    MARKS.enter("load")
    with memory.phase("load"):
        base, new_tokens = run_together(lambda: _load_base(config, manifest))
    with memory.phase("lora"):
        assembly = _assemble(base, new_tokens, config, world)
        for note in assembly.notes:
            say(note)
    MARKS.enter("engine")
    with memory.phase("engine_init"):
        engine = build_engine(assembly.model, config, world)
        memory.watch(list(decoder_layers(assembly.model.causal)), lambda: measure_parts(engine))
    num_new = 0 if new_tokens is None else len(new_tokens.ids)
    case = read_case(config, assembly.model.causal, assembly.attention, world, new_tokens=num_new)
    return Built(engine, assembly.adapter, assembly.attention in ("flash", "flex"), case)


def _load_base(config: RunConfig, manifest: Manifest) -> tuple[nn.Module, NewTokens | None]:
    base = load_base_model(config.model)
    new_tokens = find_new_tokens(base, config.model.path, config.data.path, manifest)
    check_vocabulary(base, manifest, new_tokens)
    return base, new_tokens


def _assemble(base: nn.Module, new_tokens: NewTokens | None, config: RunConfig, world: World) -> Assembly:
    return assemble(
        base,
        config.model,
        config.lora,
        seed=config.seed,
        device=world.device,
        zero_stage=zero_stage(config.deepspeed),
        new_tokens=new_tokens,
    )
