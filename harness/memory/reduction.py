"""The most bytes that DeepSpeed's reduction of gradients and its optimizer's step take, tensor by tensor.

What DeepSpeed does is played through with sizes in the place of tensors: buckets fill up, are copied into one tensor
(by which they travel), and what they held on the gradients is let go of. Not counted
are scalars, and what a communication library takes itself. Source: DeepSpeed 0.19.8, `zero/stage_1_and_2.py`,
`zero/stage3.py`, `fp16/unfused_optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.memory.case import MemoryCase

FLOAT32, FLOAT64 = 4, 8


@dataclass(slots=True)
class Ledger:
    """Bytes that come and go.

    Attributes:
        now: Bytes alive.
        most: Most of them so far.
    """

    now: int = 0
    most: int = 0

    def take(self, num_bytes: int) -> None:
        """Some more are alive."""
        self.now += num_bytes
        self.most = max(self.most, self.now)

    def drop(self, num_bytes: int) -> None:
        """Some are no more."""
        self.now -= num_bytes

    def touch(self, num_bytes: int) -> None:
        """Some are alive for a moment."""
        self.most = max(self.most, self.now + num_bytes)


def split_partitions(sizes: Sequence[int], partition: int) -> list[dict[int, int]]:
    """For each parameter, how many of its values each rank's partition holds, where all lie in a row."""
    pieces, start = list[dict[int, int]](), 0
    for size in sizes:
        of_ranks, place = dict[int, int](), start
        while place < start + size:
            rank = place // partition
            end = min(start + size, (rank + 1) * partition)
            of_ranks[rank], place = end - place, end
        pieces.append(of_ranks)
        start += size
    return pieces


def peak_without_zero(case: MemoryCase, sizes: Sequence[int]) -> int:
    """Most bytes alive of gradients and work, at ZeRO-0."""
    ledger = Ledger()
    ledger.take(FLOAT32 * sum(sizes))
    if case.ranks > 1:
        ledger.touch(FLOAT32 * max(_chunks(sizes, case.zero.reduce_bucket_size), default=0))
    if case.precision != "fp32":  # for the norm it rounds all gradients, and widens one of them again
        ledger.touch(case.value_bytes * sum(sizes) + FLOAT32 * max(sizes, default=0))
    return ledger.most


def _chunks(sizes: Iterable[int], bucket: int) -> list[int]:
    """Values of tensors that are copied into one; a tensor alone is not copied."""
    chunks, members, values = list[int](), 0, 0
    for size in (*sizes, None):
        if size is not None:
            members, values = members + 1, values + size
        if members and (size is None or values > bucket):
            chunks += [values] if members > 1 else []
            members = values = 0
    return chunks


