"""IQ1_S from float32, only with importance: points and scales by quant.fitting.grid_search, weights by its grid_blocks."""

from __future__ import annotations

from quant.fitting.grid_blocks import WORDS, high_bits, level_of, load_blocks, store_low_bytes
from quant.fitting.grid_search import POINTS, GridType, find_points
from quant.fitting.grid_table import search_table
from quant.fitting.lanes import store_i32x16
from quant.fitting.pack import write_d_words
from quant.formats.iq1_s import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import bit_and, bit_or, load_i32x16, shift_left, shift_right

_GRID = GridType(width=8, points=2048, group=4, shifted=4, top=7)
_high_bits = high_bits(4, 3)
_table = search_table("IQ1_S", 8, (-0.875, 0.125, 1.125), (-1.125, -0.125, 0.875))


@inline
def _half(scratch, group):
    """The highest 3 bits of four indices, the level of their scale, and the sign of their shift."""
    minus = bit_and(shift_right(load_i32x16(scratch + POINTS + 256 * group), 27), 1)
    level = bit_or(level_of(scratch, group), shift_left(minus, 3))
    return bit_or(_high_bits(scratch, 4 * group), shift_left(level, 12))


@sixteen_blocks
def iq1_s_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    d = find_points(_GRID, _table(), scratch)
    store_low_bytes(scratch, 32, words)
    for pair in range(4):
        low, high = _half(scratch, 2 * pair), _half(scratch, 2 * pair + 1)
        store_i32x16(words + 16 * (BLOCK.qh - BLOCK.qs) + 64 * pair, bit_or(low, shift_left(high, 16)))
    write_d_words(d, words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=iq1_s_quantize, uses_importance=True, needs_importance=True)
