"""BF16 from float32: the nearest, halves to even."""

from __future__ import annotations

from quant.fitting.lanes import store_bf16x16
from quant.formats.bf16 import BLOCK
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import load_f32x16


@sixteen_blocks
def bf16_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    store_bf16x16(out, load_f32x16(x))


QUANTIZER = Quantizer(block=BLOCK, kernel=bf16_quantize, uses_importance=False)
