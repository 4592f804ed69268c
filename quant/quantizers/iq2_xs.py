"""IQ2_XS from float32, only with importance: points and scales by quant.fitting.grid_search, weights by its grid_blocks."""

from __future__ import annotations

from quant.fitting.grid_blocks import SIGNS, WORDS, eight_levels, load_blocks, take_signs
from quant.fitting.grid_search import POINTS, GridType, find_points
from quant.fitting.grid_table import search_table
from quant.fitting.lanes import store_i32x16
from quant.fitting.pack import write_d_words
from quant.formats.iq2_xs import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import bit_and, bit_or, load_i32x16, shift_left, shift_right

_GRID = GridType(width=8, points=512, group=2, shifted=0, top=15)
_table = search_table("IQ2_XS", 8, (1, 3.125, 5.375))


@inline
def _point_and_signs(scratch, eight):
    """9 bits of an index, 7 of signs."""
    index = bit_and(shift_right(load_i32x16(scratch + POINTS + 64 * eight), 16), 511)
    return bit_or(index, shift_left(bit_and(load_i32x16(scratch + SIGNS + 64 * eight), 127), 9))


@sixteen_blocks
def iq2_xs_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    take_signs(True, scratch)
    d = find_points(_GRID, _table(), scratch)
    for word in range(16):
        low, high = _point_and_signs(scratch, 2 * word), _point_and_signs(scratch, 2 * word + 1)
        store_i32x16(words + 64 * word, bit_or(low, shift_left(high, 16)))
    for half in range(2):
        store_i32x16(words + 16 * (BLOCK.scales - BLOCK.qs) + 64 * half, eight_levels(scratch, 8 * half))
    write_d_words(d, words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=iq2_xs_quantize, uses_importance=True, needs_importance=True)
