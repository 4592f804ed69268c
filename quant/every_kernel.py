"""All kernels of this package, for who compiles them beforehand."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import quant
from quant.jit import Kernel


def every_kernel() -> list[Kernel]:
    """Those of every module, in the order of the modules' names."""
    names = sorted(module.name for module in pkgutil.walk_packages(quant.__path__, "quant."))
    return [kernel for name in names for kernel in declared_in(importlib.import_module(name))]


def declared_in(module: ModuleType) -> list[Kernel]:
    """Those that a module declares, in order."""
    values = vars(module).values()
    return [value for value in values if isinstance(value, Kernel) and value.module == module.__name__]
