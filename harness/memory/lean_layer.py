"""Bytes of a lean decoder layer (`harness.lean`), forward and backward, tensor by tensor as its functions make them.

Kept for backward, with N tokens, b bytes a value, r the rank (what has no adapter keeps no h):

| tensor                              | shape             | bytes              |
|-------------------------------------|-------------------|--------------------|
| inputs of the two norms             | 2 x [N, H]        | 2 N H b            |
| 1 / rms of both                     | 2 x float32[N]    | 8 N                |
| h of q, k, v; o; gate, up; down     | [N, 7 r]          | 7 N r b            |
| rotated queries and keys, values    | [N, Q + 2 K]      | N (Q + 2 K) b      |
| attention's output and log-sum-exp  | [N, Q], float32[heads, N] | N Q b + 4 N heads |
| gate, up                            | 2 x [N, F]        | 2 N F b            |

The offsets of the dropout and the angles of the rotary embedding are one for all layers (`harness.memory.activations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.memory.attention_work import (
    Attended,
    attend,
    attend_back,
    drop_attended,
    rotate,
    rotate_back,
)
from harness.memory.gradients import cast_gradients
from harness.memory.norm_work import lean_norm, lean_norm_again, lean_norm_back
from harness.memory.sizes import FLOAT32, Sizes
from harness.memory.tape import NOTHING, Made, Tape

QKV = ("q_proj", "k_proj", "v_proj")
GATE_UP = ("gate_proj", "up_proj")


@dataclass(frozen=True)
class LeanKept:
    """What a layer keeps besides its input."""

    first: tuple[Made, ...]
    attended: Attended
    low_rank_out: Made
    middle: Made
    second: tuple[Made, ...]
    gate_up: tuple[Made, ...]
    low_rank_down: Made


def forward(tape: Tape, sizes: Sizes, *, keeps: bool = True) -> LeanKept:
    """A layer whose input is alive, up to (without) the sum that is its output; that of the MLP stays alive.

    The last tensor that is alive beside what is kept is the down projection's result: see `finish`.

    Args:
        tape: Where it is replayed.
        sizes: Of the case.
        keeps: Whether autograd keeps anything. Else tensors end with the names that Python has for them, and the result
            tells of what is left until the layer ends.
    """
    normal = lean_norm(tape, sizes)
    rms = tape.make(sizes.rms, "activations")
    parts, low_rank = _project(tape, sizes, QKV)
    tape.drop(normal)
    query, key = rotate(tape, sizes.queries), rotate(tape, sizes.keys)
    value = _keep(tape, parts[2])
    attended = attend(tape, sizes, query, key, value)
    out, low_rank_out = _project(tape, sizes, ("o_proj",))
    tape.drop(*parts[:2])  # q and k before they were turned, which Python's names hold until here
    if not keeps:
        tape.drop(rms, low_rank, low_rank_out)
        rms = low_rank = low_rank_out = NOTHING
        attended = drop_attended(tape, attended)
    middle = tape.make(sizes.hidden, "activations")
    tape.drop(*out)
    normal = lean_norm(tape, sizes)
    second_rms = tape.make(sizes.rms, "activations")
    gate_up, second = _project(tape, sizes, GATE_UP)
    tape.drop(normal)
    gate_up = [_keep(tape, one) for one in gate_up]
    if not keeps:
        tape.drop(second_rms, second)
        second_rms = second = NOTHING
    inner = tape.make(sizes.inner)
    _, low_rank_down = _project(tape, sizes, ("down_proj",))
    tape.drop(inner)
    return LeanKept(
        (rms, low_rank), attended, low_rank_out, middle, (second_rms, second), tuple(gate_up), low_rank_down
    )


def finish(tape: Tape, sizes: Sizes) -> Made:
    """The layer's output, from the MLP's (which ends) and the stream's."""
    output = tape.make(sizes.hidden, "activations")
    tape.drop(Made(sizes.hidden, "layer_work"))
    return output


def forward_alone(tape: Tape, sizes: Sizes) -> Made:
    """A layer that will run again: nothing is kept but its input, and names hold what they hold."""
    kept = forward(tape, sizes, keeps=False)
    output = finish(tape, sizes)
    drop_kept(tape, kept)
    return output


def drop_kept(tape: Tape, kept: LeanKept) -> None:
    """What a layer kept ends."""
    drop_attended(tape, kept.attended)
    tape.drop(*kept.first, kept.low_rank_out, kept.middle, *kept.second, *kept.gate_up, kept.low_rank_down)


def backward(
    tape: Tape, sizes: Sizes, kept: LeanKept, stream: Made, layer_input: Made, *, needs_input: bool
) -> Made:
    """The gradient of a layer's input from that of its output; what was kept ends, and the input."""
    grad_gate, grad_up = _gated_back(tape, sizes, kept)
    stream = _norm_project_back(tape, sizes, GATE_UP, (grad_gate, grad_up), stream)
    tape.drop(kept.middle, *kept.second)
    gradient = _project_back(tape, sizes, ("o_proj",), needs_input=True)
    cast_gradients(tape, sizes, ("o_proj",))
    tape.drop(kept.low_rank_out)
    query, key, value = attend_back(tape, sizes, kept.attended, gradient)
    key = rotate_back(tape, key)
    query = rotate_back(tape, query)
    key, query = (_make_contiguous(tape, one) for one in (key, query))
    stream = _norm_project_back(tape, sizes, QKV, (query, key, value), stream, needs_input=needs_input)
    tape.drop(layer_input, *kept.first)
    return stream


