"""IQ2_XXS from float32, only with importance: points and scales by quant.fitting.grid_search, weights by its grid_blocks."""

from __future__ import annotations

from quant.fitting.grid_blocks import WORDS, level_of, load_blocks, low_bytes, seven_signs, take_signs
from quant.fitting.grid_search import GridType, find_points
from quant.fitting.grid_table import search_table
from quant.fitting.lanes import store_i32x16
from quant.fitting.pack import write_d_words
from quant.formats.iq2_xxs import BLOCK
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import bit_or, shift_left

_GRID = GridType(width=8, points=256, group=4, shifted=0, top=15)
_table = search_table("IQ2_XXS", 8, (1, 3.125, 5.375))


@sixteen_blocks
def iq2_xxs_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    take_signs(True, scratch)
    d = find_points(_GRID, _table(), scratch)
    for group in range(8):
        store_i32x16(words + 128 * group, low_bytes(scratch, 4 * group))
        word = bit_or(seven_signs(scratch, 4 * group), shift_left(level_of(scratch, group), 28))
        store_i32x16(words + 128 * group + 64, word)
    write_d_words(d, words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=iq2_xxs_quantize, uses_importance=True, needs_importance=True)
