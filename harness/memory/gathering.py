"""Which weights ZeRO-3 makes whole, when, and how many bytes are alive and travel for it.

A forward and backward pass is a row of modules, each of which needs its weights whole: embedding, decoder layers (the
lean kernel's at once, peft's projection by projection), norm, and for every chunk of the loss the head. What
DeepSpeed's coordinator does with that row from the third pass on, when it knows it, is played through with sizes alone:

    fetch m     gather what is missing of m, in one tensor; wait, by which each weight is copied out of that tensor
    prefetch    then gather the next weights of the row, until `stage3_prefetch_bucket_size` values are on their way or
                `stage3_max_live_parameters` are alive
    release m   after m, unless a weight is needed again within `stage3_max_reuse_distance` values

So a bound of the whole is: max_live + prefetch + the largest module, twice where gathered tensors are copied. Source:
DeepSpeed 0.19.8, `zero/partitioned_param_coordinator.py`, `AllGatherCoalescedHandle` in `zero/partition_parameters.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from harness.memory.case import MemoryCase
from harness.memory.reduction import Ledger
from harness.memory.weights import (
    Weight,
    last_norm,
    list_embedding,
    list_head,
    list_layer,
    list_weights,
)

Weights = tuple[Weight, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """A module as the coordinator sees it.

    Attributes:
        weights: Those that it needs at once.
        inside: Weights of modules in it, which it does not need itself.
        is_leaf: Whether it is gathered with all that is in it (a lean layer).
    """

    weights: Weights = ()
    inside: Weights = ()
    is_leaf: bool = False

    def seen_by(self, other: Module) -> Weights:
        """The weights that count as this module's when it is asked whether `other`'s are needed again."""
        if other.is_leaf:
            return self.weights + self.inside
        return () if self.is_leaf else self.weights


def count_persistent(case: MemoryCase) -> int:
    """Bytes of small weights that stay whole at stage 3, besides their partitions."""
    return sum(list_persistent(case))


def count_gathered(case: MemoryCase) -> int:
    """Most bytes of whole weights alive at once in a forward and backward pass at stage 3, persistent ones included."""
    if case.zero.stage < 3 or not _gathers(case):
        return 0
    return count_persistent(case) + Gathering.play(case).ledger.most


def count_gathers(case: MemoryCase) -> int:
    """Bytes of whole weights that are gathered in a forward and backward pass at stage 3, each time counted."""
    return sum(list_gathers(case))


def list_gathers(case: MemoryCase) -> tuple[int, ...]:
    """Bytes of whole weights that each all-gather of a forward and backward pass at stage 3 makes, in their order."""
    return tuple(Gathering.play(case).gathers) if case.zero.stage == 3 and case.ranks > 1 else ()


def list_persistent(case: MemoryCase) -> tuple[int, ...]:
    """Bytes of each small weight that stays whole at stage 3; DeepSpeed gathers them one by one after the update."""
    if case.zero.stage < 3 or not _gathers(case):
        return ()
    return tuple(_padded_bytes(case, weight) for weight in list_weights(case) if _persists(case, weight))


def list_modules(case: MemoryCase) -> list[Module]:
    """The modules of a forward and backward pass in their order; those without weights prefetch too."""
    layers = [_layer_modules(case, layer) for layer in range(case.shape.num_layers)]
    head, chunks = _head_modules(case), max(1, -(-case.supervised // case.loss_chunk))
    everything = list_weights(case)
    in_head = len(list_head(case))
    model, body = Module(inside=everything), Module(inside=everything[: len(everything) - in_head])
    embedding, norm = Module(list_embedding(case)), Module((last_norm(case),))
    forward = [model, body, embedding, Module()]  # the last one computes rotary embeddings
    forward += [module for layer in layers for module in layer]
    forward += [norm, *head * chunks]
    backward = [model, *(head + head[::-1]) * chunks, body, norm]
    for index, layer in reversed(list(enumerate(layers))):
        backward += layer if index < case.recompute_layers else []
        backward += layer[::-1]
    return [*forward, *backward, embedding]


def _layer_modules(case: MemoryCase, layer: int) -> list[Module]:
    weights = list_layer(case, layer)
    if case.lora_kernel == "lean":
        return [Module(weights, is_leaf=True)]
    groups = (tuple(group) for _, group in groupby(weights, key=lambda weight: weight.module))
    return [Module(inside=weights), *(module for group in groups for module in _split_linear(group))]


def _head_modules(case: MemoryCase) -> list[Module]:
    return _split_linear((*(list_embedding(case) if case.shape.tied else ()), *list_head(case)))


def _split_linear(weights: Weights) -> list[Module]:
    """A linear layer alone; or peft's layer around it (which the new rows are with), itself, dropout, A and B."""
    rows = tuple(weight for weight in weights if weight.part == "new_rows")
    own = tuple(weight for weight in weights if weight.part in ("weight", "bias"))
    adapter = [Module((weight,)) for weight in weights if weight.part.startswith("lora")]
    if not adapter:
        return [Module((*own, *rows))]
    return [Module(rows), Module(own), Module(), *adapter]


