"""How many threads to use: one a physical core, within what this process may have."""

from __future__ import annotations

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """Physical cores that this process may run on, at most its cgroup's share of time."""
    return max(1, min(_physical_cores(_allowed()), _quota()))


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(allowed: set[int]) -> int:
    """Sibling threads of one core count once."""
    cores = set()
    for cpu in allowed:
        try:
            cores.add((_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            return len(allowed)
    return len(cores)


def _quota() -> int:
    """Whole cores that the cgroup's time limit leaves, or a very large number."""
    try:  # version 2, then version 1
        limit, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (_CGROUP / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (_CGROUP / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return 1 << 20
    try:
        return max(1, int(limit) // int(period)) if int(limit) > 0 else 1 << 20
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return 1 << 20
