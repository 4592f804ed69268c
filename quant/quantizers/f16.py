"""F16 from float32: the nearest, halves to even; beyond 65520 infinite."""

from __future__ import annotations

from quant.formats.f16 import BLOCK
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import load_f32x16, store_f32x16_as_f16


@sixteen_blocks
def f16_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    store_f32x16_as_f16(out, load_f32x16(x))


QUANTIZER = Quantizer(block=BLOCK, kernel=f16_quantize, uses_importance=False)
