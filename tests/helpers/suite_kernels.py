"""The kernels of the whole suite, so that they can be compiled together before the first test."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from places import TESTS

import quant
from quant.jit import Kernel


def declared() -> list[Kernel]:
    """The kernels of every module of quant, and of the tests and helpers that are imported by now."""
    for module in pkgutil.walk_packages(quant.__path__, "quant."):
        importlib.import_module(module.name)
    ours = [name for name, module in sys.modules.items() if name.startswith("quant.") or _is_of_tests(module)]
    return [kernel for name in ours for kernel in vars(sys.modules[name]).values() if _is_declared_in(name, kernel)]


def _is_of_tests(module: object) -> bool:
    return str(getattr(module, "__file__", "")).startswith(str(TESTS))


def _is_declared_in(module: str, value: object) -> bool:
    return isinstance(value, Kernel) and value.module == module
