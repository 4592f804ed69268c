"""Q5_1 from float32: as Q4_1 with q in [0, 31]."""

from __future__ import annotations

import numpy as np

from quant.fitting.importance import mean_squares
from quant.quantizers import SCRATCH, Quantizer, quantize_rows
from quant.quantizers.q4_0 import Q, write_nibbles
from quant.quantizers.q4_1 import quantize_blocks
from quant.quantizers.q5_0 import write_fifth_bits


@quantize_rows
def q5_1_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    blocks, per_row = rows * columns // 32, columns // 32
    if importance:
        mean_squares(x, rows, columns, 32, scratch + SCRATCH)
    for group in range((blocks + 15) // 16):
        first = min(16 * group, blocks - 16)
        target = out + 24 * first
        quantize_blocks(x + 128 * first, importance, first, per_row, np.float32(31), target, 24, scratch)
        write_fifth_bits(scratch + Q, target + 4, 24)
        write_nibbles(scratch + Q, target + 8, 24)


QUANTIZER = Quantizer("Q5_1", 32, 24, q5_1_quantize_rows, uses_importance=True)
