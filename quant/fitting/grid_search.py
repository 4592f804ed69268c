"""Which points of a grid, and which scales, leave the least weighted squared error: for sixteen blocks, a lane each.

For a given scale the search is exact: what each value adds to the error depends on its level alone, so the errors of all
halves of a point stand in two tables of 81 or 64 sums, and a point costs two loads and an addition. A scale is begun with
some guesses, each improved by least squares; then d is tried in a few sizes, each scale at its nearest levels, and the
points are chosen for the scale that is really stored.

Columns and weights are float32 [256, 16 lanes]. A point that was found is a word: its codes (see quant.blocks.grids) in 16 bits,
its index in the next 11, and in bit 27 whether the shift of IQ1 is -1/8.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from quant.fitting.grid_table import OTHER_LEVELS, RECORD_BYTES, RECORDS
from quant.fitting.lanes import between, f16_bits, larger, smaller, sqrt, store_i32x16, where_equal, where_greater
from quant.jit import inline, intrinsic
from quant.simd import (
    I16,
    I32,
    I64,
    add,
    bit_and,
    bit_or,
    broadcast_f32,
    divide,
    i32x16,
    load_f32x16,
    load_i32x16,
    low_f16,
    mul,
    pointer,
    round_even,
    shift_right,
    splat,
    splat_llvm,
    store_f32x16,
    sub,
    to_f32,
    zero_f32x16,
    zero_i32x16,
)


class GridType(NamedTuple):
    """How a quant type uses its grid."""

    width: int  # values of a point: 8, of 3 levels each, or 4, of 8
    points: int  # of the grid
    group: int  # points that share a scale
    shifted: int  # points that share a shift of 1/8 or -1/8; 0: there is none
    top: int  # level of the largest scale; a scale is d * (1 + 2 * level)


# Places in scratch: x and its weights, [256, 16]; words of points, [64, 16]: of the best d, of this one, of a try and of a
# try with the other shift; scales, and their levels for the best d and this one, [16, 16] each; tables for the halves of a
# point, and for the values and pairs that they are made of.
X, WEIGHTS, POINTS, _NOW, _TRY, _OTHER = 0, 16384, 32768, 36864, 40960, 41472
_SCALE, LEVELS, _LEVELS_NOW, _FIRST, _SECOND, _VALUES, _PAIRS = 41984, 43008, 44032, 45056, 50304, 55552, 56576
FREE = 57728
_ONE, _HALF, _QUARTER, _HUGE = np.float32(1), np.float32(0.5), np.float32(0.25), np.float32(3e38)
_LARGEST_HALF = np.float32(65504)


@intrinsic
def _load_u16(address: Any) -> Any:
    return "i64", lambda builder, x: builder.zext(builder.load(pointer(builder, x, I16), align=1), I64)


@intrinsic
def _broadcast_i32(address: Any) -> Any:
    return i32x16, lambda builder, x: splat_llvm(builder, builder.load(pointer(builder, x, I32), align=1), 16)


# --- one point ----------------------------------------------------------------------------------------------------


@inline
def _value_errors(x, weights, scale, levels, count, out):
    """What each level of one column adds to the error, less weight * x^2: float32 [count, 16]."""
    weight, value = load_f32x16(weights), load_f32x16(x)
    product = mul(weight, add(value, value))
    for level in range(count):
        q = mul(scale, broadcast_f32(levels + 4 * level))
        store_f32x16(out + 64 * level, mul(q, sub(mul(weight, q), product)))


@inline
def _all_sums(a, count_a, b, count_b, out):
    """out[i + count_a * j] = a[i] + b[j]."""
    for j in range(count_b):
        value = load_f32x16(b + 64 * j)
        for i in range(count_a):
            store_f32x16(out + 64 * (i + count_a * j), add(load_f32x16(a + 64 * i), value))


@inline
def _half_errors(x, weights, scale, levels, width, scratch, out):
    """The errors of all halves of a point: 64 of two columns of 8 levels, or 81 of four columns of 3."""
    values, pairs = scratch + _VALUES, scratch + _PAIRS
    if width == 4:
        for i in range(2):
            _value_errors(x + 64 * i, weights + 64 * i, scale, levels, 8, values + 512 * i)
        _all_sums(values, 8, values + 512, 8, out)
    else:
        for i in range(4):
            _value_errors(x + 64 * i, weights + 64 * i, scale, levels, 3, values + 192 * i)
        _all_sums(values, 3, values + 192, 3, pairs)
        _all_sums(values + 384, 3, values + 576, 3, pairs + 576)
        _all_sums(pairs, 9, pairs + 576, 9, out)


@inline
def _nearest(grid, x, weights, scale, levels, table, scratch):
    """The least error of any point for these columns, less the sum of weight * x^2; and the point's word."""
    first, second, half = scratch + _FIRST, scratch + _SECOND, 32 * grid.width
    _half_errors(x, weights, scale, levels, grid.width, scratch, first)
    _half_errors(x + half, weights + half, scale, levels, grid.width, scratch, second)
    least, word, record = splat(_HUGE), zero_i32x16(), table + RECORDS
    for _ in range(grid.points):
        error = add(load_f32x16(first + _load_u16(record)), load_f32x16(second + _load_u16(record + 2)))
        word = where_greater(least, error, _broadcast_i32(record + 4), word)
        least = smaller(error, least)
        record += RECORD_BYTES
    return least, word


