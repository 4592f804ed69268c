"""Q5_1 from float32: as Q4_1 with q in [0, 31] (ggml's quantize_row_q5_1)."""

from __future__ import annotations

import numpy as np

from quant.fitting.pack import write_nibbles
from quant.formats.q5_1 import BLOCK
from quant.quantizers import Quantizer, sixteen_blocks
from quant.quantizers.q4_0 import Q
from quant.quantizers.q4_1 import quantize_blocks
from quant.quantizers.q5_0 import write_fifth_bits


@sixteen_blocks
def q5_1_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    quantize_blocks(x, importance, np.float32(31), out, BLOCK, scratch)
    write_fifth_bits(scratch + Q, out, BLOCK)
    write_nibbles(scratch + Q, out, BLOCK)


QUANTIZER = Quantizer(block=BLOCK, kernel=q5_1_quantize, uses_importance=True, row_means=True)
