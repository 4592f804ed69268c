"""Q4_K from float32: a scale and a minimum for 32 columns by search (quant.search.affine), then 6-bit numbers for both.

Without importance a column weighs sqrt(mean x^2) + |x|, and d and dmin are the largest scale and minimum / 63; with it,
importance * sqrt(2 mean x^2 of the block + x^2), and d and dmin are searched for, too (ggml's quantize_row_q4_K).
"""

from __future__ import annotations

import numpy as np

from quant.jit import inline
from quant.lanes import (
    f16_bits,
    four_bytes,
    importance_rows,
    importance_weights,
    larger,
    smaller,
    spread,
    sqrt,
    store_i32x16,
    to_i32,
    where_equal,
    where_greater,
    write_words,
)
from quant.quantizers import Quantizer, quantize_rows
from quant.search import affine, positive, sum_of, sum_of_squares
from quant.simd import (
    absolute,
    add,
    bit_and,
    bit_or,
    divide,
    load_f32x16,
    low_f16,
    mul,
    round_even,
    shift_left,
    shift_right,
    splat,
    store_f32x16,
    sub,
    zero_f32x16,
    zero_i32x16,
)

_SIX_BITS = np.float32(63)
# Places in scratch: float32 [256, 16 lanes] of x, [32, 16] of weights and of their stage, what affine needs, and eight
# vectors each of the search's results; then what is packed.
_WEIGHTS, _STAGE, _SEARCH, _TABLE = 16384, 18432, 20480, 24576
_SCALE, _MINIMUM, _INVERSE, _BEGIN, _SUM, _LS, _LM = (25088 + 512 * i for i in range(7))
Q, WORDS = 28672, 45056  # int32 [256, 16], [44, 16]


@inline
def _weigh(x, j, importance, sigma2, scratch):
    """The weights of sub-block j of 16 blocks."""
    weights, x = scratch + _WEIGHTS, x + 2048 * j
    if importance:
        importance_weights(scratch + _TABLE, 32 * j, 32, x, sigma2, weights, scratch + _STAGE)
    else:
        mean = mul(sum_of_squares(x, 32, zero_f32x16()), splat(np.float32(1 / 32)))
        for i in range(32):
            store_f32x16(weights + 64 * i, add(sqrt(mean), absolute(load_f32x16(x + 64 * i))))


@inline
def _search(x, importance, most, first, step, steps, scratch):
    """Scales and minima of eight sub-blocks, each."""
    sigma2 = mul(sum_of_squares(x, 256, zero_f32x16()), splat(np.float32(1 / 128)))
    for j in range(8):
        _weigh(x, j, importance, sigma2, scratch)
        weights = scratch + _WEIGHTS
        store_f32x16(scratch + _SUM + 64 * j, sum_of(weights, 32))
        scale, minimum, inverse, begin = affine(
            x + 2048 * j, weights, 32, most, first, step, steps, False, scratch + _SEARCH
        )
        store_f32x16(scratch + _SCALE + 64 * j, scale)
        store_f32x16(scratch + _MINIMUM + 64 * j, minimum)
        store_f32x16(scratch + _INVERSE + 64 * j, inverse)
        store_f32x16(scratch + _BEGIN + 64 * j, begin)


@inline
def _six_bits(values, levels, importance, weights):
    """Eight values >= 0 as levels in [0, 63] times the number that is given back."""
    if importance:
        return positive(values, weights, 8, _SIX_BITS, levels)
    zero, most = zero_f32x16(), splat(_SIX_BITS)
    largest = zero
    for j in range(8):
        largest = larger(load_f32x16(values + 64 * j), largest)
    inverse = where_greater(largest, zero, divide(most, largest), zero)
    for j in range(8):
        level = smaller(round_even(mul(inverse, load_f32x16(values + 64 * j))), most)
        store_f32x16(levels + 64 * j, larger(level, zero))
    return divide(largest, most)


