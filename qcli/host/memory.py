"""How much memory is free, within what this process may have."""

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
_BOUNDLESS = 1 << 62


def available() -> int:
    """Bytes that can be taken without pushing anybody else's out; the page cache counts as free."""
    if sys.platform == "win32":
        return _windows()
    if _MEMINFO.exists():
        return min(_linux(), _cgroup())
    # macOS: how much is free is not told; a quarter is left to the others
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def resident() -> int:
    """Bytes of this process that lie in memory now, as the system counts them; elsewhere the most there ever were."""
    if sys.platform == "win32":
        return _windows_resident()
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _linux() -> int:
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10


def _cgroup() -> int:
    """Room in the tightest of this process's cgroups, version 2 or 1, or a very large number."""
    rooms = [_BOUNDLESS]
    for line in _CGROUPS.read_text().splitlines() if _CGROUPS.exists() else []:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            rooms += _rooms(_MOUNT, path, ("memory.max", "memory.current", "file"))
        elif controllers == "memory":
            files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"
            rooms += _rooms(_MOUNT / "memory", path, files)
    return min(rooms)


def _rooms(mount: Path, path: str, names: tuple[str, str, str]) -> list[int]:
    """Of a group and of the one that a container sees at the top: limit - usage + page cache."""
    limit, usage, cache = names
    rooms = []
    for folder in {mount / path.lstrip("/"), mount}:
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / usage).read_text()) - int(stat.get(cache, 0))
            rooms.append(max(0, int((folder / limit).read_text()) - used))
        except (OSError, ValueError):  # not limited: no such file, or "max"
            continue
    return rooms


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = [
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in "physical free pages free_pages virtual free_virtual extended".split()),
    ]


def _windows() -> int:
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


def _windows_resident() -> int:
    counters = _ProcessMemory(size=ctypes.sizeof(_ProcessMemory))
    kernel32: Any = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    kernel32.K32GetProcessMemoryInfo(ctypes.c_void_p(-1), ctypes.byref(counters), counters.size)
    return int(counters.resident)
