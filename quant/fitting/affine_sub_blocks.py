"""Sixteen blocks of 256 columns, a lane each, whose sub-blocks have a scale and a minimum of few bits: Q2_K, Q4_K, Q5_K.

Scales and minima are searched for first, one sub-block after the other; then they are quantized themselves, to levels
times d and dmin; at last the columns, for the scales and minima that are really stored.

Places in scratch: float32 [256, 16 lanes] of x; the weights of one sub-block and their stage; the candidate of a search;
then for each sub-block a vector of what its search found and of its levels; at last int32 [256, 16] q, and the packed
words of the blocks, int32 [words, 16].
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
def search_sub_block(x, j, count, most, first, step, steps, magnitudes, scratch):
    """Search scale and minimum of sub-block j, `count` columns, for the weights in scratch: see quant.fitting.search.affine."""
    store_f32x16(scratch + SUM + 64 * j, sum_of(scratch + WEIGHTS, count))
    scale, minimum, inverse, begin = affine(
        x + 64 * count * j, scratch + WEIGHTS, count, most, first, step, steps, magnitudes, scratch + SEARCH
    )
    store_f32x16(scratch + SCALE + 64 * j, scale)
    store_f32x16(scratch + MINIMUM + 64 * j, minimum)
    store_f32x16(scratch + INVERSE + 64 * j, inverse)
    store_f32x16(scratch + BEGIN + 64 * j, begin)


@inline
def quantize_scales(parts, most, importance, scratch):
    """Scales and minima of all sub-blocks to levels in [0, most], float32 [sub-blocks, 16]. -> d, dmin, as float16 bits"""
    sums = scratch + SUM
    d = _levels_of(scratch + SCALE, parts, most, importance, sums, scratch + SCALE_LEVEL)
    dmin = _levels_of(scratch + MINIMUM, parts, most, importance, sums, scratch + MINIMUM_LEVEL)
    return f16_bits(d), f16_bits(dmin)


@inline
def _levels_of(values, parts, most, importance, weights, levels):
    """Values >= 0, one a sub-block, to whole levels in [0, most]. -> the factor by which levels are values"""
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
def quantize_columns(x, parts, count, d, dmin, most, scratch):
    """q of every column, int32 [256, 16]: the nearest for the stored scale and minimum, which are float32 d and dmin times
    their levels; where that scale is 0, the q that the search had found.
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
