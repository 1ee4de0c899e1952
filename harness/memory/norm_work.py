"""Bytes that RMSNorm takes: transformers' own (the model's last norm, all norms of peft's layers), and the lean one.

transformers' norm computes in float32 operator by operator, on every device: autograd keeps the float32 copy of its
input [N, H] and 1 / rms float32[N], and its backward pass holds up to five float32 [N, H] beside them. The lean one
keeps neither copy (`harness.lean.norm`); on a GPU one kernel does it all.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.memory.sizes import Sizes
from harness.memory.tape import NOTHING, Made, Tape


@dataclass(frozen=True)
class Normed:
    """What transformers' norm keeps: the float32 copy of its input (none of a float32 input), and 1 / rms."""

    wide: Made
    rms: Made


def norm(tape: Tape, sizes: Sizes) -> tuple[Made, Normed]:
    """The norm of transformers of a hidden state that is alive: its result, and what is kept."""
    wide = tape.make(sizes.wide_hidden, "activations") if sizes.is_half else NOTHING
    tape.touch(sizes.wide_hidden)  # the square
    rms = tape.make(sizes.rms, "activations")
    scaled = tape.make(sizes.wide_hidden)
    rounded = tape.make(sizes.hidden) if sizes.is_half else NOTHING
    result = tape.make(sizes.hidden)
    tape.drop(rounded, scaled)
    return result, Normed(wide, rms)


def norm_back(tape: Tape, sizes: Sizes, kept: Normed, gradient: Made) -> Made:
    """The gradient of the norm's input; the one of its result ends, and what was kept."""
    size = sizes.wide_hidden
    weighted = tape.make(sizes.hidden)
    tape.drop(gradient)
    if sizes.is_half:
        wide = tape.make(size)
        tape.drop(weighted)
        weighted = wide
    direct = tape.make(size)
    tape.touch(size)  # times the input, to be summed for 1 / rms
    tape.drop(weighted, kept.rms)
    mean, power, doubled = (tape.make(size) for _ in range(3))
    through_rms = tape.make(size)
    tape.drop(mean, power, doubled, kept.wide)
    total = tape.make(size)
    tape.drop(direct, through_rms)
    if not sizes.is_half:
        return total
    rounded = tape.make(sizes.hidden)
    tape.drop(total)
    return rounded


def lean_norm(tape: Tape, sizes: Sizes) -> Made:
    """`harness.lean.norm.normalize` but for 1 / rms: the result."""
    if sizes.case.device == "cuda":
        return tape.make(sizes.hidden)
    wide = tape.make(sizes.wide_hidden * sizes.is_half)
    tape.touch(sizes.wide_hidden)
    return _scale(tape, sizes, wide)


def lean_norm_again(tape: Tape, sizes: Sizes) -> Made:
    """`normalize_again`: the result."""
    if sizes.case.device == "cuda":
        return tape.make(sizes.hidden)
    return _scale(tape, sizes, tape.make(sizes.wide_hidden * sizes.is_half))


def _scale(tape: Tape, sizes: Sizes, wide: Made) -> Made:
    """Times 1 / rms, rounded, times the weight."""
    scaled = tape.make(sizes.wide_hidden)
    if sizes.is_half:
        rounded = tape.make(sizes.hidden)
        tape.drop(scaled)
        scaled = rounded
    result = tape.make(sizes.hidden)
    tape.drop(scaled, wide)
    return result


def lean_norm_back(tape: Tape, sizes: Sizes, gradient: Made) -> Made:
    """`normalize_back`: the gradient of the input; the one of the result ends."""
    if sizes.case.device == "cuda":
        result = tape.make(sizes.hidden)
        tape.drop(gradient)
        return result
    size = sizes.wide_hidden
    weighted = tape.make(sizes.hidden)
    scaled = weighted
    if sizes.is_half:
        scaled = tape.make(size)
        tape.drop(weighted)
    copy = tape.make(size * sizes.is_half)
    normal = tape.make(size)
    tape.drop(copy)
    tape.touch(size)
    shared = tape.make(size)
    difference = tape.make(size)
    tape.drop(shared)
    result = tape.make(sizes.hidden) if sizes.is_half else NOTHING
    tape.drop(*((difference,) if sizes.is_half else ()), normal, scaled, gradient)
    return result if sizes.is_half else difference