def _gathers(case: MemoryCase) -> bool:
    """Whether whole weights are tensors of their own: alone, a rank uses its partitions, if they are on the device."""
    return case.ranks > 1 or (case.zero.offload_parameters and case.device == "cuda")


def _persists(case: MemoryCase, weight: Weight) -> bool:
    return weight.num_values <= case.zero.persistence_threshold


def _padded_bytes(case: MemoryCase, weight: Weight) -> int:
    return case.value_bytes * case.ranks * -(-weight.num_values // case.ranks)


@dataclass(slots=True)
class Flight:
    """Weights that are gathered in one tensor.

    Attributes:
        weights: Which.
        tensor_bytes: Of the tensor.
        waiting: Those that no module has asked for yet; the tensor lives until there are none.
        has_landed: Whether they have been copied out of it.
    """

    weights: Weights
    tensor_bytes: int
    waiting: set[Weight]
    has_landed: bool = False


@dataclass(slots=True)
class Gathering:
    """ZeRO-3's coordinator over the modules of a pass.

    Attributes:
        case: The case.
        modules: See `list_modules`; weights that persist are left out.
        ledger: Bytes of whole weights.
        gathers: Bytes of each all-gather so far.
    """

    case: MemoryCase
    modules: list[Module]
    ledger: Ledger = field(default_factory=Ledger)
    gathers: list[int] = field(default_factory=list)
    _whole: dict[Weight, int] = field(default_factory=dict)
    _flights: dict[Weight, Flight] = field(default_factory=dict)
    _queue: deque[tuple[int, Weight]] = field(default_factory=deque)
    _fetched_for: dict[Weight, int] = field(default_factory=dict)
    _live: int = 0

    @classmethod
    def play(cls, case: MemoryCase) -> Gathering:
        """Run through a pass."""
        modules = [
            replace(module, weights=tuple(weight for weight in module.weights if not _persists(case, weight)))
            for module in list_modules(case)
        ]
        gathering = cls(case, modules)
        uses = ((step, weight) for step, module in enumerate(modules) for weight in module.weights)
        gathering._queue = deque(uses)
        for step, module in enumerate(modules):
            gathering._fetch(step, module)
            gathering._prefetch()
            gathering._release(step, module)
        return gathering

    def _is_away(self, weight: Weight) -> bool:
        return weight not in self._whole and weight not in self._flights

    def _gather(self, weights: Sequence[Weight]) -> None:
        if not weights:
            return
        size = sum(_padded_bytes(self.case, weight) for weight in weights)
        flight = Flight(tuple(weights), size, set(weights))
        self._flights |= dict.fromkeys(weights, flight)
        self._live += sum(weight.num_values for weight in weights)
        self.gathers.append(size)
        self.ledger.take(size)

    def _fetch(self, step: int, module: Module) -> None:
        self._gather([weight for weight in module.weights if self._is_away(weight)])
        asked = [(weight, self._flights.pop(weight)) for weight in module.weights if weight in self._flights]
        for _, flight in asked:  # they land in any order, so all of them before a tensor goes: at most
            self._land(flight)
        for weight, flight in asked:
            flight.waiting.discard(weight)
            if not flight.waiting and len(flight.weights) > 1:
                self.ledger.drop(flight.tensor_bytes)
        missing = {weight for weight in module.weights if self._fetched_for.get(weight, -1) < step}
        while missing and self._queue:
            last_step, weight = self._queue.popleft()
            self._fetched_for[weight] = last_step
            missing.discard(weight)

    def _land(self, flight: Flight) -> None:
        """The weights of a flight become whole: copied, unless there is only one, which keeps the tensor."""
        if flight.has_landed:
            return
        flight.has_landed = True
        for weight in flight.weights:
            is_alone = len(flight.weights) == 1
            size = flight.tensor_bytes if is_alone else self.case.value_bytes * weight.num_values
            self.ledger.take(0 if is_alone else size)
            self._whole[weight] = size

    def _prefetch(self) -> None:
        zero = self.case.zero
        most, values = min(zero.max_live_parameters - self._live, zero.prefetch_bucket_size), 0
        chosen = dict[Weight, None]()
        while self._queue and values < most:
            step, weight = self._queue.popleft()
            self._fetched_for[weight] = max(self._fetched_for.get(weight, -1), step)
            if self._is_away(weight) and weight not in chosen:
                chosen[weight] = None
                values += weight.num_values
        self._gather(list(chosen))

    def _release(self, step: int, module: Module) -> None:
        going = {weight for weight in module.weights if self._fetched_for.get(weight, -1) <= step + 1}
        traversed = 0
        for later in self.modules[step + 1 :]:
            if traversed >= self.case.zero.max_reuse_distance or not going:
                break
            for weight in later.seen_by(module):
                going.discard(weight)
                traversed += weight.num_values
        for weight in going:
            if weight in self._whole:
                self.ledger.drop(self._whole.pop(weight))
                self._live -= weight.num_values
