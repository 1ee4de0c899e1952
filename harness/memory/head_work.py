"""Bytes of the head and the loss (`harness.head`): logits exist for `loss_chunk` supervised tokens at a time.

| while a chunk of c tokens is at work              | bytes                       |
|---------------------------------------------------|-----------------------------|
| logits in the model's precision                   | c V b                       |
| their float32 copy, in place softmax and slope    | 4 c V                       |
| the slope in the model's precision                | c V b (none in float32)     |
| a LoRA of the head: up to two more during forward, one in backward | c V b each |

and as long as the loss runs: hidden states of the M supervised tokens and their gradient [M, H] each, and float32 sums
of the gradients of the head's adapter (and those of the chunk before).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.memory.sizes import FLOAT32, Sizes
from harness.memory.tape import NOTHING, Made, Tape


@dataclass(frozen=True)
class HeadKept:
    """What the loss keeps for the backward pass: gradients that only have to be scaled."""

    hidden: Made
    adapter: tuple[Made, ...]


def _gathered(sizes: Sizes) -> int:
    """[M, H]."""
    return sizes.case.supervised * sizes.case.shape.hidden_size * sizes.value


def _find_gradient(tape: Tape, sizes: Sizes, values: int, over: Made = NOTHING) -> Made:
    """A gradient of so many values, float32 after its parameter's `grad_dtype`; `over` ends when it is found."""
    own = tape.make(values * sizes.value, "logits")
    tape.drop(over)
    if not sizes.is_half:
        return own
    wide = tape.make(values * FLOAT32, "logits")
    tape.drop(own)
    return wide


def _adapter_values(sizes: Sizes, *, with_b: bool = True) -> tuple[int, ...]:
    """Values of the head's trained matrices: rows of new tokens, its adapter's A and B."""
    rows = sizes.case.new_tokens * sizes.case.shape.hidden_size
    found = (rows, sizes.matrix_a("lm_head"), sizes.matrix_b("lm_head") * with_b)
    return tuple(values for values in found if values)


def loss(tape: Tape, sizes: Sizes, hidden: Made) -> HeadKept:
    """The body's output (which ends) to the loss and the gradients that are taken with it."""
    gathered = tape.make(_gathered(sizes), "logits")
    tape.drop(hidden)
    gradient = tape.make(_gathered(sizes), "logits")
    values = _adapter_values(sizes)
    sums = [tape.make(one * FLOAT32, "logits") for one in values]
    found: tuple[Made, ...] = ()
    left = sizes.case.supervised
    while left > 0 or not found:
        found = _chunk(tape, sizes, min(left, sizes.case.loss_chunk), found)
        left -= sizes.case.loss_chunk
        if left > sizes.case.loss_chunk:  # all full chunks after the first are alike
            left = sizes.case.loss_chunk + (left % sizes.case.loss_chunk)
    rounded = tuple(tape.make(one * sizes.value * sizes.is_half, "logits") for one in values)
    tape.drop(*found, gathered)
    if sizes.is_half:
        tape.drop(*sums)
    return HeadKept(gradient, rounded if sizes.is_half else tuple(sums))


def _chunk(tape: Tape, sizes: Sizes, tokens: int, before: tuple[Made, ...]) -> tuple[Made, ...]:
    """One pass through the head; the gradients that the pass before found end when it has found its own."""
    logits, kept = _logits(tape, sizes, tokens)
    wide = tape.make(_of_vocabulary(sizes, tokens) // sizes.value * FLOAT32, "logits")
    slope = wide
    if sizes.is_half:
        slope = tape.make(_of_vocabulary(sizes, tokens), "logits")
        tape.drop(wide)
    found = [_find_gradient(tape, sizes, one) for one in _adapter_values(sizes, with_b=False)]
    if sizes.rank("lm_head"):
        scaled = tape.make(_of_vocabulary(sizes, tokens), "logits")
        found.append(_find_gradient(tape, sizes, sizes.matrix_b("lm_head"), over=scaled))
        by_adapter = tape.make(_hidden_of(sizes, tokens), "logits")
        by_base = tape.make(_hidden_of(sizes, tokens), "logits")
        tape.touch(_hidden_of(sizes, tokens))
        tape.drop(by_base, by_adapter)
    found.append(tape.make(_hidden_of(sizes, tokens), "logits"))
    tape.drop(*before, *kept, logits, slope)
    return tuple(found)


def _logits(tape: Tape, sizes: Sizes, tokens: int) -> tuple[Made, tuple[Made, ...]]:
    """The head forward, with its adapter if it has one: logits, and what autograd keeps of the adapter."""
    size, rank = _of_vocabulary(sizes, tokens), sizes.rank("lm_head")
    base = tape.make(size, "logits")
    if not rank:
        return base, ()
    masked = tape.make(_hidden_of(sizes, tokens) * sizes.has_dropout, "logits")
    low_rank = tape.make(tokens * rank * sizes.value, "logits")
    added, scaled = tape.make(size, "logits"), tape.make(size, "logits")
    tape.drop(added)
    total = tape.make(size, "logits")
    tape.drop(scaled, base)
    return total, (masked, low_rank)


def _of_vocabulary(sizes: Sizes, tokens: int) -> int:
    """[tokens, V]."""
    return tokens * sizes.case.shape.vocab_size * sizes.value


def _hidden_of(sizes: Sizes, tokens: int) -> int:
    """[tokens, H]."""
    return tokens * sizes.case.shape.hidden_size * sizes.value


def loss_back(tape: Tape, sizes: Sizes, kept: HeadKept) -> Made:
    """The gradient of the body's output [N, H], zero but at supervised positions."""
    scaled = []
    for one in (kept.hidden, *kept.adapter):
        wide = tape.make(one.num_bytes // sizes.value * FLOAT32, "logits")
        rounded = tape.make(one.num_bytes, "logits") if sizes.is_half else wide
        if sizes.is_half:
            tape.drop(wide)
        scaled.append(rounded)
    tape.drop(kept.hidden, *kept.adapter)
    own, *adapter = scaled
    casts = [tape.make(one.num_bytes // sizes.value * FLOAT32 * sizes.is_half, "logits") for one in adapter]
    tape.drop(*casts, *adapter)
    zeros = tape.make(sizes.hidden)
    gradient = tape.make(sizes.hidden)
    tape.drop(zeros, own)
    return gradient


def logits_without_gradient(tape: Tape, sizes: Sizes, hidden: Made) -> None:
    """Evaluation: losses alone, chunk by chunk; cross entropy holds logits, their float32 copy, log-probabilities."""
    gathered = tape.make(_gathered(sizes), "logits")
    tape.drop(hidden)
    tokens = min(sizes.case.supervised, sizes.case.loss_chunk)
    logits, kept = _logits(tape, sizes, tokens)
    wide = _of_vocabulary(sizes, tokens) // sizes.value * FLOAT32
    tape.drop(tape.make(wide * sizes.is_half, "logits"), tape.make(wide, "logits"), logits, *kept, gathered)
