"""F32 from float32: the bytes themselves."""

from __future__ import annotations

from quant.formats.f32 import BLOCK
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import load_f32x16, store_f32x16


@sixteen_blocks
def f32_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    store_f32x16(out, load_f32x16(x))


QUANTIZER = Quantizer(block=BLOCK, kernel=f32_quantize, uses_importance=False)
