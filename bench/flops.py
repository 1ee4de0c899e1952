"""Do the FLOPs that `harness.flops` predicts from sizes agree with those that torch counts operator by operator?

The models have their true shapes but no memory: they lie on torch's meta device, where every operator is recorded and
none is computed. Attention is counted as its own formula says for `flash`, and as plain products for `eager`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu_rows import draw_rows
from bench.random_model import make_random
from bench.record import Outcome, WrongResultError, summarize
from harness.assembly import set_attention
from harness.config import ATTENTION_AND_MLP
from harness.data import MicroBatch, collate
from harness.flops import Kind, LoraShape, StepFlops, count_step_flops
from harness.loss import ForestLanguageModel
from harness.recompute import enable_recompute
from harness.shapes import ModelShape, find_shape
from preprocess.forest import PackedRow, unpack_examples

TOLERANCE = 0.01
META = torch.device("meta")
CPU = torch.device("cpu")
WITH_HEAD = (*ATTENTION_AND_MLP, "lm_head")


@dataclass(frozen=True, slots=True)
class Case:
    """One way of computing a step.

    Attributes:
        name: What is special about it.
        shape: Of `harness.shapes`.
        family: Whose layers of transformers.
        targets: Layers with an adapter; none: nothing trains but the base.
        r: The adapter's rank.
        recompute: Layers that run again, or all.
        kernel: "lean" or "peft".
        attention: "flash", or "eager" over a dense mask.
        shared: Whether the examples of a song share its lyrics.
        fused_head: Whether the head's gradient is taken in the forward pass.
        train_base: Whether the base trains.
        num_layers: Fewer layers than the shape has, or None.
    """

    name: str
    shape: str = "llama-3.2-3b"
    family: Literal["llama", "mistral", "qwen2"] = "llama"
    targets: tuple[str, ...] = ATTENTION_AND_MLP
    r: int = 128
    recompute: int | Literal["all"] = 0
    kernel: Literal["lean", "peft"] = "lean"
    attention: Kind = "flash"
    shared: bool = True
    fused_head: bool = True
    train_base: bool = False
    num_layers: int | None = 4

    @property
    def model_shape(self) -> ModelShape:
        """The shape, with this case's layers."""
        shape = find_shape(self.shape)
        return shape if self.num_layers is None else replace(shape, num_layers=self.num_layers)

    @property
    def recompute_layers(self) -> int:
        """Layers that run again."""
        return self.model_shape.num_layers if self.recompute == "all" else self.recompute


CASES: tuple[Case, ...] = (
    Case("the whole 3B model", num_layers=None),
    Case("peft's own forward pass", kernel="peft"),
    Case("an adapter on the head", targets=WITH_HEAD),
    Case("an adapter on the head, peft", targets=WITH_HEAD, kernel="peft"),
    Case("q and v alone", targets=("q_proj", "v_proj"), r=16),
    Case("the head alone", targets=("lm_head",), kernel="peft"),
    Case("half the layers recompute", recompute=2),
    Case("all layers recompute", recompute="all"),
    Case("half the layers recompute, peft", recompute=2, kernel="peft"),
    Case("all layers recompute, peft", recompute="all", kernel="peft"),
    Case(
        "all but down_proj, all recompute, peft",
        targets=ATTENTION_AND_MLP[:6],
        recompute="all",
        kernel="peft",
    ),
    Case("separate examples", shared=False),
    Case("a dense mask", attention="eager"),
    Case("a dense mask, separate examples, all recompute", attention="eager", shared=False, recompute="all"),
    Case("logits computed again in backward", targets=WITH_HEAD, fused_head=False),
    Case("the base trains, no adapter", targets=(), train_base=True, kernel="peft"),
    Case("untied head, Mistral", "mistral-7b", "mistral"),
    Case("biases, Qwen2", "qwen2.5-0.5b", "qwen2", recompute=1),
    Case("heads of 64, SmolLM2", "smollm2-135m", r=16),
)


def measure(*, quick: bool) -> Outcome:
    """Compare prediction and count in every case.

    Raises:
        WrongResultError: They differ by more than `TOLERANCE` somewhere, or a count that leaves something out agrees.
    """
    cases = [replace(case, num_layers=2, recompute=min_recompute(case)) for case in CASES] if quick else CASES
    rows = draw_rows(seq_len=1024, num_rows=2)
    figures, worst = {}, 0.0
    for case in cases:
        batch = lay_out(case, rows)
        counted, predicted = count(case, batch), predict(case, batch).hardware.total
        error = predicted / counted - 1
        worst = max(worst, abs(error))
        figures[f"{case.name}: counted"] = summarize([counted / 1e12], "TFLOP")
        figures[f"{case.name}: predicted - counted"] = summarize([100 * error], "%")
    if worst > TOLERANCE:
        lines = [f"{name} {figure.median:.3g} {figure.unit}" for name, figure in figures.items()]
        raise WrongResultError("prediction and count differ by more than 1 %: " + "; ".join(lines))
    return Outcome(
        baseline="torch.utils.flop_counter",
        figures=figures,
        ratios={},
        facts={
            "cases": len(cases),
            "largest_difference_percent": 100 * worst,
            **{
                f"error_percent_without_{name}": error for name, error in leave_out(rows, quick=quick).items()
            },
        },
    )


