"""How much of the processor other programs take, and the host of a virtual machine."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Load:
    """In cores: 0.5 is half of one."""

    others: float  # that other programs compute on
    stolen: float  # that the host of a virtual machine keeps to itself


@dataclass(frozen=True)
class _Times:
    """Seconds of all cores together since some time ago."""

    clock: float
    busy: float
    stolen: float
    own: float  # of this process


def load(seconds: float) -> Load | None:
    """What it is while nothing is done here for so long. None where nobody tells it.

    macOS, and a Linux that keeps /proc to itself, tell how many threads wanted a core, as the mean of a minute.
    """
    if not (os.access(_STAT, os.R_OK) or sys.platform == "win32"):
        wanted = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        return None if wanted is None else Load(min(wanted, os.cpu_count() or 1), 0.0)
    before = _times()
    time.sleep(seconds)
    after = _times()
    passed = after.clock - before.clock
    others = after.busy - before.busy - (after.own - before.own)
    return Load(max(0.0, others) / passed, max(0.0, after.stolen - before.stolen) / passed)


def _times() -> _Times:
    busy, stolen = _windows_times() if sys.platform == "win32" else _linux_times()
    own = os.times()
    return _Times(time.monotonic(), busy, stolen, own.user + own.system)


def _linux_times() -> tuple[float, float]:
    """cpu user nice system idle iowait irq softirq steal …, in ticks."""
    ticks = [int(word) for word in _STAT.read_text().split("\n", 1)[0].split()[1:]] + 8 * [0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = ticks[:8]
    second = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / second, steal / second


def _windows_times() -> tuple[float, float]:
    """GetSystemTimes: idle, kernel with idle in it, user, in 100 ns."""
    idle, kernel, user = (ctypes.c_uint64(0) for _ in range(3))
    kernel32: Any = getattr(ctypes, "windll").kernel32  # noqa: B009  (there on Windows only)
    kernel32.GetSystemTimes(ctypes.byref(idle), ctypes.byref(kernel), ctypes.byref(user))
    return (kernel.value - idle.value + user.value) / 1e7, 0.0
