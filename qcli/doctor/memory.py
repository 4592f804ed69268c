"""Memory: how much is free, whether in huge pages, and how fast it is read, which bounds how fast a model answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qcli.bench.bandwidth import Bandwidth
from qcli.doctor.finding import PASS, WARN, Finding
from qcli.host import kernels, memory, pages, threads
from qcli.progress import Progress
from qcli.wording import counted, size
from quant import team
from quant.kernels.bandwidth import sum_lines

_LEAST: Final = 2_000_000_000  # bytes; a small model with its context
_SLOW: Final = 8.0  # GB/s; one module of DDR4 gives about 17
_NEAR: Final = 0.95  # of the best, which counts as as fast
_MOST_COUNTS: Final = 8


def free(_progress: Progress) -> Iterator[Finding]:
    """What a model may take."""
    total, available, limit = memory.total_memory(), memory.available_memory(), memory.memory_limit()
    figures = {"total": total, "available": available, "limit": limit}
    limited = f"; a limit (cgroup) allows {size(limit)}" if limit else ""
    said = f"{size(available)} of {size(total)} are free{limited}"
    if available < _LEAST:
        hint = "close other programs, or raise the limit of the container" if limit else "close other programs"
        yield Finding("memory", WARN, f"{said}: too little for most models", hint, figures)
    else:
        yield Finding("memory", PASS, f"{said}: larger models run too, but read from the disk", "", figures)


def huge(_progress: Progress) -> Iterator[Finding]:
    """Whether the system gives huge pages; Linux alone says so."""
    given = pages.huge_pages()
    figures = {"transparent_hugepage": given}
    if given == "never":
        hint = "type: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
        said = "the system gives no huge pages, so that models larger than memory are read more slowly"
        yield Finding("huge pages", WARN, said, hint, figures)
    elif given:
        yield Finding("huge pages", PASS, "the system gives them, which makes reading large models faster", "", figures)


def speed(progress: Progress) -> Iterator[Finding]:
    """How fast it is read by several numbers of threads, and how many are enough."""
    kernels.prepare([sum_lines, *team.KERNELS], progress)
    found = read_speeds(progress)
    best = max(found.values())
    enough = knee(found)
    figures = {"gb_per_s": {str(count): round(value, 1) for count, value in found.items()}, "knee": enough}
    each = ", ".join(f"{value:.1f} with {count}" for count, value in found.items())
    said = f"read at {best:.1f} GB/s ({counted(enough, 'thread is', 'threads are')} enough; GB/s by threads: {each})"
    if best < _SLOW:
        hint = "if nothing else ran meanwhile: fill memory slots in pairs, and turn on the memory's XMP or EXPO in the BIOS"
        yield Finding("memory speed", WARN, f"{said}: slow, and answers with it", hint, figures)
    else:
        meaning = f"a model that reads 1 GB a token gives at most {best:.0f} tok/s"
        yield Finding("memory speed", PASS, f"{said}: {meaning}", "", figures)


def read_speeds(progress: Progress) -> dict[int, float]:
    """GB/s by number of threads."""
    counts = thread_counts()
    bandwidth = Bandwidth(counts)
    try:
        found = {}
        for done, count in enumerate(counts):
            progress(counted(count, "thread"), done / len(counts))
            found[count] = bandwidth.sample(count)
        return found
    finally:
        bandwidth.close()


def thread_counts() -> list[int]:
    """The numbers of threads to try: powers of two, all cores, and all hardware threads."""
    most = threads.processors()
    powers = [1 << power for power in range(_MOST_COUNTS - 2) if 1 << power < most]
    return sorted({*powers, min(threads.default_threads(), most), most})


def knee(found: dict[int, float]) -> int:
    """The fewest threads that are about as fast as any number."""
    return min(count for count, value in found.items() if value >= _NEAR * max(found.values()))
