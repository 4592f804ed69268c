"""Machine code that comes with a package: objects for common processors, so that a first run need not compile.

A release has them made by `quant.prebuild`; a source tree has none. They are as the kernel cache keeps them, of the same
sources, and compute the same bits as code for the very processor.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from quant import cpu, numba_environment

FOLDER = Path(__file__).parent / "objects"
_V3 = frozenset("avx avx2 bmi bmi2 f16c fma lzcnt movbe".split())
_V4 = _V3 | frozenset("avx512f avx512bw avx512cd avx512dq avx512vl".split())


class Target(NamedTuple):
    """Processors that objects run on."""

    name: str  # as LLVM calls the least of them
    more: str  # features beside it, as NUMBA_CPU_FEATURES has them
    unit: str  # as `quant.cpu.dot_unit` says: for another one kernels are others
    needs: frozenset[str]  # features, as LLVM calls them


TARGETS = {
    "x86-64-v3": Target("x86-64-v3", "", "avx2", _V3),
    "x86-64-v3-vnni": Target("x86-64-v3", "+avxvnni", "avxvnni", _V3 | {"avxvnni"}),
    "x86-64-v4-vnni": Target("x86-64-v4", "+avx512bw,+avx512vl,+avx512vnni", "avx512vnni", _V4 | {"avx512vnni"}),
}


def fitting(system: str, machine: str, unit: str, features: Iterable[str]) -> str:
    """The target whose objects a processor with a dot unit and features runs, or nothing: they are in ELF, for Linux."""
    if system != "linux" or machine != "x86_64":
        return ""
    found = (key for key, target in TARGETS.items() if target.unit == unit and target.needs <= frozenset(features))
    return next(found, "")


@cache
def folder() -> Path | None:
    """Where objects for this processor are, if they came with the package; none for one that the environment chooses."""
    if numba_environment.chooses_processor():
        return None
    target = fitting(sys.platform, platform.machine(), cpu.dot_unit(), cpu.machine_features())
    place = FOLDER / target
    return place if target and place.is_dir() else None
