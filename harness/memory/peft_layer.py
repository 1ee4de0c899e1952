"""Bytes of a decoder layer as transformers and peft compute it, forward and backward, operator by operator.

Kept for backward, with N tokens, b bytes a value, r the rank (in float32 the wide copies are the tensors themselves):

| tensor                                         | shape                | bytes             |
|------------------------------------------------|----------------------|-------------------|
| float32 copies of both norms' inputs, 1 / rms  | 2 x float32[N, H]    | 8 N H + 8 N       |
| inputs of the adapters: two norms' results, attention's output (below), the MLP's product | | N (2 H + F) b |
| with dropout, a masked input of each adapter instead | [N, in] each   | N (5 H + Q + F) b |
| lora_A's result of seven adapters              | [N, 7 r]             | 7 N r b           |
| rotated queries and keys, values               | [N, Q + 2 K]         | N (Q + 2 K) b     |
| attention's output and log-sum-exp             | [N, Q], float32[heads, N] | N Q b + 4 N heads |
| gate, up, silu(gate)                           | 3 x [N, F]           | 3 N F b           |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.memory.attention_work import (
    Attended,
    attend,
    attend_back,
    drop_attended,
    rotate,
    rotate_back,
)
from harness.memory.lean_layer import QKV
from harness.memory.norm_work import Normed, norm, norm_back
from harness.memory.sizes import FLOAT32, Sizes
from harness.memory.tape import NOTHING, Made, Tape


@dataclass(frozen=True)
class Adapted:
    """What a projection keeps: its adapter's input, masked or shared (then at one of them), and lora_A's result."""

    name: str
    masked: Made
    low_rank: Made


@dataclass(frozen=True)
class PeftKept:
    """What a layer keeps besides its input, which ends, but in float32."""

    first: Normed
    qkv: tuple[Adapted, ...]
    attended: Attended
    out: Adapted
    middle: Made
    second: Normed
    gate_up: tuple[Adapted, ...]
    inner: tuple[Made, ...]
    down: Adapted


def forward(
    tape: Tape, sizes: Sizes, *, trains_before: bool = True, keeps: bool = True, again: bool = False
) -> PeftKept:
    """A layer whose input is alive, up to (without) the sum that is its output; that of the MLP stays alive.

    Args:
        tape: Where it is replayed.
        sizes: Of the case.
        trains_before: Whether the layer's input has a gradient; else its first norm keeps nothing.
        keeps: Whether autograd keeps anything; as in `lean_layer.forward`.
        again: Whether it is the run for the backward pass, which torch stops once all that is kept is there.
    """
    normal, first = norm(tape, sizes)
    if not (trains_before and keeps):
        tape.drop(first.wide, first.rms)
        first = Normed(NOTHING, NOTHING)
    qkv, (query, key, value) = _project_all(tape, sizes, QKV, keeps=keeps)
    value = _keep(tape, value)
    turned = rotate(tape, sizes.queries), rotate(tape, sizes.keys)
    tape.drop(query, key)
    attended = attend(tape, sizes, *turned, value)
    out, result = _project(tape, sizes, "o_proj", keeps=keeps)
    qkv = _settle(tape, sizes, normal, qkv, keeps=keeps)
    if not keeps:
        attended = drop_attended(tape, attended)
    middle = tape.make(sizes.hidden, "activations")
    tape.drop(result)
    normal, second = norm(tape, sizes)
    if not keeps:
        tape.drop(second.wide, second.rms)
        second = Normed(NOTHING, NOTHING)
    gate, gate_value = _project(tape, sizes, "gate_proj", keeps=keeps)
    gate_value = _keep(tape, gate_value)
    active = tape.make(sizes.inner, "activations")
    if not keeps:
        tape.drop(gate_value)
        gate_value = NOTHING
    up, up_value = _project(tape, sizes, "up_proj", keeps=keeps)
    up_value = _keep(tape, up_value)
    product = tape.make(sizes.inner)
    if not keeps:
        tape.drop(active, up_value)
        active = up_value = NOTHING
    down, _ = _project(tape, sizes, "down_proj", keeps=keeps, stops=again)
    (down,) = _settle(tape, sizes, product, (down,), keeps=keeps)
    gate_up = _settle(tape, sizes, normal, (gate, up), keeps=keeps)
    inner = (gate_value, active, up_value)
    if keeps and not sizes.is_half:
        second = Normed(middle, second.rms)
        middle = NOTHING
    return PeftKept(first, qkv, attended, out, middle, second, gate_up, inner, down)


def finish(tape: Tape, sizes: Sizes, kept: PeftKept) -> Made:
    """The layer's output. The stream in its middle ends (in float32 its norm keeps it: it is `second.wide`)."""
    output = tape.make(sizes.hidden, "activations")
    tape.drop(Made(sizes.hidden, "layer_work"), kept.middle)
    return output


def forward_alone(tape: Tape, sizes: Sizes) -> Made:
    """A layer that will run again: nothing is kept but its input."""
    kept = forward(tape, sizes, keeps=False)
    output = finish(tape, sizes, kept)
    drop_kept(tape, kept)
    return output


def drop_kept(tape: Tape, kept: PeftKept) -> None:
    """What a layer kept ends."""
    drop_attended(tape, kept.attended)
    tape.drop(kept.first.wide, kept.first.rms, kept.second.wide, kept.second.rms, *kept.inner)
    for adapted in (*kept.qkv, kept.out, *kept.gate_up, kept.down):
        tape.drop(adapted.masked, adapted.low_rank)