@dataclass(slots=True)
class PartitionedReduction:
    """ZeRO-1 and ZeRO-2: a bucket for gradients, then one partition of their sums.

    Args:
        case: The case.
        sizes: Values of each trained parameter.
        partition: Values of a rank's partition.
        rank: Which rank's memory is counted.
    """

    case: MemoryCase
    sizes: Sequence[int]
    partition: int
    rank: int
    ledger: Ledger = field(default_factory=Ledger)
    _pieces: list[dict[int, int]] = field(default_factory=list)
    _bucket: list[int] = field(default_factory=list)
    _result: int = 0

    def peak(self) -> int:
        """Most bytes alive of gradients, buckets and work until the weights are updated."""
        self._pieces = split_partitions(self.sizes, self.partition)
        self.ledger.take(FLOAT32 * sum(self.sizes))
        self.ledger.take(reduce_bucket_bytes(self.case))
        for index, size in enumerate(self.sizes):
            if self._filled() + size > self.case.zero.reduce_bucket_size:
                self._reduce()
            self._bucket.append(index)
            if not self._is_large(index):
                self.ledger.drop(FLOAT32 * size)  # the gradient is a view of the bucket now
        self._reduce()
        return max(self.ledger.most, self._update())

    @property
    def _is_compact(self) -> bool:
        """Whether sums are added straight into the partition that the optimizer reads, in float32."""
        half = self.case.precision != "fp32"
        return half and (self.case.zero.stage == 2 or not self.case.zero.offload_optimizer)

    def _own(self, index: int) -> int:
        return self._pieces[index].get(self.rank, 0)

    def _is_large(self, index: int) -> bool:
        return self.sizes[index] > self.case.zero.reduce_bucket_size

    def _filled(self) -> int:
        return sum(self.sizes[index] for index in self._bucket)

    def _reduce(self) -> None:
        if not self._bucket:
            return
        if self._is_compact and not self._result and any(map(self._own, self._bucket)):
            self._keep(FLOAT32 * self.partition)
        item = bucket_item(self.case)
        for values in _chunks(self._parcels(), self.case.zero.reduce_bucket_size):
            self.ledger.touch(values * (item if item == FLOAT32 else item + FLOAT32))
        for index in self._bucket:
            self._settle(index)
        self._bucket.clear()

    def _parcels(self) -> list[int]:
        """Values of the pieces that a bucket is sent in; neighbours for one rank are one piece."""
        parcels, previous = list[int](), None
        for index in self._bucket:
            for rank, values in self._pieces[index].items():
                has_target = self._is_compact and rank == self.rank
                if rank == previous and not has_target:
                    parcels[-1] += values
                else:
                    parcels.append(values)
                previous = rank
        return parcels

    def _settle(self, index: int) -> None:
        """What becomes of a gradient whose sum is there."""
        offloads = self.case.zero.offload_optimizer
        if self._own(index) and offloads and not self._is_compact:
            self.ledger.touch(FLOAT64 * self._own(index))
        elif self._own(index) and not self._is_compact and not self._result:
            self._keep(FLOAT32 * sum(size for other, size in enumerate(self.sizes) if self._own(other)))
        copied = self._own(index) and not self._is_compact
        if self._is_large(index) and (copied or (self.case.zero.stage == 2 and not self._own(index))):
            self.ledger.drop(FLOAT32 * self.sizes[index])

    def _keep(self, num_bytes: int) -> None:
        self._result = num_bytes
        self.ledger.take(num_bytes)

    def _update(self) -> int:
        """Most bytes alive while the weights are updated: the sums, one in float64 for its norm, and a flat copy."""
        if self.case.zero.offload_optimizer:
            return self._result
        own = list(filter(None, map(self._own, range(len(self.sizes)))))
        norm = FLOAT64 * max(own, default=0)
        if self._is_compact:
            return FLOAT32 * self.partition + norm
        padding = self.partition - sum(own)
        kept = self._result + FLOAT32 * padding
        flat = FLOAT32 * self.partition if len(own) + bool(padding) > 1 else 0
        return kept + max(norm, flat)


def bucket_item(case: MemoryCase) -> int:
    """Bytes of a value in the buckets of ZeRO-1 and ZeRO-2; `harness.half_precision` widens them but for offload."""
    return case.value_bytes if case.zero.offload_optimizer else FLOAT32


def reduce_bucket_bytes(case: MemoryCase) -> int:
    """Bytes of the buckets that a step of ZeRO-1 and ZeRO-2 makes; none at other stages."""
    if case.zero.stage not in (1, 2):
        return 0
    return bucket_item(case) * case.zero.reduce_bucket_size * (2 if case.zero.overlap_comm else 1)


def peak_of_stage_3(case: MemoryCase, sizes: Sequence[int]) -> int:
    """Most bytes alive of gradients and work at ZeRO-3, beyond its bucket and its partition of gradients."""
    bucket, pending, ledger = case.zero.reduce_bucket_size, list[int](), Ledger()
    ledger.take(FLOAT32 * sum(sizes))

    def reduce() -> None:
        ledger.touch(_scatter_bytes(pending, case.ranks))
        ledger.drop(FLOAT32 * sum(size for size in pending if size > bucket))
        pending.clear()

    for size in sizes:
        if pending and sum(pending) + size > bucket:
            reduce()
        pending.append(size)
        if size <= bucket:
            ledger.drop(FLOAT32 * size)
    reduce()
    return ledger.most


def work_of_stage_3(case: MemoryCase, sizes: Sequence[int]) -> int:
    """Most bytes of work while the weights are updated at ZeRO-3: one partition in float64, or all in one tensor."""
    if case.zero.offload_optimizer:
        return 0
    parts = [-(-size // case.ranks) for size in sizes]
    flat = FLOAT32 * sum(parts) if len(parts) > 1 else 0
    return max(FLOAT64 * max(parts, default=0), flat)


def _scatter_bytes(sizes: Sequence[int], ranks: int) -> int:
    """Of the tensor that is scattered, and of the padding that it is put together with."""
    if not sizes or (len(sizes) == 1 and sizes[0] % ranks == 0):
        return 0
    padded = sum(-(-size // ranks) * ranks for size in sizes)
    return FLOAT32 * (2 * padded - sum(sizes))
