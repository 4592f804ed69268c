"""The kernels of the whole suite, so that they can be compiled together before the first test."""

from __future__ import annotations

import sys

from places import TESTS

from quant import formats
from quant.every_kernel import declared_in, every_kernel
from quant.jit import Kernel
from quant.kernels.few_rows import few_kernels
from quant.kernels.multiply import multiply_kernel


def asked_for_here() -> list[Kernel]:
    """Those of quant: kernels of tiles and of several rows are chosen by what the processor can do, some are no type's here."""
    kinds = [formats.find(name) for name in formats.names()]
    used = {kernel for kind in kinds for kernel in (multiply_kernel(kind), *few_kernels(kind))}
    chosen = "quant.kernels.multiply.", "quant.kernels.step_tiles."
    return [k for k in every_kernel() if k in used or not (k.name.startswith(chosen) or k.name.endswith("_step_rows"))]


def declared() -> list[Kernel]:
    """The kernels of quant that somebody asks for here, and those of the tests and helpers that are imported by now."""
    ours = [name for name, module in sys.modules.items() if _is_of_tests(module)]
    of_tests = [kernel for name in ours for kernel in declared_in(sys.modules[name])]
    return [*asked_for_here(), *of_tests]


def _is_of_tests(module: object) -> bool:
    return str(getattr(module, "__file__", "")).startswith(str(TESTS))
