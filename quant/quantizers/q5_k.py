"""Q5_K from float32: as Q4_K with q in [0, 31] and other candidates (ggml's quantize_row_q5_K)."""

from __future__ import annotations

import numpy as np

from quant.fitting.affine_sub_blocks import WORDS, Q
from quant.fitting.pack import fifth_bits, pack_nibbles, write_words
from quant.formats.q5_k import BLOCK
from quant.quantizers import Quantizer, sixteen_blocks
from quant.quantizers.q4_k import quantize_blocks


@sixteen_blocks
def q5_k_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    most, begin, step = np.float32(31), np.float32(-0.5), np.float32(0.1)
    quantize_blocks(x, importance, most, begin, step, 15, scratch)
    fifth_bits(scratch + Q, scratch + WORDS + 16 * BLOCK.qh)
    pack_nibbles(scratch + Q, 256, 32, scratch + WORDS + 16 * BLOCK.qs)
    write_words(scratch + WORDS, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=q5_k_quantize, uses_importance=True)
