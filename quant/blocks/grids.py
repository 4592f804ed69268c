"""Grids: weights of the IQ types come 8 or 4 at a time, as a point of a table that the `gguf` package brings.

A value of a point is one of 3 or 8 levels, its code, so that a point of 8 or 4 values fits 16 bits: two planes of bytes.
With AVX512-VBMI, 64 indices find their codes by shuffles of registers (128 bytes each), and codes become values likewise;
elsewhere points are loaded one by one. A kernel holds its table itself: `gguf` is imported to compile, or to dequantize.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from quant import cpu
from quant.blocks.fields import hidden
from quant.blocks.lookup import lookup_llvm
from quant.declarations import Intrinsic, vector_llvm
from quant.jit import intrinsic
from quant.simd import I8, I32, I64, call_llvm, constant_of, i8x64, pointer, shuffle, vector_of

_PLANES = "+avx512vbmi" in cpu.features().split(",")
_LANES = 64  # indices that are looked up together


# --- tables -------------------------------------------------------------------------------------------------------


@cache
def points(name: str) -> NDArray[np.int8]:
    """The grid of a type, [points, 8 or 4 values]."""
    from gguf import quants

    kind = getattr(quants, name)
    kind.init_grid()
    return np.ascontiguousarray(kind.grid.reshape(kind.grid_shape).astype(np.int8))


def codes(name: str) -> NDArray[np.uint16]:
    """Each point in 16 bits: the number of each value's level, the first lowest."""
    values = points(name)
    levels = np.searchsorted(np.unique(values), values)
    shifts = np.arange(values.shape[1]) * _bits(values.shape[1])
    return (levels << shifts).sum(axis=1).astype(np.uint16)


def _bits(width: int) -> int:
    """Bits of a code, in points of so many values."""
    return 2 if width == 8 else 3


# --- points, 64 indices at a time -----------------------------------------------------------------------------------


def grid(name: str, count: int, width: int, levels: Sequence[int]) -> tuple[Intrinsic, Intrinsic]:
    """Declare find(low, high) -> codes, and values(codes) -> the values of the points, in order: a tuple of i8x64.

    low, high: 64 indices of a grid of `count` points, each two bytes (higher bits are ignored). levels: what the codes
    0, 1, … of a value stand for.
    """
    expand = _values_of_codes if _PLANES else _values_of_indices
    found = (i8x64, 2)
    return intrinsic(
        lambda low, high: (found, lambda builder, *index: _find(builder, name, count, width, *index))
    ), intrinsic(lambda _codes: ((i8x64, width), lambda builder, codes: expand(builder, name, width, levels, codes)))


@intrinsic
def no_high_bits() -> Any:
    """The high bytes of indices below 256."""
    return i8x64, lambda _builder: constant_of(vector_llvm(i8x64), 0)


