"""Sixteen blocks of 256 columns, a lane each, in parts that have a scale and a minimum of few bits: Q2_K, Q4_K, Q5_K.

Places in scratch: float32 [256, 16 lanes] of x; the weights of one part and their stage; the candidate of a search;
then for each part a vector of what its search found and of what is written; at last int32 [256, 16] q, and words.
"""

from __future__ import annotations

from quant.fitting.lanes import (
    f16_bits,
    larger,
    nearest_between,
    store_i32x16,
    to_i32,
    unknown,
    where_equal,
    where_greater,
)
from quant.fitting.search import affine, positive, sum_of
from quant.jit import inline
from quant.simd import add, divide, load_f32x16, mul, splat, store_f32x16, sub, zero_f32x16

WEIGHTS, STAGE, SEARCH = 16384, 18432, 20480
SCALE, MINIMUM, INVERSE, BEGIN, SUM, SCALE_LEVEL, MINIMUM_LEVEL = (22528 + 1024 * i for i in range(7))
Q, WORDS = 29696, 46080


@inline
def search_part(x, j, count, most, first, step, steps, magnitudes, scratch):
    """Scale and minimum of part j, of `count` columns, with the weights in scratch (see quant.fitting.search.affine)."""
    store_f32x16(scratch + SUM + 64 * j, sum_of(scratch + WEIGHTS, count))
    scale, minimum, inverse, begin = affine(
        x + 64 * count * j, scratch + WEIGHTS, count, most, first, step, steps, magnitudes, scratch + SEARCH
    )
    store_f32x16(scratch + SCALE + 64 * j, scale)
    store_f32x16(scratch + MINIMUM + 64 * j, minimum)
    store_f32x16(scratch + INVERSE + 64 * j, inverse)
    store_f32x16(scratch + BEGIN + 64 * j, begin)


@inline
def levels_of_parts(parts, most, importance, scratch):
    """Levels of scales and of minima, in [0, most]. -> d, dmin, as float16 bits"""
    sums = scratch + SUM
    d = _levels_of(scratch + SCALE, parts, most, importance, sums, scratch + SCALE_LEVEL)
    dmin = _levels_of(scratch + MINIMUM, parts, most, importance, sums, scratch + MINIMUM_LEVEL)
    return f16_bits(d), f16_bits(dmin)


@inline
def _levels_of(values, parts, most, importance, weights, levels):
    """Values >= 0, one a part, as whole levels in [0, most] times the number that is given back."""
    if importance:
        return positive(values, weights, parts, most, levels)
    zero, top = zero_f32x16(), splat(most)
    largest = zero
    for j in range(unknown(parts)):
        largest = larger(load_f32x16(values + 64 * j), largest)
    inverse = where_greater(largest, zero, divide(top, largest), zero)
    for j in range(unknown(parts)):
        level = mul(inverse, load_f32x16(values + 64 * j))
        store_f32x16(levels + 64 * j, nearest_between(level, zero, top))
    return divide(largest, top)


@inline
def round_parts(x, parts, count, d, dmin, most, scratch):
    """q of every column: the nearest for the scale and minimum that are written, as float32 d and dmin times their
    levels; if that scale is 0, what the search had found.
    """
    zero, top = zero_f32x16(), splat(most)
    for j in range(unknown(parts)):
        scale = mul(d, load_f32x16(scratch + SCALE_LEVEL + 64 * j))
        minimum = mul(dmin, load_f32x16(scratch + MINIMUM_LEVEL + 64 * j))
        inverse, begin = load_f32x16(scratch + INVERSE + 64 * j), load_f32x16(scratch + BEGIN + 64 * j)
        for i in range(unknown(count)):
            column = 64 * (count * j + i)
            value = load_f32x16(x + column)
            found = divide(add(value, minimum), scale)
            found = where_equal(scale, zero, mul(inverse, sub(value, begin)), found)
            level = nearest_between(found, zero, top)
            store_i32x16(scratch + Q + column, to_i32(level))
