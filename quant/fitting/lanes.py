"""Operations for sixteen blocks at once, a lane each: selection by comparison, conversion to bits, loads and stores.

No lane waits for its neighbour, so a search may be written as for one block, and its sums keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from quant.int8_dot import UNIT
from quant.jit import inline, intrinsic
from quant.simd import (
    F16,
    F32,
    I8,
    I16,
    I32,
    call_llvm,
    constant_of,
    divide,
    f32x16,
    i32x16,
    pointer,
    round_even,
    splat,
    vector_of,
    zero_f32x16,
)
from quant.tile import transpose16

_LANES = 16
LANE_BYTES = 64  # of a float32 or int32 in every lane


def _choice(comparison: str) -> Any:
    @intrinsic
    def where(a: Any, b: Any, x: Any, y: Any) -> Any:
        def generate(builder: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, a, b), x, y)

        return x, generate

    return where


# where_greater(a, b, x, y): x where a > b, else y; y where either is not a number.
where_greater, where_equal = _choice(">"), _choice("==")


@inline
def smaller(a, b):
    """The smaller of two; b where a is not a number (one instruction, unlike simd.minimum)."""
    return where_greater(b, a, a, b)


@inline
def larger(a, b):
    """The larger of two; b where a is not a number."""
    return where_greater(a, b, a, b)


@inline
def between(value, least, most):
    """Held in [least, most]; most where it is not a number."""
    return larger(smaller(value, most), least)


@inline
def nearest_between(value, least, most):
    """The nearest whole number in [least, most], halves to even."""
    return between(round_even(value), least, most)


@inline
def inverse_of(d):
    """1 / d, or 0 where d is 0."""
    zero = zero_f32x16()
    return where_equal(d, zero, zero, divide(splat(np.float32(1)), d))


def _function(name: str) -> Any:
    def generate(builder: Any, x: Any) -> Any:
        return call_llvm(builder, f"{name}.v{x.type.count}f32", x.type, [x])

    return intrinsic(lambda vector: (vector, generate))


sqrt = _function("llvm.sqrt")
round_away = _function("llvm.round")  # halves away from zero, as C's roundf


def staircase(bounds: Sequence[float], values: Sequence[float]) -> Any:
    """Declare an operation on f32x16: x -> values[number of bounds <= x]; bounds ascend."""

    def table(numbers: Sequence[float]) -> Any:
        return ir.Constant(vector_of(F32, _LANES), list(numbers))

    def steps(builder: Any, x: Any) -> Any:
        found = constant_of(x.type, values[0])
        for bound, value in zip(bounds, values[1:], strict=True):
            above = builder.fcmp_ordered(">=", x, constant_of(x.type, bound))
            found = builder.select(above, constant_of(x.type, value), found)
        return found

    def tree(builder: Any, x: Any) -> Any:
        """Four comparisons, each with the bound that the one before has chosen: node 2n or 2n + 1 after node n."""
        words = vector_of(I32, _LANES)
        nodes = table([0.0] + [bounds[(2 * (n - width) + 1) * 8 // width - 1] for n, width in _NODES])
        node = constant_of(words, 1)
        for _ in range(4):
            bound = call_llvm(builder, "llvm.x86.avx512.permvar.sf.512", x.type, [nodes, node])
            above = builder.zext(builder.fcmp_ordered(">=", x, bound), words)
            node = builder.add(builder.add(node, node), above)
        return call_llvm(builder, "llvm.x86.avx512.permvar.sf.512", x.type, [table(values), node])

    use_tree = UNIT.startswith("avx512") and len(values) == _LANES
    return intrinsic(lambda vector: (vector, tree if use_tree else steps))


_NODES = [(n, 1 << (n.bit_length() - 1)) for n in range(1, _LANES)]  # of a binary tree, and how many are in its row


@intrinsic
def unknown(count: Any) -> Any:
    """A whole number that the compiler shall not know, so that a loop over it is not unrolled: compiling takes half."""
    kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
    return "i64", lambda builder, value: builder.asm(kind, "", "=r,0", [value], False)


@intrinsic
def to_i32(vector: Any) -> Any:
    """float32 lanes in the range of int32 -> i32 lanes, fractions cut off."""
    return i32x16, lambda builder, x: builder.fptosi(x, vector_of(I32, _LANES))


@intrinsic
def f16_bits(vector: Any) -> Any:
    """float32 lanes -> the nearest float16, its bits as i32 lanes."""

    def generate(builder: Any, x: Any) -> Any:
        half = builder.bitcast(builder.fptrunc(x, vector_of(F16, _LANES)), vector_of(I16, _LANES))
        return builder.zext(half, vector_of(I32, _LANES))

    return i32x16, generate


@intrinsic
def f32_bits(vector: Any) -> Any:
    """float32 lanes, their bits as i32 lanes."""
    return i32x16, lambda builder, x: builder.bitcast(x, vector_of(I32, _LANES))


@intrinsic
def bits_f32(words: Any) -> Any:
    """i32 lanes, read as float32."""
    return f32x16, lambda builder, x: builder.bitcast(x, vector_of(F32, _LANES))


@intrinsic
def store_f16(address: Any, scalar: Any) -> Any:
    """One float32, as the nearest float16."""

    def generate(builder: Any, address: Any, x: Any) -> None:
        builder.store(builder.fptrunc(x, F16), pointer(builder, address, F16), align=1)

    return None, generate


def _scatter(width: Any) -> Any:
    def generate(builder: Any, address: Any, stride: Any, words: Any) -> None:
        for lane in range(_LANES):
            at = builder.add(address, builder.mul(stride, ir.Constant(stride.type, lane)))
            value = builder.extract_element(words, I32(lane))
            value = value if width is I32 else builder.trunc(value, width)
            builder.store(value, pointer(builder, at, width), align=1)

    return intrinsic(lambda address, stride, words: (None, generate))


# scatter_u32(address, stride, words): the low bits of lane l of an i32x16 to address + l * stride.
scatter_u8, scatter_u16, scatter_u32 = _scatter(I8), _scatter(I16), _scatter(I32)


@intrinsic
def store_bf16x16(address: Any, vector: Any) -> Any:
    """float32 lanes, as the nearest bfloat16, halves to even; NaN stays NaN."""

    def generate(builder: Any, address: Any, x: Any) -> None:
        words, halves = vector_of(I32, _LANES), vector_of(I16, _LANES)
        bits = builder.bitcast(x, words)
        top = builder.lshr(bits, constant_of(words, 16))
        even = builder.add(builder.and_(top, constant_of(words, 1)), constant_of(words, 0x7FFF))
        rounded = builder.lshr(builder.add(bits, even), constant_of(words, 16))
        quiet = builder.or_(top, constant_of(words, 64))
        kept = builder.select(builder.fcmp_unordered("uno", x, x), quiet, rounded)
        builder.store(builder.trunc(kept, halves), pointer(builder, address, halves), align=1)

    return None, generate


@intrinsic
def store_i32x16(address: Any, words: Any) -> Any:
    """i32 lanes to an address."""

    def generate(builder: Any, address: Any, words: Any) -> None:
        builder.store(words, pointer(builder, address, vector_of(I32, _LANES)), align=1)

    return None, generate


@inline
def spread(rows, stride, columns, lanes):
    """16 rows of float32, `stride` bytes apart -> float32 [columns, 16 lanes]; columns is a multiple of 16."""
    for part in range(unknown(columns // 16)):
        transpose16(rows + 64 * part, stride, lanes + 1024 * part, LANE_BYTES)
