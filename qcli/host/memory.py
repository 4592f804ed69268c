"""How much physical memory is available to this process, and how much it uses; in bytes."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
_CGROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 62


def available_memory() -> int:
    """What can be allocated without swapping, within the limits of cgroups; the page cache counts as free."""
    if sys.platform == "win32":
        return _windows_available()
    if _MEMINFO.exists():
        return min(_linux_available(), _cgroup_headroom())
    # macOS does not say how much is free; a quarter is left to other programs
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def process_memory() -> int:
    """The resident set of this process: now on Linux and Windows, its peak elsewhere."""
    if sys.platform == "win32":
        return _windows_process()
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _linux_available() -> int:
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10


def _cgroup_headroom() -> int:
    """What the tightest of this process's cgroups, version 2 or 1, still allows; `_UNLIMITED` if there is no limit."""
    found = [_UNLIMITED]
    for line in _CGROUPS.read_text().splitlines() if _CGROUPS.exists() else []:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            found += _headrooms(_MOUNT, path, ("memory.max", "memory.current", "file"))
        elif controllers == "memory":
            files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"
            found += _headrooms(_MOUNT / "memory", path, files)
    return min(found)


def _headrooms(mount: Path, path: str, names: tuple[str, str, str]) -> list[int]:
    """limit - usage + page cache, of a group and of the one that a container sees at the top."""
    limit, usage, cache = names
    found = []
    for folder in {mount / path.lstrip("/"), mount}:
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / usage).read_text()) - int(stat.get(cache, 0))
            found.append(max(0, int((folder / limit).read_text()) - used))
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
    return found


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = [
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in "physical free pages free_pages virtual free_virtual extended".split()),
    ]


def _windows_available() -> int:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined,unused-ignore]
    return int(status.free)


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
