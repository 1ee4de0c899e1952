"""What malloc has handed out to this process: torch has no count of CPU memory of its own, and takes it from malloc.

Source: mallinfo(3). In each arena `uordblks` counts the bytes in use, and `hblkhd` those of blocks that are mapped by
themselves (the large ones). It walks the free blocks: some 10 to 150 microseconds in a training process, more where
memory is in many pieces. The GNU C library has it since 2.33; others (musl, macOS) have not, and an allocator that is
preloaded in its place (jemalloc, tcmalloc) does not report there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

FIELDS = (
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
)

PROBE_BYTES = 4 << 20


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in FIELDS)


def find_malloc_count(library: ctypes.CDLL | None = None) -> Callable[[], int] | None:
    """What returns the bytes that malloc has handed out and not got back, over all arenas and threads.

    Python's own objects and every library's are in it; memory that is mapped past malloc is not.

    Args:
        library: A C library; the process's own by default.

    Returns:
        None where it has no such count, or where the count does not follow torch's tensors.
    """
    try:
        read = (ctypes.CDLL(None) if library is None else library).mallinfo2
    except (AttributeError, OSError):
        return None
    read.restype, read.argtypes = _Mallinfo2, []

    def count() -> int:
        info = read()
        return int(info.uordblks + info.hblkhd)

    return count if follows_tensors(count) else None


def follows_tensors(count: Callable[[], int]) -> bool:
    """Whether a count rises by a tensor's bytes when there is one, and falls again when it is gone."""
    import torch

    before = count()
    tensor = torch.empty(PROBE_BYTES, dtype=torch.uint8)
    during = count()
    del tensor
    return during - before >= PROBE_BYTES and during - count() >= PROBE_BYTES
