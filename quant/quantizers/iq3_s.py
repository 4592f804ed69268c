"""IQ3_S from float32: points and scales by quant.fitting.grid_search, weights by its grid_blocks."""

from __future__ import annotations

from quant.fitting.grid_blocks import (
    WORDS,
    eight_levels,
    high_bits,
    load_blocks,
    store_low_bytes,
    store_sign_bytes,
    take_signs,
)
from quant.fitting.grid_search import GridType, find_points
from quant.fitting.grid_table import search_table
from quant.fitting.lanes import store_i32x16
from quant.fitting.pack import write_d_words
from quant.formats.iq3_s import BLOCK
from quant.quantizers import Quantizer, sixteen_blocks

_GRID = GridType(width=4, points=512, group=8, shifted=0, top=15)
_high_bits = high_bits(32, 1)
_table = search_table("IQ3_S", 4, range(1, 16, 2))


@sixteen_blocks
def iq3_s_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    take_signs(False, scratch)
    d = find_points(_GRID, _table(), scratch)
    store_low_bytes(scratch, 64, words)
    store_i32x16(words + 16 * (BLOCK.qh - BLOCK.qs), _high_bits(scratch, 0))
    store_i32x16(words + 16 * (BLOCK.qh + 4 - BLOCK.qs), _high_bits(scratch, 32))
    store_sign_bytes(scratch, words + 16 * (BLOCK.signs - BLOCK.qs))
    store_i32x16(words + 16 * (BLOCK.scales - BLOCK.qs), eight_levels(scratch, 0))
    write_d_words(d, words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=iq3_s_quantize, uses_importance=True)
