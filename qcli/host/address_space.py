"""A limit of the addresses that a process may have (`ulimit -v`), told before LLVM ends the process for want of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from qcli.errors import QcliError
from qcli.wording import size

_STATM: Final = Path("/proc/self/statm")
_UNLIMITED: Final = 1 << 62
# Bytes of addresses. To compile the largest kernels took 0.43 GB, on x86-64 with AVX-512: Numba and LLVM, and their work.
_COMPILER, _COMPILING, _WHOLE_COMPILER, _LLVM = 144 << 20, 128 << 20, 480 << 20, 160 << 20


def used_and_limit() -> tuple[int, int] | None:
    """Bytes of addresses that this process has, and may have; None where nothing limits them."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        used = int(_STATM.read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError):  # Windows has no such limit, macOS none that holds
        return None
    return (used, limit) if 0 <= limit < _UNLIMITED else None


def check_before_compiling() -> None:
    """Raise QcliError if there are too few addresses to compile kernels, here or by a process of its own."""
    if found := used_and_limit():
        used, limit = found
        more = _COMPILING if "numba" in sys.modules else _COMPILER + _COMPILING
        _require(max(used + more, _WHOLE_COMPILER), limit)


def shortage() -> QcliError | None:
    """What to tell of something that failed where not even LLVM has enough addresses left; None where it has."""
    found = used_and_limit()
    try:
        if found:
            _require(found[0] + _LLVM, found[1])
    except QcliError as problem:
        return problem
    return None


def _require(needed: int, limit: int) -> None:
    if limit < needed:
        message = f"the address space of this process is limited to {size(limit)}, and about {size(needed)} are needed"
        raise QcliError(
            message, "`ulimit -v unlimited` lifts the limit, where the system or a batch system allows that"
        )