def _find(builder: Any, name: str, count: int, width: int, low: Any, high: Any) -> list[Any]:
    """Two planes of the points' codes; or of their indices."""
    if not _PLANES:
        return [low, builder.and_(high, constant_of(high.type, (count >> 8) - 1))]
    order = _order(8 // width)
    low, high = (shuffle(builder, index, index, order) for index in (low, high))
    masks, zero, bit = [builder.icmp_signed("<", low, constant_of(low.type, 0))], constant_of(low.type, 0), 1
    while bit << 8 < count:
        masks.append(builder.icmp_signed("!=", builder.and_(high, constant_of(high.type, bit)), zero))
        bit *= 2
    both = codes(name).view(np.uint8).reshape(count, 2)
    return [
        _choose(builder, constant_bytes(builder, f"{name}.plane{i}", both[:, i]), count, low, masks) for i in range(2)
    ]


def _order(points_of_8: int) -> list[int]:
    """Which index stands where, so that the codes of 64-bit lane 2k + h of several parts meet there once interleaved."""
    n = points_of_8
    lanes = [(k, r, h, w) for k in range(4) for r in range(2) for h in range(2) for w in range(4)]
    return [8 * n * ((4 // n) * r + w // n) + n * (2 * k + h) + w % n for k, r, h, w in lanes]


def _choose(builder: Any, plane: Any, count: int, low: Any, masks: list[Any]) -> Any:
    """plane[index]: 128 bytes of the plane by 7 bits of the index, then halved by each higher bit."""
    # Hidden, or else LLVM would hold the whole plane on the stack, from the begin of each row on.
    base = hidden(builder, plane)
    places = [pointer(builder, builder.add(base, I64(at)), low.type) for at in range(0, count, 64)]
    table = [builder.load(place, align=64) for place in places]
    found = [
        call_llvm(builder, "llvm.x86.avx512.vpermi2var.qi.512", low.type, [first, low, second])
        for first, second in zip(table[::2], table[1::2], strict=True)
    ]
    for mask in masks:
        found = [builder.select(mask, one, zero) for zero, one in zip(found[::2], found[1::2], strict=True)]
    return found[0]


def constant_bytes(builder: Any, name: str, values: NDArray[Any]) -> Any:
    """The address of an array that belongs to the compiled code, for LLVM code."""
    data = values.tobytes()
    kind = ir.ArrayType(I8, len(data))
    constant = builder.module.globals.get(name)
    if constant is None:
        constant = ir.GlobalVariable(builder.module, kind, name)
        constant.global_constant, constant.linkage, constant.align = True, "internal", 64
        constant.initializer = ir.Constant(kind, bytearray(data))
    return builder.ptrtoint(constant, I64)


def _values_of_codes(builder: Any, name: str, width: int, levels: Sequence[int], found: list[Any]) -> list[Any]:
    """Points by codes of _bits: those of 8 values in each 64-bit lane are moved apart, then looked up."""
    bits = _bits(width)
    table = [levels[i % (1 << bits)] if i % (1 << bits) < len(levels) else 0 for i in range(16)]
    parts = []
    for packed, first in _codes_of_8(builder, width, found):
        shifts = [first + 16 * (i // width) + bits * (i % width) for i in range(8)] * 8
        apart = [ir.Constant(packed.type, shifts), packed]
        index = call_llvm(builder, "llvm.x86.avx512.pmultishift.qb.512", packed.type, apart)
        parts.append(lookup_llvm(builder, table, index))
    return parts


def _codes_of_8(builder: Any, width: int, found: list[Any]) -> list[tuple[Any, int]]:
    """For each part: a vector whose 64-bit lanes hold the codes of its 8 values in order, and from which bit on."""
    low, high = found
    both = [[16 * k + 8 * r + i // 2 + i % 2 * 64 for k in range(4) for i in range(16)] for r in range(2)]
    quads = [shuffle(builder, low, high, lanes) for lanes in both]
    return [(quad, first) for quad in quads for first in range(0, 64, 128 // width)]


def _values_of_indices(builder: Any, name: str, width: int, levels: Sequence[int], found: list[Any]) -> list[Any]:
    """Points by index, each loaded on its own."""
    values = points(name)
    table = np.asarray(levels, np.uint8)[np.searchsorted(np.unique(values), values)]
    base = constant_bytes(builder, f"{name}.points.{levels[0]}.{levels[-1]}", table)
    low, high = (builder.bitcast(vector, vector_of(I64, 8)) for vector in found)
    one = ir.IntType(8 * width)
    parts = []
    for part in range(width):
        made: Any = ir.Constant(vector_of(one, _LANES // width), ir.Undefined)
        for i in range(_LANES // width):
            at = part * (_LANES // width) + i
            index = builder.or_(_byte(builder, low, at), builder.shl(_byte(builder, high, at), I64(8)))
            address = builder.add(base, builder.mul(index, I64(width)))
            made = builder.insert_element(made, builder.load(pointer(builder, address, one)), I32(i))
        parts.append(builder.bitcast(made, vector_of(I8, _LANES)))
    return parts


def _byte(builder: Any, words: Any, at: int) -> Any:
    """Byte `at` of 64, given as eight words."""
    word = builder.extract_element(words, I32(at // 8))
    return builder.and_(builder.lshr(word, I64(8 * (at % 8))), I64(255))


@intrinsic
def add_to_points(parts: Any, steps: Any) -> Any:
    """Add byte p of i8x64 `steps` to the eight values of point p."""

    def generate(builder: Any, parts: list[Any], steps: Any) -> list[Any]:
        spread = [shuffle(builder, steps, steps, [8 * part + i // 8 for i in range(64)]) for part in range(len(parts))]
        return [builder.add(part, step) for part, step in zip(parts, spread, strict=True)]

    return (i8x64, 8), generate
