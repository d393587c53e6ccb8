"""Memory that was freed, kept for the next tensor."""

from __future__ import annotations

import ctypes
from functools import cache

# Of glibc's <malloc.h>: above how many free bytes at its end the heap is cut, and from how many
# bytes on a block is mapped by itself, to be unmapped when it is freed.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST_KEPT = 512 * 2**20  # bytes
LARGEST_BLOCK = 32 * 2**20  # the most that glibc takes


@cache
def keep_freed_memory() -> None:
    """Let the C library keep up to half a gibibyte of what torch frees on a CPU.

    glibc gives tensors of some megabytes back to the system at once, and each of their pages is
    taken anew, and cleared, for the next tensor: a third of the time of decoding music. On a system
    with another C library nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and musl have none; Windows no such handle
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
    mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
