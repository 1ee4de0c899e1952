"""Process group, rank and the few collectives that the loop needs, over DeepSpeed's own communication layer."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import deepspeed
import torch
import torch.distributed
from deepspeed.accelerator import get_accelerator

from harness.cluster.interface import INTERFACE_VARIABLE, choose_gloo_interface, find_interface
from harness.guard.marks import MARKS
from preprocess.errors import PreflightError, UserError

T = TypeVar("T")

Engine: TypeAlias = Any
"""A `deepspeed.DeepSpeedEngine`; the package ships no types."""

Optimizer: TypeAlias = Any
"""What a DeepSpeed engine wraps around an optimizer; the package ships no types."""

HostGroup: TypeAlias = Any
"""A `torch.distributed.ProcessGroup` over gloo."""

_HOST_GROUPS: dict[tuple[int, str], HostGroup] = {}

LAUNCHED_SIZE_VARIABLE = "LYRICS_WORLD_SIZE"
"""Set by `harness launch` to the number of ranks that it was asked for."""


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among the ranks.

    Attributes:
        rank: Global rank, 0 … size - 1.
        size: Ranks over all hosts.
        local_rank: Rank on this host.
        device: Where this rank computes.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0


def join_world(expected_size: int | None) -> World:
    """Join the process group that the launcher set up (or a group of one, without a launcher).

    Args:
        expected_size: Ranks that must take part, or None.

    Raises:
        PreflightError: Another number of ranks was started, or the first host's port cannot be used.
    """
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
    }.items():
        os.environ.setdefault(name, value)
    size = int(os.environ["WORLD_SIZE"])
    os.environ.setdefault("MASTER_PORT", "0" if size == 1 else "29500")  # alone, any free port will do
    launched_size = os.environ.get(LAUNCHED_SIZE_VARIABLE)
    expected_size = int(launched_size) if expected_size is None and launched_size else expected_size
    if expected_size is not None and size != expected_size:
        raise PreflightError(
            f"{size} ranks were started, but {expected_size} are asked for. Check the hostfile's path and its slots: "
            "DeepSpeed's launcher falls back to this machine alone when it does not find the file"
        )
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        # DeepSpeed would spend most of a minute compiling a shared-memory kernel that only inference uses.
        deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
        _share_cores()
    if accelerator.device_name() == "cuda":
        _check_devices(int(os.environ["LOCAL_RANK"]), accelerator.device_count())
        accelerator.set_device(int(os.environ["LOCAL_RANK"]))
    interface = choose_gloo_interface(os.environ)
    if interface is not None:
        os.environ[INTERFACE_VARIABLE] = interface
    try:
        deepspeed.init_distributed(dist_backend=accelerator.communication_backend_name(), verbose=False)
    except torch.distributed.DistNetworkError as error:
        raise PreflightError(
            f"port {os.environ['MASTER_PORT']} of {os.environ['MASTER_ADDR']} cannot be used "
            f"({str(error).splitlines()[0]}). Another run may hold it: pass another one with --master_port"
        ) from error
    local_rank = int(os.environ["LOCAL_RANK"])
    return World(
        torch.distributed.get_rank(), torch.distributed.get_world_size(), local_rank, _device(local_rank)
    )


def _check_devices(local_rank: int, num_devices: int) -> None:
    if local_rank >= num_devices:
        raise PreflightError(
            f"{local_rank + 1} ranks or more were started on {socket.gethostname()}, but it shows {num_devices} "
            "devices; correct its slots in the hostfile, or CUDA_VISIBLE_DEVICES there"
        )


def _share_cores() -> None:
    """Give each rank of this host its part of the cores, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks_here))


def _device(local_rank: int) -> torch.device:
    accelerator = get_accelerator()
    return torch.device("cpu" if accelerator.device_name() == "cpu" else accelerator.device_name(local_rank))


def leave_world() -> None:
    """End the process group."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def barrier() -> None:
    """Wait for every rank."""
    with MARKS.waiting():
        torch.distributed.barrier()


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The element-wise sum of a tensor over all ranks, on every rank."""
    total = values.clone()
    with MARKS.waiting():
        torch.distributed.all_reduce(total)
    return total


