"""How much physical memory is available to this process, and how much it uses; in bytes."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from qcli.host import cgroups

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
_UNLIMITED = 1 << 62
_VM_INFO64 = 4  # HOST_VM_INFO64
_LIMITS = (  # of a cgroup, version 2 and version 1: its limit, what it uses, and which of that is page cache
    ("memory.max", "memory.current", "file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
)


def available_memory() -> int:
    """What can be allocated without swapping, within the limits of cgroups; the page cache counts as free."""
    if sys.platform == "win32":
        return int(_windows_memory().free)
    if sys.platform == "darwin":
        return _mac_available()
    if os.access(_MEMINFO, os.R_OK):
        return min(_meminfo("MemAvailable"), _cgroup_headroom())
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4  # a quarter is left to other programs


def total_memory() -> int:
    """What the machine has, whatever limits there are."""
    if sys.platform == "win32":
        return int(_windows_memory().physical)
    if os.access(_MEMINFO, os.R_OK):
        return _meminfo("MemTotal")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limit() -> int | None:
    """What the tightest of this process's cgroups lets it and others in the group use; None if nothing limits it."""
    limits = [_number(folder / limit) for folder in cgroups.folders("memory") for limit, _, _ in _LIMITS]
    tightest = min((limit for limit in limits if limit is not None), default=_UNLIMITED)
    return tightest if tightest < total_memory() else None


def process_memory() -> int:
    """The resident set of this process: now on Linux and Windows, its peak elsewhere."""
    if sys.platform == "win32":
        return _windows_process()
    if os.access(_STATM, os.R_OK):
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _meminfo(key: str) -> int:
    _, _, rest = f"\n{cgroups.read(_MEMINFO)}".partition(f"\n{key}:")
    return int(rest.split(None, 1)[0]) << 10


def _number(path: Path) -> int | None:
    """What a file says; None if it is not there, or says "max"."""
    try:
        return int(cgroups.read(path))
    except (OSError, ValueError):
        return None


def _cgroup_headroom() -> int:
    """What the tightest of this process's cgroups still allows; `_UNLIMITED` if there is no limit."""
    return min(
        (_headroom(folder, *names) for folder in cgroups.folders("memory") for names in _LIMITS), default=_UNLIMITED
    )


def _headroom(folder: Path, limit: str, usage: str, cache: str) -> int:
    """limit - usage + page cache, of one group."""
    try:
        most = int(cgroups.read(folder / limit))  # first: the others take the system longer
        stat = dict(line.split() for line in cgroups.read(folder / "memory.stat").splitlines())
        return max(0, most - int(cgroups.read(folder / usage)) + int(stat.get(cache, 0)))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return _UNLIMITED


class _MacPages(ctypes.Structure):
    """vm_statistics64 of macOS: numbers of pages."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in "free active inactive wired".split()),
        *((f"since_start_{i}", ctypes.c_uint64) for i in range(9)),
        *((name, ctypes.c_uint32) for name in "purgeable speculative".split()),
        *((f"since_start_{i}", ctypes.c_uint64) for i in range(9, 13)),
        *((name, ctypes.c_uint32) for name in "compressor throttled of_files anonymous".split()),
        ("compressed", ctypes.c_uint64),
    ]


def _mac_available() -> int:
    """What is free, and what can be read again: pages of files, among which are those read ahead, and what may be dropped."""
    pages, system = _MacPages(), ctypes.CDLL(None)
    words = ctypes.c_uint32(ctypes.sizeof(pages) // 4)
    failed = system.host_statistics64(system.mach_host_self(), _VM_INFO64, ctypes.byref(pages), ctypes.byref(words))
    size = os.sysconf("SC_PAGE_SIZE")
    if failed:
        return size * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    return size * int(pages.free - pages.speculative + pages.of_files + pages.purgeable)


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = [
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in "physical free pages free_pages virtual free_virtual extended".split()),
    ]


def _windows_memory() -> _MemoryStatus:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined,unused-ignore]
    return status


class _ProcessMemory(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of the Windows API."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("faults", ctypes.c_uint32),
        *((name, ctypes.c_size_t) for name in "peak_resident resident p0 p1 p2 p3 paged peak_paged".split()),
    ]


def _windows_process() -> int:
    counters = _ProcessMemory(size=ctypes.sizeof(_ProcessMemory))
    kernel32: Any = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    kernel32.K32GetProcessMemoryInfo(ctypes.c_void_p(-1), ctypes.byref(counters), counters.size)
    return int(counters.resident)
