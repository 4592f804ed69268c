"""Declaring compiled code without paying for the compiler.

    @intrinsic   one operation of LLVM, as a rule: types of the operands -> type of the result, and its code
    @inline      a helper that is merged into the kernels that call it
    @kernel      a record's kernel in a plan: f(rank, size, operand, …), every argument an address or an integer
    @function    a C function with other arguments, called by its address from kernels, or from Python

Machine code is kept on disk (`quant.store`); Numba is imported only where something is not there yet
(`quant.compiler`). So a command that has run before starts in the time that its weights take to map.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Arguments of a compiled function, a letter each.
_C_TYPES: dict[str, Any] = {"p": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double}


@dataclass(frozen=True)
class Vector:
    """A type: `lanes` elements of one scalar kind, held in vector registers."""

    element: str
    lanes: int


@dataclass(frozen=True)
class Intrinsic:
    """A rule f(*types) -> (result type, generate(builder, *values)); a parameter named `constant` wants a literal.

    Types are `Vector`, "i64", "f32", tuples of a vector as Numba types; the result may also be None, or (Vector, count)
    for a tuple, which then comes as a list of values, as tuple operands do.
    """

    rule: Callable[..., tuple[Any, Callable[..., Any]]]

    def __call__(self, *operands: Any) -> Any:
        raise TypeError(f"{self.rule.__name__} only works inside compiled code")


@dataclass(frozen=True)
class Inline:
    """A helper for kernels; as plain Python it can be called where it uses no intrinsic."""

    body: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.body(*arguments)


class Kernel:
    """A compiled C function, known by its address; compiled, or loaded from the store, when first asked for."""

    def __init__(self, body: Callable[..., Any], parameters: str, returns: bool) -> None:
        self.body, self.parameters, self.returns = body, parameters, returns
        self.name = f"{body.__module__}.{body.__qualname__}"

    @cached_property
    def address(self) -> int:
        """The machine address of the function."""
        from quant import store

        return store.address(self)

    @cached_property
    def _callable(self) -> Any:
        result = ctypes.c_int64 if self.returns else None
        return ctypes.CFUNCTYPE(result, *[_C_TYPES[letter] for letter in self.parameters])(self.address)

    def __call__(self, *arguments: float) -> int:
        """Call the function from Python; the interpreter is free meanwhile."""
        result: int = self._callable(*arguments)
        return result

    def __repr__(self) -> str:
        return f"Kernel({self.name})"


def intrinsic(rule: Callable[..., Any]) -> Intrinsic:
    """Declare an operation of LLVM."""
    return Intrinsic(rule)


def inline(body: Callable[..., Any]) -> Any:
    """Declare a helper that is always merged into what calls it."""
    return Inline(body)


def kernel(body: Callable[..., None]) -> Kernel:
    """Declare a kernel of a plan."""
    return Kernel(body, "p" * body.__code__.co_argcount, returns=False)


def function(parameters: str, *, returns: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a function of int64 ("p"), float32 ("f") and float64 ("d") arguments that returns an int64 or nothing."""
    return lambda body: Kernel(body, parameters, returns)
