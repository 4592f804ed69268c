"""IQ2_S from float32: see grid_search for the search and grid_blocks for the weights, in quant.fitting."""

from __future__ import annotations

from quant.fitting.grid_blocks import WORDS, eight_levels, load_blocks, sign_bytes, store_low_bytes, take_signs
from quant.fitting.grid_search import POINTS, Shape, find_points, search_table
from quant.fitting.lanes import scatter_u16, store_i32x16
from quant.fitting.pack import write_words
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import bit_and, bit_or, load_i32x16, shift_left, shift_right, zero_i32x16

_SHAPE = Shape(width=8, points=1024, group=2, shifted=0, top=15)
_table = search_table("IQ2_S", 8, (1, 3.125, 5.375))


@inline
def _high_bits(scratch, first):
    """The highest 2 bits of 16 indices."""
    packed = zero_i32x16()
    for back in range(16):
        word = load_i32x16(scratch + POINTS + 64 * (first + 15 - back))
        packed = bit_or(shift_left(packed, 2), bit_and(shift_right(word, 24), 3))
    return packed


@sixteen_blocks
def iq2_s_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    take_signs(False, scratch)
    d = find_points(_SHAPE, _table(), scratch)
    store_low_bytes(scratch, 32, words)
    for part in range(8):
        store_i32x16(words + 512 + 64 * part, sign_bytes(scratch, 4 * part))
    for half in range(2):
        store_i32x16(words + 1024 + 64 * half, _high_bits(scratch, 16 * half))
        store_i32x16(words + 1152 + 64 * half, eight_levels(scratch, 8 * half))
    scatter_u16(out, 82, d)
    write_words(words, 20, out + 2, 82)


QUANTIZER = Quantizer("IQ2_S", 256, 82, iq2_s_quantize, uses_importance=True)
