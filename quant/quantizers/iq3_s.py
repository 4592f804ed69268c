"""IQ3_S from float32: see grid_search for the search and grid_blocks for the weights, in quant.fitting."""

from __future__ import annotations

from quant.fitting.grid_blocks import (
    WORDS,
    eight_levels,
    load_blocks,
    sign_bytes,
    store_low_bytes,
    take_signs,
)
from quant.fitting.grid_search import POINTS, Shape, find_points, search_table
from quant.fitting.lanes import scatter_u16, store_i32x16
from quant.fitting.pack import write_words
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import bit_and, bit_or, load_i32x16, shift_left, shift_right, zero_i32x16

_SHAPE = Shape(width=4, points=512, group=8, shifted=0, top=15)
_table = search_table("IQ3_S", 4, range(1, 16, 2))


@inline
def _high_bits(scratch, first):
    """The highest bit of 32 indices."""
    packed = zero_i32x16()
    for back in range(32):
        word = load_i32x16(scratch + POINTS + 64 * (first + 31 - back))
        packed = bit_or(shift_left(packed, 1), bit_and(shift_right(word, 24), 1))
    return packed


@sixteen_blocks
def iq3_s_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    take_signs(False, scratch)
    d = find_points(_SHAPE, _table(), scratch)
    store_low_bytes(scratch, 64, words)
    store_i32x16(words + 1024, _high_bits(scratch, 0))
    store_i32x16(words + 1088, _high_bits(scratch, 32))
    for part in range(8):
        store_i32x16(words + 1152 + 64 * part, sign_bytes(scratch, 4 * part))
    store_i32x16(words + 1664, eight_levels(scratch, 0))
    scatter_u16(out, 110, d)
    write_words(words, 27, out + 2, 110)


QUANTIZER = Quantizer("IQ3_S", 256, 110, iq3_s_quantize, uses_importance=True)
