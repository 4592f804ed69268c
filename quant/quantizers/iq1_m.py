"""IQ1_M from float32, only with importance: points and scales by quant.fitting.grid_search, weights by its grid_blocks."""

from __future__ import annotations

from quant.fitting.grid_blocks import WORDS, high_bits, load_blocks, packed_levels, store_low_bytes
from quant.fitting.grid_search import GridType, find_points
from quant.fitting.grid_table import search_table
from quant.fitting.lanes import store_i32x16
from quant.fitting.pack import write_words
from quant.formats.iq1_m import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import bit_and, bit_or, shift_left

_GRID = GridType(width=8, points=2048, group=2, shifted=1, top=7)
_high_nibbles = high_bits(8, 4)  # 3 of the index, and the sign of the shift
_four_levels = packed_levels(4, 3)
_table = search_table("IQ1_S", 8, (-0.875, 0.125, 1.125), (-1.125, -0.125, 0.875))


@inline
def _store_scales(scratch, d, words):
    """Sixteen levels of 3 bits, four in 16 bits, with the four bits of d that stand above them."""
    one, two = _four_levels(scratch, 0), _four_levels(scratch, 4)
    low = bit_or(one, shift_left(bit_and(d, 0xF), 12))
    store_i32x16(words, bit_or(low, shift_left(bit_or(two, shift_left(bit_and(d, 0xF0), 8)), 16)))
    one, two = _four_levels(scratch, 8), _four_levels(scratch, 12)
    low = bit_or(one, shift_left(bit_and(d, 0xF00), 4))
    store_i32x16(words + 64, bit_or(low, shift_left(bit_or(two, bit_and(d, 0xF000)), 16)))


@sixteen_blocks
def iq1_m_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    load_blocks(x, importance, scratch)
    d = find_points(_GRID, _table(), scratch)
    store_low_bytes(scratch, 32, words)
    for part in range(4):
        store_i32x16(words + 16 * BLOCK.qh + 64 * part, _high_nibbles(scratch, 8 * part))
    _store_scales(scratch, d, words + 16 * BLOCK.scales)
    write_words(words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=iq1_m_quantize, uses_importance=True, needs_importance=True)
