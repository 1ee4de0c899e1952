"""Bytes of a micro-step's forward pass, loss and backward pass, replayed from sizes alone.

`replay` runs through a pass tensor by tensor: what is kept for the backward pass comes and stays, temporaries come and
go. So the peak of each stretch, and what it is made of, come out as they would from an allocator without slack.

Kept outside the decoder layers, with N tokens, b bytes a value:

| tensor                                            | shape                          | bytes               |
|---------------------------------------------------|--------------------------------|---------------------|
| batch: ids, positions, keys; entry, exit          | 3 x int64[N], 2 x int32[N]     | 32 N                |
| batch: sources, targets, tasks of M supervised    | 3 x int64[M]                   | 24 M                |
| layout of the forest kernels                      | int64[about N]                 | 8 N                 |
| dropout: offsets of each masked input             | int64[inputs, N]               | 8 N inputs          |
| dropout: tables, int16, int32 and int64           | 3 x [2^18 + widest input]      | 14 (2^18 + width)   |
| cosines and sines                                 | 2 x [N, D]                     | 2 N D b             |
| embedding's output (the first layer's input)      | [N, H]                         | N H b               |
| last norm: the float32 copy of its input, 1 / rms | float32[N, H], float32[N]      | 4 N H + 4 N         |
| gradients of the hidden states at supervised positions | [M, H]                    | M H b               |

A recomputed layer keeps its input [N, H] alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.memory import head_work, lean_layer, peft_layer
from harness.memory.case import MemoryCase, Part
from harness.memory.lean_layer import LeanKept
from harness.memory.norm_work import Normed, norm, norm_back
from harness.memory.peft_layer import PeftKept
from harness.memory.sizes import FLOAT32, Sizes
from harness.memory.tape import NOTHING, Made, Tape

INT64 = 8
NUM_OFFSETS = 2**18
"""As in `harness.dropout`, which imports torch; a test compares them."""

TABLES = 2 + 4 + 8
"""Bytes of a column of the dropout's tables."""

MASKED_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
RNG_STATE = 5056
"""Bytes of torch's generator state, which each recomputed layer keeps; on the CPU whatever the device."""


@dataclass(frozen=True, slots=True)
class PassMemory:
    """A micro-step's bytes.

    Attributes:
        kept: Alive at the end of the forward pass's body, its output included.
        peaks: By stretch (forward, loss, backward) the bytes alive at its peak, by part.
    """

    kept: int
    peaks: Mapping[str, Mapping[Part, int]]

    def total(self, stretch: str) -> int:
        """Bytes alive at a stretch's peak."""
        return sum(self.peaks[stretch].values())


def batch_bytes(case: MemoryCase) -> int:
    """A micro-batch's tensors on the device."""
    return case.slots * (3 * INT64 + 2 * 4) + 3 * INT64 * case.supervised + INT64 * case.slots


def kept_by_layer(case: MemoryCase) -> int:
    """Bytes that one decoder layer keeps for the backward pass, its input (or the float32 copy of it) included."""
    tape, sizes = Tape(), Sizes(case)
    tape.begin("forward")
    stream = tape.make(sizes.hidden, "activations")
    output, *_ = _forward_layer(tape, sizes, stream, trains_before=True)
    return tape.now - output.num_bytes


def replay(case: MemoryCase) -> PassMemory:
    """Forward pass, loss and backward pass of one micro-step, without the batch's own tensors."""
    tape, sizes = Tape(), Sizes(case)
    tape.begin("forward")
    draws = _draw_dropout(tape, sizes)
    hidden, layers, last = _forward(tape, sizes)
    kept = tape.now
    tape.begin("loss")
    head = head_work.loss(tape, sizes, hidden)
    tape.begin("backward")
    stream = head_work.loss_back(tape, sizes, head)
    stream = norm_back(tape, sizes, last, stream)
    _backward(tape, sizes, layers, stream)
    tape.drop(draws)
    return PassMemory(kept, dict(tape.peaks))


def replay_evaluation(case: MemoryCase) -> Mapping[Part, int]:
    """A micro-batch without gradients: the peak by part. No layer keeps anything."""
    tape, sizes = Tape(), Sizes(case)
    tape.begin("eval")
    stream = _embed(tape, sizes)[0]
    layer = lean_layer if case.lora_kernel == "lean" else peft_layer
    output = layer.forward_alone(tape, sizes)
    tape.drop(stream)
    hidden, kept = norm(tape, sizes)
    tape.drop(kept.wide, kept.rms, output)
    head_work.logits_without_gradient(tape, sizes, hidden)
    return {
        ("layer_work" if part == "activations" else part): num_bytes
        for part, num_bytes in _merge(tape.peaks["eval"]).items()
    }


def _merge(parts: Mapping[Part, int]) -> dict[Part, int]:
    """Where nothing is kept, what layers hold is their work."""
    work = parts.get("activations", 0) + parts.get("layer_work", 0)
    return {"layer_work": work, "logits": parts.get("logits", 0)}


