"""IQ3_XXS from float32: points and scales by quant.fitting.grid_search, weights by its grid_blocks."""

from __future__ import annotations

from quant.fitting.grid_blocks import WORDS, level_of, load_blocks, seven_signs, store_low_bytes, take_signs
from quant.fitting.grid_search import GridType, find_points
from quant.fitting.grid_table import search_table
from quant.fitting.lanes import store_i32x16
from quant.fitting.pack import write_d_words
from quant.formats.iq3_xxs import BLOCK
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import bit_or, shift_left

_GRID = GridType(width=4, points=256, group=8, shifted=0, top=15)
_table = search_table("IQ3_XXS", 4, (1, 3, 5, 7, 9, 11, 13, 15.5))


@sixteen_blocks
def iq3_xxs_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    take_signs(True, scratch)
    d = find_points(_GRID, _table(), scratch)
    store_low_bytes(scratch, 64, words)
    for group in range(8):
        word = bit_or(seven_signs(scratch, 4 * group), shift_left(level_of(scratch, group), 28))
        store_i32x16(words + 16 * (BLOCK.scales_and_signs - BLOCK.qs) + 64 * group, word)
    write_d_words(d, words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=iq3_xxs_quantize, uses_importance=True)
