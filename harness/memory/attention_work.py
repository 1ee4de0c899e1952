"""Bytes that attention takes beside its queries, keys and values, forward and backward; rotary embedding included.

| kernel       | keeps for backward, besides rotated q, k and v                                                  |
|--------------|-------------------------------------------------------------------------------------------------|
| flash, flex  | output [N, Q], log-sum-exp float32[heads, N]                                                    |
| sdpa         | the same; keys and values repeated for every query head [N, Q] each; the mask as numbers [R, T, T] |
| eager        | keys and values repeated; scores float32 and probabilities, [R, heads, T, T]                    |

A kernel's own workspace is seen by no count of operators; on a GPU it is added from the kernels' definitions: the flash
backward of torch sums the gradient of the queries in float32 [N, Q] and keeps a float32[heads, N] of sums
(`mha_varlen_bwd` in pytorch's flash_api.cpp: `dq_accum`, `softmax_d`), and gradients of keys and values for every
query head [N, Q] each where heads share keys (`dk_expanded`, `dv_expanded`), sequences rounded up to 128.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.memory.sizes import FLOAT32, Sizes
from harness.memory.tape import NOTHING, Made, Tape

FUSED = ("flash", "flex")


@dataclass(frozen=True)
class Attended:
    """What attention keeps for its backward pass."""

    query: Made
    key: Made
    value: Made
    out: Made
    others: tuple[Made, ...]


def log_sums(sizes: Sizes) -> int:
    """float32[heads, N]."""
    return sizes.case.slots * sizes.case.shape.num_heads * FLOAT32


def pairs(sizes: Sizes) -> int:
    """[R, T, T]: pairs of a dense mask."""
    return sizes.case.slots * min(sizes.case.row_slots, sizes.case.slots)


def rotate(tape: Tape, num_bytes: int) -> Made:
    """The rotary embedding x cos + rotate_half(x) sin, of the bytes of x; x itself stays."""
    first = tape.make(num_bytes)
    half = tape.make(num_bytes // 2)
    joined = tape.make(num_bytes)
    tape.drop(half)
    second = tape.make(num_bytes)
    tape.drop(joined)
    rotated = tape.make(num_bytes, "activations")
    tape.drop(first, second)
    return rotated


def rotate_back(tape: Tape, gradient: Made) -> Made:
    """The gradient of `rotate`'s input, in the place of that of its result."""
    num_bytes = gradient.num_bytes
    by_sine = tape.make(num_bytes)
    half = tape.make(num_bytes // 2)
    first = tape.make(num_bytes)
    tape.drop(half)
    second = tape.make(num_bytes)
    tape.drop(by_sine)
    joined = tape.make(num_bytes)
    tape.drop(first, second)
    by_cosine = tape.make(num_bytes)
    tape.drop(gradient)
    total = tape.make(num_bytes)
    tape.drop(joined, by_cosine)
    return total


def attend(tape: Tape, sizes: Sizes, query: Made, key: Made, value: Made) -> Attended:
    """Attention forward; keeps what its table says."""
    if sizes.case.attention in FUSED:
        out = tape.make(sizes.queries, "activations")
        return Attended(query, key, value, out, (tape.make(log_sums(sizes), "activations"),))
    repeated = tuple(tape.make(sizes.queries, "activations") for _ in range(2))
    if sizes.case.shape.num_heads == sizes.case.shape.num_kv_heads:
        tape.drop(*repeated)
        repeated = (NOTHING, NOTHING)
    else:
        tape.drop(key, value)
        key = value = NOTHING
    if sizes.case.attention == "sdpa":
        mask = tape.make(pairs(sizes) * sizes.value, "activations")
        out = tape.make(sizes.queries, "activations")
        return Attended(query, key, value, out, (*repeated, mask, tape.make(log_sums(sizes), "activations")))
    return _attend_eagerly(tape, sizes, query, (*repeated, key, value))


def _attend_eagerly(tape: Tape, sizes: Sizes, query: Made, kept: tuple[Made, ...]) -> Attended:
    """Scores, scaled, masked, their softmax in float32, its copy in the model's precision."""
    all_pairs = pairs(sizes) * sizes.case.shape.num_heads
    scores, scaled = (tape.make(all_pairs * sizes.value) for _ in range(2))
    tape.drop(scores)
    masked = tape.make(all_pairs * sizes.value)
    tape.drop(scaled)
    wide = tape.make(all_pairs * FLOAT32, "activations")
    rounded = tape.make(all_pairs * sizes.value * sizes.is_half, "activations")
    tape.drop(masked)
    mixed = tape.make(sizes.queries)
    out = tape.make(sizes.queries, "activations")
    tape.drop(mixed)
    return Attended(query, NOTHING, NOTHING, out, (*kept, wide, rounded))


def attend_back(tape: Tape, sizes: Sizes, kept: Attended, gradient: Made) -> tuple[Made, Made, Made]:
    """Gradients of query, key and value; `gradient`, and what was kept, end."""
    work = tape.make(_workspace(sizes))
    if sizes.case.attention in FUSED:
        found = tuple(tape.make(one) for one in (sizes.queries, sizes.keys, sizes.keys))
        tape.drop(work, gradient, kept.query, kept.key, kept.value, kept.out, *kept.others)
        return found[0], found[1], found[2]
    if sizes.case.attention == "eager":
        grouped = _eager_back(tape, sizes)
    else:
        grouped = tuple(tape.make(sizes.queries) for _ in range(3))
    tape.drop(work, gradient, kept.query, kept.key, kept.value, kept.out, *kept.others)
    key, value = tape.make(sizes.keys), tape.make(sizes.keys)
    tape.drop(*grouped[1:])
    return grouped[0], key, value


def _eager_back(tape: Tape, sizes: Sizes) -> tuple[Made, ...]:
    all_pairs = pairs(sizes) * sizes.case.shape.num_heads
    value = tape.make(sizes.queries)
    probabilities = tape.make(all_pairs * sizes.value)
    wide = tape.make(all_pairs * FLOAT32 * sizes.is_half)
    tape.drop(probabilities)
    product = tape.make(all_pairs * FLOAT32)
    tape.drop(wide)
    scores = tape.make(all_pairs * sizes.value)
    tape.drop(product)
    query, key = tape.make(sizes.queries), tape.make(sizes.queries)
    tape.drop(scores)
    return query, key, value


def drop_attended(tape: Tape, kept: Attended) -> Attended:
    """What attention keeps ends; nothing is in its place."""
    tape.drop(kept.query, kept.key, kept.value, kept.out, *kept.others)
    return Attended(NOTHING, NOTHING, NOTHING, NOTHING, ())


def _workspace(sizes: Sizes) -> int:
    """What the flash kernel's backward pass takes besides its results, on a GPU."""
    case = sizes.case
    if case.device == "cpu" or case.attention == "eager":
        return 0
    wide_queries = case.slots * case.shape.num_heads * case.shape.head_dim * FLOAT32
    is_grouped = case.shape.num_heads != case.shape.num_kv_heads
    return wide_queries + log_sums(sizes) + 2 * sizes.queries * is_grouped
