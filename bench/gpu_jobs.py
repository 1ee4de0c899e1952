"""What `bench.gpu` measures: the configurations in the order of their importance, and what comes back of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Self

Status = Literal["measured", "out of memory", "error", "out of time", "not reached", "not supported"]
Attention = Literal["flash", "flex", "sdpa", "eager"]


@dataclass(frozen=True, slots=True)
class Job:
    """One configuration.

    Attributes:
        name: Short, as in tables and records.
        attention: "flash", "flex", "sdpa" or "eager".
        recompute: Share of the decoder layers that run again in the backward pass, 0 to 1.
        lora_kernel: "lean" or "peft".
        compile: Whether the decoder layers are compiled.
        fp8: Whether the frozen projections compute in float8.
        liger: Whether Liger's kernels are put in (they replace parts of transformers' layers, so with `peft` alone).
        head_lora: Whether the head has an adapter too.
        dropout: On the adapters' inputs.
        rows: Rows of a micro-batch, or None: as many as fit.
    """

    name: str
    attention: Attention = "flash"
    recompute: float = 0.0
    lora_kernel: Literal["lean", "peft"] = "lean"
    compile: bool = False
    fp8: bool = False
    liger: bool = False
    head_lora: bool = False
    dropout: float = 0.05
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What all configurations of a run share.

    Attributes:
        shape: Name of the model's shape; see `harness.shapes`.
        vram_gib: Cap on memory, or None.
        seq_len: Slots of a row.
        r: Rank of the adapters.
        num_turns: Timed steps of a configuration.
        max_tokens: A micro-batch is not made larger, even if there is memory.
    """

    shape: str
    vram_gib: float | None = None
    seq_len: int = 2048
    r: int = 128
    num_turns: int = 5
    max_tokens: int = 65_536

    @classmethod
    def quick(cls) -> Self:
        """A look, on any CPU."""
        return cls(shape="toy", seq_len=512, r=4, num_turns=2, max_tokens=1024)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one configuration.

    Attributes:
        name: The job's.
        status: "measured", or why not.
        note: What else there is to say: the error, what was used instead of what.
        rows: Rows of a micro-batch.
        counts: Rows, examples, tokens, supervised tokens, pairs of one step.
        seconds: Of each timed step.
        parts_s: Median seconds of forward with loss, backward, optimizer.
        peak_gib: Highest memory by phase.
        model_flops: Of one step.
        hardware_flops: Of one step.
        build_s: Seconds until the first step could start, with all before it.
        used: What took part: engine, kernels.
    """

    name: str
    status: Status
    note: str = ""
    rows: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    parts_s: dict[str, float] = field(default_factory=dict)
    peak_gib: dict[str, float] = field(default_factory=dict)
    model_flops: int = 0
    hardware_flops: int = 0
    build_s: float = 0.0
    used: dict[str, str] = field(default_factory=dict)


PLAN: tuple[Job, ...] = (
    Job("flash"),
    Job("flash_compile", compile=True),
    Job("sdpa", attention="sdpa"),
    Job("flash_fp8", fp8=True),
    Job("flash_recompute_all", recompute=1.0),
    Job("flash_recompute_half", recompute=0.5),
    Job("flash_peft", lora_kernel="peft"),
    Job("flex", attention="flex"),
    Job("flash_fp8_compile", fp8=True, compile=True),
    Job("flash_peft_liger", lora_kernel="peft", liger=True),
    Job("flash_one_row", rows=1),
    Job("flash_no_dropout", dropout=0.0),
    Job("flash_head_lora", head_lora=True),
    Job("sdpa_peft_recompute_all", attention="sdpa", lora_kernel="peft", recompute=1.0),
)
"""The most important first: when the time is up, the last ones are left."""

QUICK_PLAN: tuple[Job, ...] = (
    Job("flash"),
    Job("sdpa", attention="sdpa"),
    Job("flash_recompute_all", recompute=1.0),
    Job("flash_peft", lora_kernel="peft"),
)


def choose_jobs(names: str | None, *, quick: bool, head_lora: bool) -> list[Job]:
    """The jobs of a plan, those with some names alone (in the order of the names) where there are any.

    Raises:
        KeyError: There is no job of a name.
    """
    plan = QUICK_PLAN if quick and names is None else PLAN
    by_name = {job.name: job for job in PLAN}
    chosen = list(plan) if names is None else [by_name[name] for name in names.split(",")]
    return [replace(job, head_lora=job.head_lora or head_lora) for job in chosen]
