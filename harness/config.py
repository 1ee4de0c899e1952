"""The configuration of a run: one YAML file, typed, with nothing that is set in two places.

ZeRO, precision details and communication live in `ds_configs/*.json` (`harness.deepspeed_config`); batch sizes,
learning rate, schedule and which precision to use live here. No torch is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from harness.batch_plan import StepTarget, Unit
from harness.profiling.steps import parse_steps
from preprocess.errors import ConfigError
from preprocess.settings import Settings, find_shipped, load_settings

ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

TARGETS: dict[str, Unit] = {
    "global_batch_size": "rows",
    "examples_per_step": "examples",
    "tokens_per_step": "tokens",
}
"""Settings of a batch of which one is given, and what each counts."""

EXAMPLES_PER_STEP = 72
"""What a step takes where nothing is said: three ranks of 24 examples."""

Precision = Literal["bf16", "fp16", "fp32"]
Attention = Literal["auto", "flash", "flex", "sdpa", "eager"]


class ModelSettings(Settings):
    """Which model, and how its forward pass runs."""

    path: str
    """A model folder, a `.gguf` file (or a folder with one), `package:NAME`, or a Hugging Face hub id."""

    trust_remote_code: bool = False
    """Run the Python code that the model brings along (`auto_map` in its config.json), as your own user on every host.
    Without it such a model is refused."""

    precision: Precision = "bf16"
    """Precision of the frozen weights and of the computation; masters and optimizer states are float32."""

    attention: Attention = "auto"
    """Attention kernel; all give the same result. `flash` computes each segment and each segment's ancestors by
    flash kernels without any mask (also what plain packing needs), `flex` takes a block mask (GPU), `sdpa` and
    `eager` a dense mask. `auto` chooses by hardware."""

    recompute_layers: NonNegativeInt | Literal["all"] = 0
    """Decoder layers (the first ones) whose activations are recomputed in the backward pass: less memory; nearly
    half more work where all are, since a frozen base spends as much on its forward pass as on its backward pass."""

    lora_kernel: Literal["lean", "peft"] = "lean"
    """`lean` shares and recomputes what peft's own forward pass keeps for backward; the result is the same. Models
    whose layers it does not know run with `peft`."""

    compile: bool = False
    """Compile the decoder layers with torch.compile; pays on a GPU, after a minute at the start."""

    fp8: bool = False
    """Compute the frozen projections in float8 (forward and input gradient); for GPUs of the Ada, Hopper and later
    generations. Adapters, norms, attention and head stay in `precision`."""

    loss_chunk: int = Field(default=1024, ge=1)
    """Supervised positions whose logits exist at a time; memory for logits does not grow beyond it."""


class LoraSettings(Settings):
    """Low-rank adapters on a frozen base (Hu et al. 2021)."""

    r: int = Field(default=16, ge=1)
    """Rank."""

    alpha: float = Field(default=32.0, gt=0)
    """Scale: the adapter's output is multiplied by alpha / r."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""

    targets: tuple[str, ...] = ATTENTION_AND_MLP
    """Names of the linear layers that get an adapter. With `lm_head` TGI and Ollama refuse the adapter unmerged,
    and llama.cpp where the head is tied; see `python -m harness export --check`."""


class DataSettings(Settings):
    """Which shards."""

    path: Path
    """Folder that `python -m preprocess build` wrote."""

    verify_hashes: bool = True
    """Hash every shard before training and refuse a damaged one."""


class BatchSettings(Settings):
    """How much makes a step: so many rows, examples or tokens; without a word 72 examples.

    A step takes the same rows on any number of ranks and in any micro-batches. How many micro-steps it has follows.
    """

    micro_batch_size: int = Field(default=1, ge=1)
    """Rows in one forward pass on one rank, at most."""

    global_batch_size: int | None = Field(default=None, ge=1)
    """Rows in one optimizer step over all ranks."""

    examples_per_step: int | None = Field(default=None, ge=1)
    """Examples (a question with its answer) in one optimizer step over all ranks, as near as whole rows come."""

    tokens_per_step: int | None = Field(default=None, ge=1)
    """Tokens in one optimizer step over all ranks, as near as whole rows come."""

    @model_validator(mode="before")
    @classmethod
    def _default(cls, values: Any) -> Any:  # noqa: ANN401 (what YAML holds)
        """Where no target is given, take the default, so that the resolved settings tell it."""
        if not isinstance(values, dict) or any(values.get(name) is not None for name in TARGETS):
            return values
        return {**values, "examples_per_step": EXAMPLES_PER_STEP}

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given)} are set; give one of them, and null for the others")
        return self

    @property
    def target(self) -> StepTarget:
        """What one optimizer step takes."""
        name = next(name for name in TARGETS if getattr(self, name) is not None)
        return StepTarget(TARGETS[name], getattr(self, name))


class OptimizerSettings(Settings):
    """AdamW (Loshchilov & Hutter 2019), cosine schedule with linear warm-up, clipping."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """Highest rate, reached after the warm-up."""

    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps over which the rate rises; the first step already has a rate above zero."""

    final_fraction: float = Field(default=0.1, ge=0, le=1)
    """Rate at the last step as a share of the highest."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the first and second moment."""

    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay of the adapter's weights."""

    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""


