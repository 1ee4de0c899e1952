"""Run one function on several gloo ranks of this machine, started once for many cases."""

from __future__ import annotations

import os
import pickle
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch.multiprocessing.spawn import spawn

T = TypeVar("T")


def run_on_ranks(function: Callable[..., T], world_size: int, *args: object) -> list[T]:
    """What a function of a module's top level returns on each rank, in their order.

    Raises:
        torch.multiprocessing.spawn.ProcessException: It raised on one of them; the others are ended.
    """
    settings = {
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, settings):
        start: Callable[..., object] = spawn
        start(_serve, (world_size, name, function, args), nprocs=world_size)
        return [pickle.loads((Path(name) / str(rank)).read_bytes()) for rank in range(world_size)]


def _serve(
    rank: int, world_size: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # of torch, about collectives that DeepSpeed calls
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    result = function(*args)
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(result))
    torch.distributed.barrier()  # nobody leaves while another rank still needs its connection
    torch.distributed.destroy_process_group()