def backward(
    tape: Tape, sizes: Sizes, kept: PeftKept, stream: Made, layer_input: Made, *, needs_input: bool
) -> Made:
    """The gradient of a layer's input from that of its output; what was kept ends, and the input."""
    gate, active, up = kept.inner
    gradient = _project_back(tape, sizes, kept.down, NOTHING, NOTHING)
    by_up, by_gate = tape.make(sizes.inner), tape.make(sizes.inner)
    tape.drop(gradient, active, up)
    total = _project_back(tape, sizes, kept.gate_up[1], by_up, NOTHING)
    silu_back = tape.make(sizes.inner)
    tape.drop(by_gate, gate)
    total = _project_back(tape, sizes, kept.gate_up[0], silu_back, total)
    stream = _add(tape, sizes, stream, norm_back(tape, sizes, kept.second, total))
    gradient = _project_back(tape, sizes, kept.out, NOTHING, NOTHING)
    query, key, value = attend_back(tape, sizes, kept.attended, gradient)
    key = rotate_back(tape, key)
    query = rotate_back(tape, query)
    total = NOTHING
    for adapted, own in zip(reversed(kept.qkv), (value, key, query), strict=True):
        total = _project_back(tape, sizes, adapted, own, total, needs_input=needs_input)
    if not needs_input:
        tape.drop(kept.first.wide, kept.first.rms, stream, layer_input)
        return NOTHING
    stream = _add(tape, sizes, stream, norm_back(tape, sizes, kept.first, total))
    tape.drop(layer_input)
    return stream


def _keep(tape: Tape, tensor: Made) -> Made:
    """The same tensor, counted as kept."""
    tape.drop(tensor)
    return tape.make(tensor.num_bytes, "activations")


def _settle(
    tape: Tape, sizes: Sizes, tensor: Made, readers: tuple[Adapted, ...], *, keeps: bool
) -> tuple[Adapted, ...]:
    """The input of some projections, after the last of them: kept where adapters read it unmasked, else it ends.

    It goes with the first of the readers, which is the last one backward.
    """
    owner = next((index for index, one in enumerate(readers) if sizes.rank(one.name)), None)
    if not keeps or owner is None or sizes.has_dropout:
        tape.drop(tensor)
        return readers
    kept = replace(readers[owner], masked=_keep(tape, tensor))
    return (*readers[:owner], kept, *readers[owner + 1 :])


def _project_all(
    tape: Tape, sizes: Sizes, names: Sequence[str], *, keeps: bool
) -> tuple[tuple[Adapted, ...], tuple[Made, ...]]:
    adapted, results = zip(*(_project(tape, sizes, name, keeps=keeps) for name in names), strict=True)
    return adapted, results


def _project(
    tape: Tape, sizes: Sizes, name: str, *, keeps: bool, stops: bool = False
) -> tuple[Adapted, Made]:
    """What peft computes, `base(x) + lora_B(lora_A(dropout(x))) * scale`, whose result is alive.

    Where it `stops`, after lora_A, the base's result is.
    """
    result = tape.make(sizes.output_of(name))
    if not sizes.rank(name):
        return Adapted(name, NOTHING, NOTHING), result
    masked = tape.make(sizes.input_of(name) * sizes.has_dropout, "activations")
    low_rank = tape.make(sizes.low_rank(name), "activations")
    if stops:
        return Adapted(name, masked, low_rank), result
    added = tape.make(sizes.output_of(name))
    if not keeps:
        tape.drop(masked, low_rank)
        masked = low_rank = NOTHING
    scaled = tape.make(sizes.output_of(name))
    tape.drop(added)
    total = tape.make(sizes.output_of(name))
    tape.drop(scaled, result)
    return Adapted(name, masked, low_rank), total


def _project_back(
    tape: Tape, sizes: Sizes, adapted: Adapted, gradient: Made, total: Made, *, needs_input: bool = True
) -> Made:
    """The gradient of a projection's input, added to `total` (which ends); `gradient` ends as well."""
    name = adapted.name
    if sizes.rank(name):
        total = _adapter_back(tape, sizes, adapted, total, needs_input=needs_input)
    if not needs_input:
        tape.drop(gradient, total)
        return NOTHING
    by_base = tape.make(sizes.input_of(name))
    tape.drop(gradient)
    if total.num_bytes == 0:
        return by_base
    added = tape.make(sizes.input_of(name))
    tape.drop(total, by_base)
    return added


def _adapter_back(tape: Tape, sizes: Sizes, adapted: Adapted, total: Made, *, needs_input: bool) -> Made:
    name = adapted.name
    scaled = tape.make(sizes.output_of(name))
    grad_b = tape.make(sizes.matrix_b(name) * sizes.value)
    back = tape.make(sizes.low_rank(name))
    tape.drop(scaled, adapted.low_rank)
    _cast(tape, sizes, grad_b)
    grad_a = tape.make(sizes.matrix_a(name) * sizes.value)
    by_adapter = tape.make(sizes.input_of(name) * needs_input)
    tape.drop(back, adapted.masked)
    _cast(tape, sizes, grad_a)
    if not needs_input:
        return total
    if sizes.has_dropout:
        unmasked = tape.make(sizes.input_of(name))
        tape.drop(by_adapter)
        by_adapter = unmasked
    if total.num_bytes == 0:
        return by_adapter
    added = tape.make(sizes.input_of(name))
    tape.drop(total, by_adapter)
    return added


def _cast(tape: Tape, sizes: Sizes, gradient: Made) -> None:
    """A new gradient becomes float32, is added to the parameter's, and ends."""
    wide = tape.make(gradient.num_bytes // sizes.value * FLOAT32 * sizes.is_half)
    tape.drop(gradient, wide)


def _add(tape: Tape, sizes: Sizes, stream: Made, gradient: Made) -> Made:
    added = tape.make(sizes.hidden)
    tape.drop(stream, gradient)
    return added
