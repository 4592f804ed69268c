"""F32 from float32: the bytes themselves."""

from __future__ import annotations

from quant.quantizers import Quantizer, quantize_rows
from quant.simd import load_f32x16, store_f32x16


@quantize_rows
def f32_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    count = rows * columns
    for group in range((count + 15) // 16):
        first = min(16 * group, count - 16)
        store_f32x16(out + 4 * first, load_f32x16(x + 4 * first))


QUANTIZER = Quantizer("F32", 1, 4, f32_quantize_rows, uses_importance=False)
