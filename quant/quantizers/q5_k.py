"""Q5_K from float32: as Q4_K with q in [0, 31] and other candidates (ggml's quantize_row_q5_K)."""

from __future__ import annotations

import numpy as np

from quant.fitting.affine_parts import WORDS, Q
from quant.fitting.pack import fifth_bits, write_words
from quant.quantizers import Quantizer, quantize_rows
from quant.quantizers.q4_k import pack_nibbles, quantize_blocks


@quantize_rows
def q5_k_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    blocks, per_row = rows * columns // 256, columns // 256
    most, begin, step = np.float32(31), np.float32(-0.5), np.float32(0.1)
    for group in range((blocks + 15) // 16):
        first = min(16 * group, blocks - 16)
        quantize_blocks(x + 1024 * first, importance, first, per_row, most, begin, step, 15, scratch)
        fifth_bits(scratch + Q, scratch + WORDS + 256)
        pack_nibbles(scratch + Q, scratch + WORDS + 768)
        write_words(scratch + WORDS, 44, out + 176 * first, 176)


QUANTIZER = Quantizer("Q5_K", 256, 176, q5_k_quantize_rows, uses_importance=True)
