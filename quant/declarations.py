"""What compiled code consists of: vectors, operations of LLVM, helpers that are merged into kernels, and C functions.

Plain declarations, made by the decorators of `quant.jit` and read by `quant.compiler`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

_ELEMENTS = {"i8": ir.IntType(8), "i32": ir.IntType(32), "f32": ir.FloatType()}


@dataclass(frozen=True)
class Vector:
    """A type: `lanes` elements of one scalar type ("i8", "i32" or "f32"), held in vector registers."""

    element: str
    lanes: int


def vector_llvm(vector: Any) -> Any:
    """The LLVM type of a Vector."""
    return ir.VectorType(_ELEMENTS[vector.element], vector.lanes)


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
    """A helper that is merged into the kernels that call it; callable from Python where it uses no intrinsic."""

    body: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.body(*arguments)


class CFunction:
    """A C function to be compiled: its Python body, a letter for each parameter, and whether it returns an int64.

    Letters: "p" int64 (an integer or an address), "f" float32, "d" float64.
    """

    def __init__(self, body: Callable[..., Any], parameters: str, returns: bool) -> None:
        self.body, self.parameters, self.returns = body, parameters, returns
        self.module = body.__module__
        self.name = f"{body.__module__}.{body.__qualname__}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"