# --- points that share a scale ------------------------------------------------------------------------------------


@inline
def _nearest_of_group(grid, x, weights, scale, levels, table, words, scratch):
    """The sum of the least errors of a group's points; their words are written to `words`."""
    total = zero_f32x16()
    for point in range(grid.group):
        at = 64 * grid.width * point
        error, word = _nearest(grid, x + at, weights + at, scale, levels, table, scratch)
        store_i32x16(words + 64 * point, word)
        total = add(total, error)
    return total


@inline
def _nearest_shifted(grid, x, weights, scale, table, scratch):
    """The same with either shift, whichever is better for each `grid.shifted` points."""
    words, others, total = scratch + _TRY, scratch + _OTHER, zero_f32x16()
    for part in range(grid.group // grid.shifted):
        one, other = zero_f32x16(), zero_f32x16()
        for point in range(part * grid.shifted, (part + 1) * grid.shifted):
            at = 64 * grid.width * point
            error, word = _nearest(grid, x + at, weights + at, scale, table, table, scratch)
            store_i32x16(words + 64 * point, word)
            one = add(one, error)
            levels = table + OTHER_LEVELS
            error, word = _nearest(grid, x + at, weights + at, scale, levels, table, scratch)
            store_i32x16(others + 64 * point, bit_or(word, _minus_bit()))
            other = add(other, error)
        at = 64 * grid.shifted * part
        _keep(other, one, grid.shifted, others + at, words + at)
        total = add(total, smaller(other, one))
    return total


@intrinsic
def _minus_bit() -> Any:
    return i32x16, lambda builder: splat_llvm(builder, I32(1 << 27), 16)


@inline
def _search(grid, x, weights, scale, table, scratch):
    """The least error of a group with that scale, less its sum of weight * x^2; words of its points at _TRY."""
    if grid.shifted:
        return _nearest_shifted(grid, x, weights, scale, table, scratch)
    return _nearest_of_group(grid, x, weights, scale, table, table, scratch + _TRY, scratch)


@inline
def _least_squares(grid, x, weights, table, scratch):
    """Of the points at _TRY: the sums of weight * x * value and of weight * value^2."""
    xl, l2, levels = zero_f32x16(), zero_f32x16(), 8 if grid.width == 4 else 3
    for point in range(grid.group):
        word = load_i32x16(scratch + _TRY + 64 * point)
        shift = mul(to_f32(bit_and(shift_right(word, 27), 1)), splat(_QUARTER))
        for i in range(grid.width):
            code, value = to_f32(bit_and(word, 7) if grid.width == 4 else bit_and(word, 3)), broadcast_f32(table)
            word = shift_right(word, 3) if grid.width == 4 else shift_right(word, 2)
            for level in range(1, levels):
                value = where_equal(code, splat(np.float32(level)), broadcast_f32(table + 4 * level), value)
            at = 64 * (grid.width * point + i)
            value = sub(value, shift)
            weighted = mul(load_f32x16(weights + at), value)
            xl, l2 = add(xl, mul(weighted, load_f32x16(x + at))), add(l2, mul(weighted, value))
    return xl, l2


@inline
def _size_of(grid, x, weights, table):
    """The unit of guesses at a scale: the largest number / the largest value of a point; for IQ1, the root mean square."""
    largest, squares, total = zero_f32x16(), zero_f32x16(), zero_f32x16()
    for i in range(grid.group * grid.width):
        value, weight = load_f32x16(x + 64 * i), load_f32x16(weights + 64 * i)
        largest = larger(value, largest)
        squares, total = add(squares, mul(mul(weight, value), value)), add(total, weight)
    if grid.shifted:
        return sqrt(divide(squares, total))
    return divide(largest, broadcast_f32(table + (28 if grid.width == 4 else 8)))


@inline
def _first_scale(grid, x, weights, table, scratch):
    """The best of some guesses at a group's scale: for each, its nearest points, and the least-squares scale for these."""
    size, scale, best, zero = _size_of(grid, x, weights, table), zero_f32x16(), zero_f32x16(), zero_f32x16()
    begin, step, guesses = np.float32(0.6), np.float32(0.15), 4
    if grid.shifted:
        begin, guesses = np.float32(1.2), 1
    for guess in range(guesses):
        _search(grid, x, weights, mul(size, splat(begin + step * np.float32(guess))), table, scratch)
        xl, l2 = _least_squares(grid, x, weights, table, scratch)
        gain = where_greater(xl, zero, divide(mul(xl, xl), l2), zero)
        scale = where_greater(gain, best, divide(xl, l2), scale)
        best = larger(gain, best)
    return scale


# --- a block ------------------------------------------------------------------------------------------------------


@inline
def _keep(better, than, count, source, target):
    """In lanes where `than` is greater than `better`, copy `count` vectors from source to target."""
    for i in range(count):
        word = where_greater(than, better, load_i32x16(source + 64 * i), load_i32x16(target + 64 * i))
        store_i32x16(target + 64 * i, word)


@inline
def _with_d(grid, d, table, scratch):
    """The error of a block with this d, where each group has the best of three levels near its own scale.

    Words of points are written to _NOW, levels to _LEVELS_NOW.
    """
    zero, one, top = zero_f32x16(), splat(_ONE), splat(np.float32(grid.top))
    inverse, total, columns = where_greater(d, zero, divide(one, d), zero), zero, grid.group * grid.width
    for group in range(256 // columns):
        least, at, level_at = splat(_HUGE), 64 * columns * group, scratch + _LEVELS_NOW + 64 * group
        near = round_even(mul(sub(mul(load_f32x16(scratch + _SCALE + 64 * group), inverse), one), splat(_HALF)))
        for step in range(3):
            level = between(add(near, splat(np.float32(step - 1))), zero, top)
            scale = mul(d, add(one, add(level, level)))
            error = _search(grid, scratch + X + at, scratch + WEIGHTS + at, scale, table, scratch)
            _keep(error, least, grid.group, scratch + _TRY, scratch + _NOW + 64 * grid.group * group)
            store_f32x16(level_at, where_greater(least, error, level, load_f32x16(level_at)))
            least = smaller(error, least)
        total = add(total, least)
    return total


@inline
def find_points(grid, table, scratch):
    """Find d, scales and points of the 16 blocks at X for the weights at WEIGHTS. -> d, as float16 bits in i32x16

    Words of points are left at POINTS, the levels of scales, float32, at LEVELS; table: see quant.fitting.grid_table.
    """
    columns, largest = grid.group * grid.width, zero_f32x16()
    for group in range(256 // columns):
        at = 64 * columns * group
        scale = _first_scale(grid, scratch + X + at, scratch + WEIGHTS + at, table, scratch)
        store_f32x16(scratch + _SCALE + 64 * group, scale)
        largest = larger(scale, largest)
    least, bits = splat(_HUGE), zero_i32x16()
    size, begin, tries = divide(largest, splat(np.float32(2 * grid.top + 1))), np.float32(0.95), 3
    if grid.shifted:
        begin, tries = _ONE, 1
    for attempt in range(tries):
        factor = begin + np.float32(0.05) * np.float32(attempt)
        new = f16_bits(smaller(mul(size, splat(factor)), splat(_LARGEST_HALF)))
        total = _with_d(grid, low_f16(new), table, scratch)
        _keep(total, least, 256 // grid.width, scratch + _NOW, scratch + POINTS)
        _keep(total, least, 256 // columns, scratch + _LEVELS_NOW, scratch + LEVELS)
        bits = where_greater(least, total, new, bits)
        least = smaller(total, least)
    return bits