def min_recompute(case: Case) -> int | Literal["all"]:
    """What a case recomputes when it has two layers."""
    return case.recompute if case.recompute == "all" else min(case.recompute, 1)


def leave_out(rows: Sequence[PackedRow], *, quick: bool) -> dict[str, float]:
    """By what percentage a prediction is wrong that forgets a part, which shows that the check can fail.

    Raises:
        WrongResultError: One is within the tolerance.
    """
    case = Case("", recompute="all", num_layers=2 if quick else 4)
    batch = lay_out(case, rows)
    counted = count(case, batch)
    forgetful: Mapping[str, Case] = {
        "lora": replace(case, targets=()),
        "recompute": replace(case, recompute=0),
        "frozen_base": replace(case, train_base=True),
    }
    errors = {
        name: 100 * (predict(other, batch).hardware.total / counted - 1) for name, other in forgetful.items()
    }
    if min(abs(error) for error in errors.values()) <= 100 * TOLERANCE:
        raise WrongResultError(f"a prediction that leaves something out agrees all the same: {errors}")
    return errors


def lay_out(case: Case, rows: Sequence[PackedRow]) -> MicroBatch:
    """A case's micro-batch, on the CPU: flat for `flash`, padded where there is a dense mask."""
    own = rows if case.shared else [example for row in rows for example in unpack_examples(row)]
    return collate(own, flat=case.attention == "flash")


def predict(case: Case, batch: MicroBatch) -> StepFlops:
    """What `harness.flops` says."""
    counts = batch.counts
    num_rows, num_slots = batch.input_ids.shape
    return count_step_flops(
        case.model_shape,
        LoraShape(case.r, case.targets) if case.targets else None,
        tokens=counts.tokens,
        attention_pairs=counts.attention_pairs,
        supervised_tokens=counts.supervised_tokens,
        recompute_layers=case.recompute_layers,
        attention=case.attention,
        slots=counts.slots,
        computed_pairs=None if case.attention == "flash" else num_rows * num_slots**2,
        lora_kernel=case.kernel,
        train_base=case.train_base,
        fused_head=case.fused_head,
    )


def count(case: Case, batch: MicroBatch) -> int:
    """What torch counts in one step, forward and backward."""
    model = build(case)
    # torch knows addmm alone, and takes addmm_ for no work at all.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: count_addmm})
    # Its table by module cannot follow a gradient that is taken inside a forward pass, as the head's is.
    cast("Any", counter).mod_tracker = _NoModules()
    with counter:
        loss_sum, _ = model(batch.to(META), num_chunks=None if case.fused_head else 1)
        loss_sum.backward()
    return int(counter.get_total_flops())


def count_addmm(added: Sequence[int], left: Sequence[int], right: Sequence[int], **_: object) -> int:
    """FLOPs of added + left right, from the three shapes."""
    return 2 * left[0] * left[1] * right[1]


class _NoModules:
    """Stands for a module tracker that knows of no module."""

    parents = frozenset({"Global"})
    is_bw = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def build(case: Case) -> ForestLanguageModel:
    """A case's model without memory, in training mode."""
    base = build_base(case)
    causal: nn.Module = base
    if case.targets:
        # The harness's own function looks at the base's weights, to know it again; here there are none.
        causal = add_adapter(base, case)
    enable_recompute(causal, case.recompute_layers)
    if case.kernel == "lean":
        from harness.lean import make_lean

        refused = make_lean(causal)
        assert refused is None, refused
    model = ForestLanguageModel(causal, loss_chunk=1024)
    return model.train()


def add_adapter(base: nn.Module, case: Case) -> nn.Module:
    """The base with peft's modules in it."""
    config = LoraConfig(r=case.r, target_modules=list(case.targets), bias="none", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        adapted = get_peft_model(base, config, autocast_adapter_dtype=False)
    return cast("nn.Module", adapted.get_base_model())


def build_base(case: Case) -> nn.Module:
    """The base of a case."""
    model = make_random(case.model_shape, META, torch.float32, case.family)
    set_attention(model, case.attention, CPU)
    return model.requires_grad_(requires_grad=case.train_base)
