"""Q5_K from float32: as Q4_K with q in [0, 31] and other candidates (ggml's quantize_row_q5_K)."""

from __future__ import annotations

import numpy as np

from quant.affine_parts import WORDS, Q
from quant.jit import inline
from quant.lanes import four_bytes, store_i32x16, write_words
from quant.quantizers import Quantizer, quantize_rows
from quant.quantizers.q4_k import pack_nibbles, quantize_blocks
from quant.simd import bit_and, bit_or, shift_left, shift_right, zero_i32x16


@inline
def _pack_fifth_bits(q, words):
    """Bit 4 of q in 8 words: bit i of byte l is that of column 32 * i + l."""
    for word in range(8):
        packed = zero_i32x16()
        for back in range(8):
            four = four_bytes(q, 32 * (7 - back) + 4 * word)
            packed = bit_or(shift_left(packed, 1), bit_and(shift_right(four, 4), 0x01010101))
        store_i32x16(words + 64 * word, packed)


@quantize_rows
def q5_k_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    blocks, per_row = rows * columns // 256, columns // 256
    most, begin, step = np.float32(31), np.float32(-0.5), np.float32(0.1)
    for group in range((blocks + 15) // 16):
        first = min(16 * group, blocks - 16)
        quantize_blocks(x + 1024 * first, importance, first, per_row, most, begin, step, 15, scratch)
        _pack_fifth_bits(scratch + Q, scratch + WORDS + 256)
        pack_nibbles(scratch + Q, scratch + WORDS + 768)
        write_words(scratch + WORDS, 44, out + 176 * first, 176)


QUANTIZER = Quantizer("Q5_K", 256, 176, q5_k_quantize_rows, uses_importance=True)
