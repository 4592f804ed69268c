"""How many threads to compute with: one for each physical core that this process may use."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcli.host import cgroups

_CPUS = Path("/sys/devices/system/cpu")
_HYBRID = Path("/sys/devices/cpu_core/cpus")
_UNLIMITED = 1 << 20
_PROCESSOR_CORE = 0  # RelationProcessorCore


@dataclass(frozen=True)
class Cores:
    """What of this machine's processor this process may use."""

    machine: int  # hardware threads that there are
    allowed: int  # of these, those that this process may run on
    physical: int  # cores of these, several hardware threads of a core counted once
    performance: int  # of these, those of the fastest kind
    quota: int | None  # whole cores that the tightest of its cgroups lets it use at a time


def cores() -> Cores:
    """Those of this machine, as they are now."""
    physical, performance = _cores()
    quota = _quota()
    allowed = len(_allowed_cpus())
    limit = None if quota == _UNLIMITED else quota
    return Cores(os.cpu_count() or 1, allowed, max(1, physical), max(1, performance), limit)


def default_threads() -> int:
    """Physical performance cores that this process may run on, at most as many as its cgroups' CPU quota.

    Efficiency cores are left out: a record is done when all its shares are, and the last may be a slow core's.
    """
    return max(1, min(_cores()[1], _quota()))


def processors() -> int:
    """Hardware threads that this process may run on, at most as many as its cgroups' CPU quota: for compilers."""
    return max(1, min(len(_allowed_cpus()), _quota()))


def streaming_threads() -> int:
    """As `default_threads`, or fewer where there are many cores, as I/O threads need some while experts are read.

    They would preempt a computing thread in the midst of a share, for which all others wait.

    48 layers on 16 cores: 278 ms a token with 16 threads, 226 with 12, 222 with 10, 246 with 6; on 8 of these 225 with 8.
    """
    count = default_threads()
    return max(count * 3 // 4, min(count, 8))


def _cores() -> tuple[int, int]:
    """Physical cores that this process may run on, and those of the fastest kind."""
    return {"darwin": _mac_cores, "win32": _windows_cores}.get(sys.platform, _linux_cores)()


def _linux_cores() -> tuple[int, int]:
    allowed = _allowed_cpus()
    return _physical_cores(allowed), _physical_cores(_fastest_cpus(allowed) or allowed)


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _fastest_cpus(allowed: set[int]) -> set[int]:
    """The CPUs of the fastest kind; empty where the system does not tell kinds apart."""
    try:  # Intel's hybrids
        return allowed & _cpu_list(_HYBRID.read_text())
    except (OSError, ValueError):
        pass
    try:  # Arm's
        capacity = {cpu: int((_CPUS / f"cpu{cpu}" / "cpu_capacity").read_text()) for cpu in allowed}
    except (OSError, ValueError):
        return set()
    return {cpu for cpu, value in capacity.items() if 2 * value > max(capacity.values())}


def _cpu_list(text: str) -> set[int]:
    """ "0-3,8" -> {0, 1, 2, 3, 8}."""
    ends = [part.split("-") for part in text.strip().split(",")]
    return {cpu for end in ends for cpu in range(int(end[0]), int(end[-1]) + 1)}


def _physical_cores(allowed: set[int]) -> int:
    """The number of cores, several hardware threads of one core counted once."""
    cores = set()
    for cpu in allowed:
        try:
            cores.add((_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            return len(allowed)
    return len(cores)


def _mac_cores() -> tuple[int, int]:
    """By sysctl: all, and those of the highest performance level."""
    physical = _sysctl(b"hw.physicalcpu") or os.cpu_count() or 1
    return physical, _sysctl(b"hw.perflevel0.physicalcpu") or physical


def _sysctl(name: bytes) -> int:
    """A number that macOS knows by this name, else 0."""
    value, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    failed = ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return 0 if failed else value.value


def _windows_cores() -> tuple[int, int]:
    """From GetLogicalProcessorInformationEx: all, and those of the highest efficiency class."""
    ask: Any = getattr(ctypes, "windll").kernel32.GetLogicalProcessorInformationEx  # noqa: B009  (there on Windows only)
    size = ctypes.c_uint32(0)
    ask(_PROCESSOR_CORE, None, ctypes.byref(size))
    data = ctypes.create_string_buffer(size.value)
    if not ask(_PROCESSOR_CORE, data, ctypes.byref(size)):
        return os.cpu_count() or 1, os.cpu_count() or 1
    classes = _classes(data.raw[: size.value])
    return len(classes), classes.count(max(classes, default=0))


def _classes(records: bytes) -> list[int]:
    """The class of each record: uint32 relationship, uint32 size, uint8 flags, uint8 class."""
    classes, at = [], 0
    while at + 10 <= len(records):
        size = int.from_bytes(records[at + 4 : at + 8], "little")
        classes.append(records[at + 9])
        at += max(size, 10)
    return classes


def _quota() -> int:
    """The CPU quota of the tightest of this process's cgroups in whole cores, a very large number if there is none."""
    return min((_quota_of(folder) for folder in cgroups.folders("cpu")), default=_UNLIMITED)


def _quota_of(folder: Path) -> int:
    try:
        limit, period = (int(text) for text in _quota_files(folder))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return _UNLIMITED
    return max(1, limit // period) if limit > 0 and period > 0 else _UNLIMITED


def _quota_files(folder: Path) -> list[str]:
    """The time that a group may compute in a period, and that period: as version 2 has them, else as version 1."""
    try:
        return cgroups.read(folder / "cpu.max").split()
    except OSError:
        return [cgroups.read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