def max_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The element-wise maximum of a tensor over all ranks, on every rank."""
    highest = values.clone()
    with MARKS.waiting():
        torch.distributed.all_reduce(highest, op=torch.distributed.ReduceOp.MAX)
    return highest


def run_together(action: Callable[[], T]) -> T:
    """Run something on every rank; where it fails on one, all fail with that error instead of waiting for it.

    Raises:
        UserError: What the action raised here, or on the first rank where it failed.
    """
    value: T | None = None
    own: UserError | None = None
    try:
        value = action()
    except UserError as error:
        own = error
    found = gather_objects(None if own is None else (type(own), str(own)))
    if own is not None:
        raise own
    for rank, failure in enumerate(found):
        if failure is not None:
            kind, message = failure
            raise kind(f"on rank {rank}: {message}")
    return cast("T", value)


def gather_objects(value: Any, group: HostGroup | None = None) -> list[Any]:  # noqa: ANN401 - any picklable value
    """The values of all ranks in rank order, on every rank.

    Args:
        value: This rank's.
        group: Through which they travel; None for the group of training.
    """
    values: list[Any] = [None] * torch.distributed.get_world_size()
    with MARKS.waiting():
        torch.distributed.all_gather_object(values, value, group=group)
    return values


def gather_bytes(value: bytes, group: HostGroup) -> list[bytes]:
    """The bytes of all ranks in rank order, on every rank; they travel as they are, nothing is unpickled.

    Args:
        value: This rank's, of any length.
        group: Between host memories; see `host_group`.
    """
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(torch.distributed.get_world_size())]
    with MARKS.waiting():
        torch.distributed.all_gather(sizes, torch.tensor([len(value)]), group=group)
        lengths = [int(size.item()) for size in sizes]
        own = torch.zeros(max(lengths), dtype=torch.uint8)
        own[: len(value)] = torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else own[:0]
        found = [torch.zeros_like(own) for _ in sizes]
        if max(lengths):
            torch.distributed.all_gather(found, own, group=group)
    return [part[:length].numpy().tobytes() for part, length in zip(found, lengths, strict=True)]


def host_group(purpose: str) -> HostGroup:
    """A group of all ranks over gloo, between host memories; every rank must call this in the same order.

    Collectives of one group must come in the same order on all ranks, so what runs beside training, in a thread of
    its own, has a group of its own. The same purpose gives the same group.
    """
    default = torch.distributed.group.WORLD
    if (key := (id(default), purpose)) not in _HOST_GROUPS:
        _name_interface()
        _HOST_GROUPS[key] = torch.distributed.new_group(backend="gloo")
    return _HOST_GROUPS[key]


def _name_interface() -> None:
    """Let gloo use the interface that leads to the first host, as NCCL does, and not whatever the host's name means."""
    if torch.distributed.get_backend() == "gloo" or INTERFACE_VARIABLE in os.environ:
        return
    interface = find_interface(os.environ["MASTER_ADDR"])
    if interface is not None:
        os.environ[INTERFACE_VARIABLE] = interface


def is_true_everywhere(flag: bool, group: HostGroup) -> bool:
    """Whether all ranks say so."""
    found = torch.tensor([int(flag)])
    with MARKS.waiting():
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MIN, group=group)
    return bool(found.item())


def broadcast_bytes(buffer: torch.Tensor, source: int, group: HostGroup) -> None:
    """Fill uint8 host memory on every rank with that of one rank."""
    with MARKS.waiting():
        torch.distributed.broadcast(buffer, src=source, group=group)


COLLECTIVES = frozenset({"all_reduce", "reduce", "broadcast", "all_gather", "all_gather_into_tensor"}) | {
    "reduce_scatter",
    "reduce_scatter_tensor",
    "all_to_all_single",
    "all_gather_coalesced",
    "all_reduce_coalesced",
}
"""Those that DeepSpeed calls in a step, under the names of its backend."""


class _TimedBackend:
    """Stands for DeepSpeed's backend, and charges collectives that it is called to wait for."""

    def __init__(self, backend: Any, timed: Callable[[], AbstractContextManager[None]]) -> None:  # noqa: ANN401 - see below
        self._backend = backend
        self._timed = timed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - DeepSpeed's backend has no types
        found = getattr(self._backend, name)
        if name not in COLLECTIVES:
            return found

        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
            with self._timed():
                return found(*arguments, **options)

        return call


@contextmanager
def collectives_timed(timed: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Open a part around each collective that DeepSpeed calls in the block: of gradients, updated weights, norms.

    One that it lets run beside its work is charged as far as its call goes.
    """
    backend = deepspeed.comm.comm.cdb
    deepspeed.comm.comm.cdb = _TimedBackend(backend, timed)
    try:
        yield
    finally:
        deepspeed.comm.comm.cdb = backend
