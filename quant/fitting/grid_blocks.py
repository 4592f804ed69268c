"""What quantizers of the IQ types share beside the search for points: weights of columns, signs, and packing.

Without importance a column weighs x^2 + mean x^2 of the block, with it importance * sqrt(mean x^2 + x^2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quant.fitting.grid_search import FREE, LEVELS, POINTS, WEIGHTS, X
from quant.fitting.importance import importance_lanes
from quant.fitting.lanes import f32_bits, smaller, spread, sqrt, store_i32x16, to_i32, where_equal, where_greater
from quant.fitting.pack import pack_bytes
from quant.fitting.search import sum_of, sum_of_squares
from quant.jit import inline
from quant.simd import (
    absolute,
    add,
    bit_and,
    bit_or,
    load_f32x16,
    load_i32x16,
    mul,
    shift_left,
    shift_right,
    splat,
    store_f32x16,
    sub,
    to_f32,
    zero_f32x16,
    zero_i32x16,
)

# Places in scratch: signs of 8 columns a vector, [32, 16]; the importance's stage; what is packed.
SIGNS, _STAGE, WORDS = FREE, FREE + 2048, FREE + 18432
_MEAN, _ONE, _LEAST, _FAR = np.float32(1 / 256), np.float32(1), np.float32(1e-9), np.float32(3e38)


@inline
def load_blocks(x, importance, scratch):
    """The 16 blocks at x, and the weights of their columns, to X and WEIGHTS: float32 [256, 16 lanes] each."""
    spread(x, 1024, 256, scratch + X)
    mean = mul(sum_of_squares(scratch + X, 256, zero_f32x16()), splat(_MEAN))
    weights, least = scratch + WEIGHTS, zero_f32x16()
    if importance:
        importance_lanes(importance, 0, 256, weights, scratch + _STAGE)
        total = sum_of(weights, 256)  # columns of no importance still want to be near
        least = where_equal(total, zero_f32x16(), splat(_ONE), mul(total, splat(_LEAST)))
    for i in range(256):
        value = load_f32x16(scratch + X + 64 * i)
        square = add(mean, mul(value, value))
        if importance:
            square = mul(add(load_f32x16(weights + 64 * i), least), sqrt(square))
        store_f32x16(weights + 64 * i, square)


@inline
def _flipped(x, weights):
    """Which of 8 columns costs least with the other sign, as float32; -1 where the number of minus signs is even already."""
    signs, least, place = zero_i32x16(), splat(_FAR), zero_f32x16()
    for i in range(8):
        value = load_f32x16(x + 64 * i)
        cost = mul(load_f32x16(weights + 64 * i), absolute(value))
        signs = add(signs, shift_right(f32_bits(value), 31))
        place = where_greater(least, cost, splat(np.float32(i)), place)
        least = smaller(cost, least)
    return where_equal(to_f32(bit_and(signs, 1)), splat(_ONE), place, splat(-_ONE))


@inline
def take_signs(even, scratch):
    """Columns at X become magnitudes; their signs, eight in a byte, go to SIGNS.

    even: the number of minus signs in a byte must be even; where it is not, the column that costs least changes its sign,
    and its magnitude becomes negative.
    """
    for eight in range(32):
        x, signs, flipped = scratch + X + 512 * eight, zero_i32x16(), splat(-_ONE)
        if even:
            flipped = _flipped(x, scratch + WEIGHTS + 512 * eight)
        for back in range(8):
            at, place = x + 64 * (7 - back), splat(np.float32(7 - back))
            value, minus = load_f32x16(at), sub(zero_f32x16(), splat(_ONE))
            sign = where_equal(place, flipped, minus, splat(_ONE))
            signs = bit_or(shift_left(signs, 1), shift_right(f32_bits(mul(value, sign)), 31))
            store_f32x16(at, mul(absolute(value), sign))
        store_i32x16(scratch + SIGNS + 64 * eight, signs)


# --- packing ------------------------------------------------------------------------------------------------------


@inline
def low_bytes(scratch, first):
    """The lowest 8 bits of the indices of four points from `first` on, as a word of four bytes."""
    found = scratch + POINTS + 64 * first
    low = bit_or(
        bit_and(shift_right(load_i32x16(found), 16), 0xFF), bit_and(shift_right(load_i32x16(found + 64), 8), 0xFF00)
    )
    high = bit_or(
        bit_and(load_i32x16(found + 128), 0xFF0000), shift_left(bit_and(load_i32x16(found + 192), 0xFF0000), 8)
    )
    return bit_or(low, high)


@inline
def store_low_bytes(scratch, points, words):
    """The same of all points, to consecutive words."""
    for word in range(points // 4):
        store_i32x16(words + 64 * word, low_bytes(scratch, 4 * word))


def high_bits(points: int, bits: int) -> Any:
    """Declare what packs `bits` bits of each of so many points, from the one above those of `low_bytes` on."""
    mask = (1 << bits) - 1

    @inline
    def packed_bits(scratch, first):
        packed = zero_i32x16()
        for back in range(points):
            word = load_i32x16(scratch + POINTS + 64 * (first + points - 1 - back))
            packed = bit_or(shift_left(packed, bits), bit_and(shift_right(word, 24), mask))
        return packed

    return packed_bits


@inline
def store_sign_bytes(scratch, words):
    """Signs of all columns, 32 bytes of each block."""
    pack_bytes(scratch + SIGNS, 32, words)


@inline
def seven_signs(scratch, first):
    """The first 7 signs of each 8 of 32 columns, in 28 bits; `first`: of their bytes in SIGNS."""
    signs, packed = scratch + SIGNS + 64 * first, zero_i32x16()
    for back in range(4):
        packed = bit_or(shift_left(packed, 7), bit_and(load_i32x16(signs + 64 * (3 - back)), 127))
    return packed


@inline
def level_of(scratch, group):
    """The level of a group's scale, i32x16."""
    return to_i32(load_f32x16(scratch + LEVELS + 64 * group))


def packed_levels(count: int, bits: int) -> Any:
    """Declare what packs the levels of so many scales, `bits` each, the first lowest."""

    @inline
    def levels(scratch, first):
        packed = zero_i32x16()
        for back in range(count):
            packed = bit_or(shift_left(packed, bits), level_of(scratch, first + count - 1 - back))
        return packed

    return levels


eight_levels = packed_levels(8, 4)