def _keep(tape: Tape, tensor: Made) -> Made:
    """The same tensor, counted as kept."""
    tape.drop(tensor)
    return tape.make(tensor.num_bytes, "activations")


def _make_contiguous(tape: Tape, gradient: Made) -> Made:
    copy = tape.make(gradient.num_bytes)
    tape.drop(gradient)
    return copy


def _project(tape: Tape, sizes: Sizes, names: tuple[str, ...]) -> tuple[list[Made], Made]:
    """`harness.lean.projection.project`: the results, and h, which is kept."""
    rows = _quantize(tape, sizes, sizes.input_of(names[0]))
    results = [tape.make(sizes.output_of(name)) for name in names]
    rank = sizes.ranks(names)
    if not rank:
        tape.drop(rows)
        return results, NOTHING
    masked = tape.make(sizes.input_of(names[0]) * sizes.has_dropout)
    joined = tape.make(_joined(sizes, names))
    low_rank = tape.make(sizes.tokens(rank), "activations")
    tape.drop(masked, joined, rows)
    return results, low_rank


def _joined(sizes: Sizes, names: tuple[str, ...]) -> int:
    """[sum of ranks, W], the matrices A one below another; a view of a single one."""
    with_adapter = [name for name in names if sizes.rank(name)]
    return sum(map(sizes.matrix_a, with_adapter)) * sizes.value * (len(with_adapter) > 1)


def _quantize(tape: Tape, sizes: Sizes, num_bytes: int) -> Made:
    """float8 rows of a tensor of so many bytes; its quotient is float32."""
    if not sizes.case.fp8:
        return NOTHING
    values = num_bytes // sizes.value
    quotient = tape.make(values * FLOAT32)
    rows = tape.make(values)
    tape.drop(quotient)
    return rows


def _project_back(tape: Tape, sizes: Sizes, names: tuple[str, ...], *, needs_input: bool) -> Made:
    """`project_back`: the gradient of the input; those of the adapters stay alive, see `cast_gradients`."""
    width = sizes.input_of(names[0])
    with_adapter = [name for name in names if sizes.rank(name)]
    back = [tape.make(sizes.low_rank(name)) for name in with_adapter]
    joined = tape.make(sum(one.num_bytes for one in back) * (len(back) > 1))
    if with_adapter:
        masked = tape.make(width * sizes.has_dropout)
        tape.make(sum(map(sizes.matrix_a, with_adapter)) * sizes.value)
        tape.drop(masked)
        tape.make(sum(map(sizes.matrix_b, with_adapter)) * sizes.value)
    total = NOTHING
    if needs_input:
        matrices = tape.make(_joined(sizes, names))
        total = tape.make(width)
        tape.drop(matrices)
        if with_adapter and sizes.has_dropout:
            masked = tape.make(width)
            tape.drop(total)
            total = masked
        _multiply_back(tape, sizes, names)
    tape.drop(joined, *back)
    return total


def _multiply_back(tape: Tape, sizes: Sizes, names: Sequence[str]) -> None:
    """In float8 each product is a tensor of its own before it is added."""
    if not sizes.case.fp8:
        return
    for name in names:
        rows = _quantize(tape, sizes, sizes.output_of(name))
        tape.touch(sizes.input_of(name))
        tape.drop(rows)


def _gated_back(tape: Tape, sizes: Sizes, kept: LeanKept) -> tuple[Made, Made]:
    """`GatedProject.backward`: the gradients of gate and up."""
    active = tape.make(sizes.inner)
    inner = tape.make(sizes.inner * bool(sizes.rank("down_proj")))
    total = _project_back(tape, sizes, ("down_proj",), needs_input=True)
    gradient = tape.make(sizes.inner)
    tape.drop(inner, total)
    cast_gradients(tape, sizes, ("down_proj",))
    tape.drop(*kept.gate_up, kept.low_rank_down)
    return gradient, active


def _norm_project_back(
    tape: Tape,
    sizes: Sizes,
    names: tuple[str, ...],
    gradients: tuple[Made, ...],
    stream: Made,
    *,
    needs_input: bool = True,
) -> Made:
    """`NormProject.backward`: its input's gradient, added to the stream's (whose tensor ends)."""
    normal = lean_norm_again(tape, sizes) if sizes.ranks(names) else NOTHING
    total = _project_back(tape, sizes, names, needs_input=needs_input)
    if needs_input:
        total = lean_norm_back(tape, sizes, total)
    tape.drop(normal, *gradients)
    cast_gradients(tape, sizes, names)
    if not needs_input:
        tape.drop(stream)
        return NOTHING
    added = tape.make(sizes.hidden)
    tape.drop(stream, total)
    return added
