"""Numba's environment variables: what is left over in an environment neither breaks a kernel nor slows it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_KEPT = frozenset(["NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"])  # by these people choose the processor, see quant.cpu
_lock = threading.RLock()


@contextmanager
def set_aside() -> Iterator[None]:
    """Within the block there are none of Numba's variables but those that choose the processor.

    NUMBA_DISABLE_JIT, for one, leaves nothing to compile; NUMBA_OPT=0 would have slow kernels kept for every later start.
    """
    with _lock:
        theirs = {name: os.environ.pop(name) for name in _left_over(os.environ)}
        try:
            yield
        finally:
            os.environ.update(theirs)


def chooses_processor() -> bool:
    """Whether kernels are for another processor than this one."""
    return not _KEPT.isdisjoint(os.environ)


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that compiles."""
    left_over = _left_over(environment)
    return {name: value for name, value in environment.items() if name not in left_over}


def choosing(name: str, features: str) -> dict[str, str]:
    """This environment for a process that compiles for another processor."""
    return {**without(os.environ), "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}


def _left_over(environment: Mapping[str, str]) -> list[str]:
    return [name for name in environment if name.startswith("NUMBA_") and name not in _KEPT]
