"""What the machine is that a benchmark ran on."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qcli.host.threads import default_threads
from quant import cpu

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """The CPU, as it is named beside the figures."""

    cpu: str  # the maker's name of it, as "AMD EPYC 7B13"
    target: str  # LLVM's name of it, for which kernels are compiled
    dot_unit: str  # the instructions that multiply int8
    cores: int  # physical ones that this process may use


def this_machine() -> Machine:
    """The machine that this runs on."""
    return Machine(_maker_name() or cpu.name(), cpu.name(), cpu.dot_unit(), default_threads())


def _maker_name() -> str:
    if _CPUINFO.exists():
        lines = (line.split(":", 1) for line in _CPUINFO.read_text("utf-8", "replace").splitlines() if ":" in line)
        return next((value.strip() for key, value in lines if key.strip() == "model name"), "")
    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return asked.stdout.strip()
    return platform.processor()
