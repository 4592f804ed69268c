"""Memory that comes from the system by whole pages, and goes back to it."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

PAGE = 4096  # what unbuffered reads want offsets, sizes and addresses to be multiples of


def pages(size: int, huge: bool = True) -> NDArray[np.uint8]:
    """Anonymous memory of at least one page, on a page's border, that takes no room before it is written to.

    huge: in huge pages, where the system has them; else as small as those of a mapped file.
    """
    # what is shared between processes counts as cache in a cgroup, and MADV_DONTNEED would free none of it
    private = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, max(PAGE, -(-size // PAGE) * PAGE), **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # reads of 640 kB came at 2.6 GB/s instead of 1.5
        with suppress(OSError):  # not every kernel has them
            memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def give_back(memory: NDArray[np.uint8], start: int, size: int) -> None:
    """Let the system have whole pages of what `pages` gave, if it can take them; they take no room before the next write."""
    if hasattr(mmap.mmap, "madvise"):
        assert isinstance(memory.base, memoryview)
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            if hasattr(mmap, "MADV_FREE"):  # splits huge pages, whose parts would stay taken for a while
                with suppress(OSError):
                    memory.base.obj.madvise(mmap.MADV_FREE, first, last - first)
            memory.base.obj.madvise(mmap.MADV_DONTNEED, first, last - first)