def _draw_dropout(tape: Tape, sizes: Sizes) -> Made:
    """Offsets and tables, which the draw holds."""
    if not sizes.has_dropout:
        return NOTHING
    groups = [names for names in MASKED_TOGETHER if sizes.ranks(names)]
    inputs = len(groups) * sizes.case.shape.num_layers + bool(sizes.rank("lm_head"))
    widest = max(sizes.widths[name][0] for name in sizes.widths if sizes.rank(name))
    offsets = sizes.case.slots * inputs * INT64
    made = tape.make(TABLES * (NUM_OFFSETS + widest) + offsets, "activations")
    tape.touch(2 * offsets)
    return made


@dataclass(frozen=True)
class _Layer:
    """A layer after its forward pass: what it keeps (None if it runs again), and its input."""

    kept: LeanKept | PeftKept | None
    layer_input: Made


def _embed(tape: Tape, sizes: Sizes) -> tuple[Made, Made]:
    """The embedding's output, and cosines and sines."""
    case = sizes.case
    stream = tape.make(sizes.hidden, "activations")
    angles = case.slots * case.shape.head_dim
    wide = [tape.make(angles * FLOAT32) for _ in range(3)]
    tape.touch(angles * FLOAT32)
    turned = tape.make(2 * angles * sizes.value, "activations")
    tape.drop(*wide)
    return stream, turned


def _forward(tape: Tape, sizes: Sizes) -> tuple[Made, list[_Layer], Normed]:
    """The body: its output, what each layer keeps, and the last norm."""
    stream, _ = _embed(tape, sizes)
    embedded, mask = stream, tape.make(_dense_mask(sizes), "activations")
    layers: list[_Layer] = []
    for index in range(sizes.case.shape.num_layers):
        if index < sizes.case.recompute_layers:
            layers.append(_Layer(None, stream))
            stream = _forward_alone(tape, sizes)
        else:
            before = stream
            stream, kept, is_kept = _forward_layer(
                tape, sizes, before, trains_before=_trains_before(sizes, index)
            )
            layers.append(_Layer(kept, before if is_kept else NOTHING))
    hidden, last = norm(tape, sizes)
    tape.drop(mask)
    if layers[0].layer_input is NOTHING:
        tape.drop(embedded)  # which a name of the body's holds
    if not sizes.is_half:
        return hidden, layers, Normed(stream, last.rms)
    tape.drop(stream)
    return hidden, layers, last


def _trains_before(sizes: Sizes, index: int) -> bool:
    """Whether a layer's input has a gradient: before the first, only rows of new tokens are trained."""
    return index > 0 or sizes.case.new_tokens > 0


def _dense_mask(sizes: Sizes) -> int:
    """bool[R, 1, T, T], or numbers for eager attention; nothing for kernels without a mask."""
    if sizes.case.attention not in ("sdpa", "eager"):
        return 0
    pairs = sizes.case.slots * min(sizes.case.row_slots, sizes.case.slots)
    return pairs * (sizes.value if sizes.case.attention == "eager" else 1)


def _forward_alone(tape: Tape, sizes: Sizes) -> Made:
    if sizes.case.lora_kernel == "lean":
        return lean_layer.forward_alone(tape, sizes)
    return peft_layer.forward_alone(tape, sizes)


def _forward_layer(
    tape: Tape, sizes: Sizes, stream: Made, *, trains_before: bool
) -> tuple[Made, LeanKept | PeftKept, bool]:
    """A layer that keeps what its backward pass needs: its output, that, and whether its input is kept."""
    if sizes.case.lora_kernel == "lean":
        lean = lean_layer.forward(tape, sizes)
        return lean_layer.finish(tape, sizes), lean, True
    kept = peft_layer.forward(tape, sizes, trains_before=trains_before)
    output = peft_layer.finish(tape, sizes, kept)
    is_kept = trains_before and not sizes.is_half  # in float32 the norm's wide copy is the input itself
    if not is_kept and trains_before:
        tape.drop(stream)
    return output, kept, is_kept


def _backward(tape: Tape, sizes: Sizes, layers: list[_Layer], stream: Made) -> None:
    """All layers from the last to the first. Before the first nothing trains, unless new token rows do."""
    for index, layer in reversed(list(enumerate(layers))):
        needs_input = _trains_before(sizes, index)
        kept = layer.kept if layer.kept is not None else _run_again(tape, sizes, trains_before=needs_input)
        if isinstance(kept, LeanKept):
            stream = lean_layer.backward(
                tape, sizes, kept, stream, layer.layer_input, needs_input=needs_input
            )
        else:
            stream = peft_layer.backward(
                tape, sizes, kept, stream, layer.layer_input, needs_input=needs_input
            )


def _run_again(tape: Tape, sizes: Sizes, *, trains_before: bool) -> LeanKept | PeftKept:
    """A recomputed layer once more, up to what it keeps last: its output is not computed."""
    if sizes.case.lora_kernel == "lean":
        lean = lean_layer.forward(tape, sizes)
        tape.drop(Made(sizes.hidden, "layer_work"))
        return lean
    kept = peft_layer.forward(tape, sizes, trains_before=trains_before, again=True)
    tape.drop(Made(sizes.hidden, "layer_work"), kept.middle)
    return kept