@inline
def _pack_scales(scratch, words):
    """Words 1 to 3 of a block: see quant.formats.q4_k."""
    low, middle, high = zero_i32x16(), zero_i32x16(), zero_i32x16()
    for back in range(4):
        j = 3 - back
        scale, minimum = to_i32(load_f32x16(scratch + _LS + 64 * j)), to_i32(load_f32x16(scratch + _LM + 64 * j))
        scale4 = to_i32(load_f32x16(scratch + _LS + 64 * j + 256))
        minimum4 = to_i32(load_f32x16(scratch + _LM + 64 * j + 256))
        low = bit_or(shift_left(low, 8), bit_or(scale, shift_left(shift_right(scale4, 4), 6)))
        middle = bit_or(shift_left(middle, 8), bit_or(minimum, shift_left(shift_right(minimum4, 4), 6)))
        both = bit_or(bit_and(scale4, 15), shift_left(bit_and(minimum4, 15), 4))
        high = bit_or(shift_left(high, 8), both)
    store_i32x16(words + 64, low)
    store_i32x16(words + 128, middle)
    store_i32x16(words + 192, high)


@inline
def _round(x, d, dmin, most, scratch):
    """q of every column, int32 [256, 16]: the nearest for the scale and minimum that were written; if that scale is 0,
    what the search had found.
    """
    zero, top = zero_f32x16(), splat(most)
    for j in range(8):
        scale = mul(d, load_f32x16(scratch + _LS + 64 * j))
        minimum = mul(dmin, load_f32x16(scratch + _LM + 64 * j))
        inverse, begin = load_f32x16(scratch + _INVERSE + 64 * j), load_f32x16(scratch + _BEGIN + 64 * j)
        for i in range(32):
            value = load_f32x16(x + 2048 * j + 64 * i)
            found = divide(add(value, minimum), scale)
            found = where_equal(scale, zero, mul(inverse, sub(value, begin)), found)
            level = larger(smaller(round_even(found), top), zero)
            store_i32x16(scratch + Q + 2048 * j + 64 * i, to_i32(level))


@inline
def quantize_blocks(x, importance, first_block, per_row, most, first, step, steps, scratch):
    """16 blocks of 256 columns: in scratch their first four WORDS, and Q as int32 [256, 16 lanes].

    most: of q; first, step, steps: see quant.search.affine, without importance; with it, they are ggml's for all types.
    """
    if importance:
        importance_rows(importance, first_block, per_row, 256, scratch + _TABLE)
        first, step, steps = np.float32(-0.9), np.float32(0.05), 36
    spread(x, 1024, 256, scratch)
    _search(scratch, importance, most, first, step, steps, scratch)
    d = f16_bits(_six_bits(scratch + _SCALE, scratch + _LS, importance, scratch + _SUM))
    dmin = f16_bits(_six_bits(scratch + _MINIMUM, scratch + _LM, importance, scratch + _SUM))
    store_i32x16(scratch + WORDS, bit_or(d, shift_left(dmin, 16)))
    _pack_scales(scratch, scratch + WORDS)
    _round(scratch, low_f16(d), low_f16(dmin), most, scratch)


@inline
def pack_nibbles(q, words):
    """The low four bits of q in 32 words."""
    for pair in range(4):
        for word in range(8):
            low = four_bytes(q, 64 * pair + 4 * word)
            high = four_bytes(q, 64 * pair + 4 * word + 32)
            packed = bit_or(bit_and(low, 0x0F0F0F0F), shift_left(bit_and(high, 0x0F0F0F0F), 4))
            store_i32x16(words + 64 * (8 * pair + word), packed)


@quantize_rows
def q4_k_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    blocks, per_row = rows * columns // 256, columns // 256
    most, begin, step = np.float32(15), np.float32(-1), np.float32(0.1)
    for group in range((blocks + 15) // 16):
        first = min(16 * group, blocks - 16)
        quantize_blocks(x + 1024 * first, importance, first, per_row, most, begin, step, 20, scratch)
        pack_nibbles(scratch + Q, scratch + WORDS + 256)
        write_words(scratch + WORDS, 36, out + 144 * first, 144)


QUANTIZER = Quantizer("Q4_K", 256, 144, q4_k_quantize_rows, uses_importance=True)
