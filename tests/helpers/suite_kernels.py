"""The kernels of the whole suite, so that they can be compiled together before the first test."""

from __future__ import annotations

import sys

from places import TESTS

from quant.every_kernel import declared_in, every_kernel
from quant.jit import Kernel


def declared() -> list[Kernel]:
    """The kernels of every module of quant, and of the tests and helpers that are imported by now."""
    ours = [name for name, module in sys.modules.items() if _is_of_tests(module)]
    of_tests = [kernel for name in ours for kernel in declared_in(sys.modules[name])]
    return [*every_kernel(), *of_tests]


def _is_of_tests(module: object) -> bool:
    return str(getattr(module, "__file__", "")).startswith(str(TESTS))
