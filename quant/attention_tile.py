"""Register tiles of attention: a few queries by a few keys, or by some columns of values.

Every sum is made in one order, whatever stands beside it in a tile: so what a query gets does not depend on others.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.int8_dot import UNIT
from quant.jit import intrinsic
from quant.simd import F32, constant_of, f32x16, pointer, shuffle, splat_llvm, vector_of
from quant.tile import ENTRY, entry_llvm, fma_llvm, offset_by

ROWS = 4  # queries of a tile
# Keys of a tile, or vectors of 16 columns of values: sums fill 16 of 32 zmm registers, 8 of 16 ymm, or 16 of 32 of NEON.
WIDE = 4 if UNIT.startswith("avx512") else 1

Values = list[Any]


def _zeros(count: int) -> Any:
    zero = constant_of(vector_of(F32, 16), 0.0)
    return intrinsic(lambda: ((f32x16, count), lambda _builder: [zero] * count))


# Sum `row + ROWS * i` is of one query and one key, or one vector.
wide_sums, narrow_sums = _zeros(ROWS * WIDE), _zeros(ROWS)


def _vector(builder: Any, address: Any, offset: Any) -> Any:
    return builder.load(pointer(builder, builder.add(address, offset), vector_of(F32, 16)), align=1)


def _apart(builder: Any, address: Any, stride: Any, count: int) -> Any:
    """The address `count` strides on."""
    return builder.add(address, builder.mul(stride, ir.Constant(stride.type, count)))


@intrinsic
def add_products(sums: Any, entries: Any, keys: Any, stride: Any, column: Any) -> Any:
    """sums + q * k of 16 columns, `column` bytes on, of queries, given by a table of ENTRY, and keys, `stride` bytes apart."""

    def generate(builder: Any, sums: Values, entries: Any, keys: Any, stride: Any, column: Any) -> Values:
        queries = [entry_llvm(builder, entries, row, ENTRY.activation, entries.type) for row in range(ROWS)]
        q = [_vector(builder, query, column) for query in queries]
        k = [_vector(builder, _apart(builder, keys, stride, i), column) for i in range(len(sums) // ROWS)]
        return [fma_llvm(builder, q[i % ROWS], k[i // ROWS], total) for i, total in enumerate(sums)]

    return sums, generate


@intrinsic
def add_product(sums: Any, entries: Any, column: Any, key: Any) -> Any:
    """The same of one key, whose 16 columns are given."""

    def generate(builder: Any, sums: Values, entries: Any, column: Any, key: Any) -> Values:
        queries = [entry_llvm(builder, entries, row, ENTRY.activation, entries.type) for row in range(ROWS)]
        pairs = zip(queries, sums, strict=True)
        return [fma_llvm(builder, _vector(builder, query, column), key, total) for query, total in pairs]

    return sums, generate


def _added(builder: Any, a: Any, b: Any, low: list[int], high: list[int]) -> Any:
    return builder.fadd(shuffle(builder, a, b, low), shuffle(builder, a, b, high))


def _quarters(builder: Any, four: Values) -> Any:
    """Four vectors -> a vector of four lanes of each, one behind the other: sums of lanes 4 apart."""
    halves = [list(range(8)) + list(range(16, 24)), list(range(8, 16)) + list(range(24, 32))]
    pairs = [_added(builder, a, b, *halves) for a, b in zip(four[::2], four[1::2], strict=True)]
    even = [lane for first in range(0, 32, 8) for lane in range(first, first + 4)]
    return _added(builder, pairs[0], pairs[1], even, [lane + 4 for lane in even])


def _lane_sums(builder: Any, sums: Values) -> Any:
    """The sum of the lanes of each vector, added up as `sum_lanes` does: of a row's keys one behind the other."""
    quarters = [_quarters(builder, sums[i : i + ROWS]) for i in range(0, len(sums), ROWS)]
    if len(quarters) == 1:
        even = [lane for first in range(0, 16, 4) for lane in (first, first + 1)]
        eighths = _added(builder, quarters[0], quarters[0], even, [lane + 2 for lane in even])
        return _added(builder, eighths, eighths, list(range(0, 8, 2)), list(range(1, 8, 2)))
    # lanes stay within 128 bits, where changing places takes one cycle
    both = [lane for first in range(0, 16, 4) for lane in (first, first + 1, first + 16, first + 17)]
    pairs = [
        _added(builder, a, b, both, [lane + 2 for lane in both])
        for a, b in zip(quarters[::2], quarters[1::2], strict=True)
    ]
    even = [lane for first in range(0, 16, 4) for lane in (first, first + 2, first + 16, first + 18)]
    return _added(builder, pairs[0], pairs[1], even, [lane + 1 for lane in even])


@intrinsic
def store_lane_sums(sums: Any, scores: Any, stride: Any) -> Any:
    """The sum of the lanes of each -> scores: those of a query one behind the other, queries `stride` bytes apart."""

    def generate(builder: Any, sums: Values, scores: Any, stride: Any) -> None:
        totals, keys = _lane_sums(builder, sums), len(sums) // ROWS
        for row in range(ROWS):
            some = shuffle(builder, totals, totals, range(keys * row, keys * (row + 1)))
            place = pointer(builder, _apart(builder, scores, stride, row), some.type)
            builder.store(some, place, align=1)

    return None, generate


def _weights(builder: Any, weights: Any, stride: Any) -> Values:
    rows = [pointer(builder, _apart(builder, weights, stride, row), F32) for row in range(ROWS)]
    return [splat_llvm(builder, builder.load(row, align=1), 16) for row in rows]


@intrinsic
def add_value(sums: Any, weights: Any, stride: Any, value: Any) -> Any:
    """sums + w * v of one position: weights `stride` bytes apart, and 16 columns of its values."""

    def generate(builder: Any, sums: Values, weights: Any, stride: Any, value: Any) -> Values:
        pairs = zip(_weights(builder, weights, stride), sums, strict=True)
        return [fma_llvm(builder, weight, value, total) for weight, total in pairs]

    return sums, generate


@intrinsic
def add_values(sums: Any, weights: Any, stride: Any, values: Any) -> Any:
    """The same of the values at an address, 16 columns after the other."""

    def generate(builder: Any, sums: Values, weights: Any, stride: Any, values: Any) -> Values:
        w = _weights(builder, weights, stride)
        v = [_vector(builder, values, ir.Constant(values.type, 64 * i)) for i in range(len(sums) // ROWS)]
        return [fma_llvm(builder, w[i % ROWS], v[i // ROWS], total) for i, total in enumerate(sums)]

    return sums, generate


@intrinsic
def store_sums(sums: Any, entries: Any, offset: Any) -> Any:
    """Sums -> each query's result, `offset` bytes on, 16 columns after the other."""

    def generate(builder: Any, sums: Values, entries: Any, offset: Any) -> None:
        for i, total in enumerate(sums):
            result = entry_llvm(builder, entries, i % ROWS, ENTRY.result, entries.type)
            place = builder.add(offset_by(builder, result, 64 * (i // ROWS)), offset)
            builder.store(total, pointer(builder, place, total.type), align=1)

    return None, generate
