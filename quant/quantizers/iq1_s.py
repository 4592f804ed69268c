"""IQ1_S from float32, by importance only: see grid_search for the search and grid_blocks for the weights, in quant.fitting."""

from __future__ import annotations

from quant.fitting.grid_blocks import WORDS, level_of, load_blocks, store_low_bytes
from quant.fitting.grid_search import POINTS, Shape, find_points, search_table
from quant.fitting.lanes import scatter_u16, store_i32x16
from quant.fitting.pack import write_words
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import bit_and, bit_or, load_i32x16, shift_left, shift_right

_SHAPE = Shape(width=8, points=2048, group=4, shifted=4, top=7)
_table = search_table("IQ1_S", 8, (-0.875, 0.125, 1.125), (-1.125, -0.125, 0.875))


@inline
def _high_bits(scratch, group):
    """The highest 3 bits of four indices, the level of their scale, and the sign of their shift."""
    word = load_i32x16(scratch + POINTS + 256 * group)
    packed = bit_or(level_of(scratch, group), shift_left(bit_and(shift_right(word, 27), 1), 3))
    for back in range(4):
        word = load_i32x16(scratch + POINTS + 64 * (4 * group + 3 - back))
        packed = bit_or(shift_left(packed, 3), bit_and(shift_right(word, 24), 7))
    return packed


@sixteen_blocks
def iq1_s_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    d = find_points(_SHAPE, _table(), scratch)
    store_low_bytes(scratch, 32, words)
    for pair in range(4):
        low, high = _high_bits(scratch, 2 * pair), _high_bits(scratch, 2 * pair + 1)
        store_i32x16(words + 512 + 64 * pair, bit_or(low, shift_left(high, 16)))
    scatter_u16(out, 50, d)
    write_words(words, 12, out + 2, 50)


QUANTIZER = Quantizer("IQ1_S", 256, 50, iq1_s_quantize, uses_importance=True, needs_importance=True)