class ScheduleSettings(Settings):
    """How long, and what happens when."""

    epochs: float = Field(default=1.0, gt=0)
    """Passes over the training rows; may be a fraction."""

    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many steps even if epochs are left."""

    eval_every_steps: int | None = Field(default=None, ge=1)
    """Evaluate the loss at this interval; always at the end."""

    save_every_steps: int | None = Field(default=None, ge=1)
    """Write a checkpoint at this interval; always at the end."""

    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints to keep; the best one is kept besides."""

    async_save: bool = True
    """Let training go on while a checkpoint is written: it stops only while its state is copied to host memory, 12
    bytes for each trained value over all ranks."""

    max_skipped_steps: int = Field(default=20, ge=1)
    """Steps in a row that may be left out because a loss or a gradient is not finite; then the run saves its state
    and stops. In fp16 the first ones are usual: the loss scale comes down from 2^16."""


class MemorySettings(Settings):
    """How much of the memory a run is to use, and what is kept of its use."""

    target: float | None = Field(default=None, gt=0, le=1)
    """Share of the limit that the peak is brought to, as in 0.94. Then `batch.micro_batch_size` and
    `model.recompute_layers` are found by trial before the first step, not read."""

    limit_gib: float | None = Field(default=None, gt=0)
    """What one rank may use. Without it the card's memory; on a CPU the share that one rank has of its control
    group's limit, or of the machine's memory."""

    snapshot: bool = False
    """Write torch's snapshot of every allocation on a GPU, for https://pytorch.org/memory_viz: `memory-rank<r>.pickle`
    at the end, `memory-rank<r>-oom.pickle` when memory runs out. Recording takes time and memory of the host."""


class GuardSettings(Settings):
    """When a run that stands still, or has lost a rank, is ended on all hosts. Alone, a rank has no guardian."""

    enabled: bool = True
    """Start a guardian beside each rank, which sees it die, stop or hang, and ends all ranks with the cause."""

    min_timeout_s: float = Field(default=30.0, gt=0)
    """A rank that is stopped or passes no mark in a step for less, or a host that is silent for less, is no alarm."""

    factor: float = Field(default=5.0, ge=1)
    """Nor is a rank that is stopped or passes no mark for less than so many median steps."""

    startup_timeout_s: float = Field(default=1800.0, gt=0)
    """The same for phases without steps: loading, the search for memory, saving, and the first three steps."""

    slow_factor: float = Field(default=1.5, gt=1)
    """A rank whose own work takes so many times the median is told of."""


class ProfileSettings(Settings):
    """Which steps are looked into, operator by operator; see docs/profiling.md. Losses are the same to the bit."""

    steps: str | None = None
    """`10:13` for the steps 10, 11 and 12 as metrics.jsonl counts them: the first one is included, the last one is not,
    as in Python's slices."""

    tool: Literal["torch", "nsys"] = "torch"
    """`torch` writes a trace of every rank and a table of what took how long. `nsys` writes nothing itself: it names
    ranges (NVTX) and tells Nsight Systems when to record, for `nsys profile --capture-range=cudaProfilerApi`."""

    shapes: bool = True
    """Record the shapes of each operator's inputs; without them bytes of collectives are not known on a CPU."""

    stacks: bool = False
    """Record where in Python each operator was called; the trace is several times as large."""

    flops: bool = True
    """Hold DeepSpeed's FLOPs profiler beside the harness's own count, in one more forward pass after the last step."""

    @field_validator("steps", mode="before")
    @classmethod
    def _check_steps(cls, value: object) -> object:
        if value is not None:
            parse_steps(str(value))
        return value

    @property
    def chosen(self) -> range:
        """The steps, counted from 1; empty where none is."""
        return range(0) if self.steps is None else parse_steps(self.steps)


class RunConfig(Settings):
    """A whole run."""

    output_dir: Path
    """Run folder: checkpoints, metrics, adapter."""

    model: ModelSettings
    data: DataSettings
    lora: LoraSettings = LoraSettings()
    batch: BatchSettings = BatchSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    memory: MemorySettings = MemorySettings()
    guard: GuardSettings = GuardSettings()
    profile: ProfileSettings = ProfileSettings()

    deepspeed: str = "zero1"
    """A file of `ds_configs/` by name (zero0 … zero3, zero3_offload), or a path to a JSON file."""

    world_size: int | None = Field(default=None, ge=1)
    """Ranks that must take part, or None for any number."""

    seed: int = Field(default=0, ge=0)
    """Seed of the adapter's start, the order of rows, and dropout."""

    tensorboard: bool = True
    """Write TensorBoard files besides metrics.jsonl."""

    resume: bool = False
    """Go on from the newest whole checkpoint of output_dir; an error when there is none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.lora.targets)) != len(self.lora.targets) or not self.lora.targets:
            raise ValueError("lora.targets must name at least one layer, each once")
        return self


def load_run_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration from a YAML file or by the name of a shipped one.

    Raises:
        ConfigError: There is no such file, a key is unknown, or a value is not allowed.
    """
    return load_settings(RunConfig, find_shipped(str(path), "harness.configs"), overrides)


def gather_overrides(
    assignments: Sequence[str],
    *,
    vram_target: float | None = None,
    memory_snapshot: bool = False,
    profile: str | None = None,
    resume: bool = False,
) -> list[str]:
    """The overrides that a command line asks for: its assignments, and its flags spelt as such.

    Raises:
        ConfigError: `profile` is no assignment.
    """
    if profile is not None and "=" not in profile:
        raise ConfigError(
            f"--profile {profile}: expected steps=FIRST:END, as in steps=10:13 for 10, 11 and 12"
        )
    target = [] if vram_target is None else [f"memory.target={vram_target}"]
    snapshot = ["memory.snapshot=true"] if memory_snapshot else []
    profiled = [] if profile is None else [f"profile.{profile}"]
    return [*assignments, *target, *snapshot, *profiled, *(["resume=true"] if resume else [])]
