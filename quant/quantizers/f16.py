"""F16 from float32: the nearest, halves to even; beyond 65520 infinite."""

from __future__ import annotations

from quant.quantizers import Quantizer, quantize_rows
from quant.simd import load_f32x16, store_f32x16_as_f16


@quantize_rows
def f16_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    count = rows * columns
    for group in range((count + 15) // 16):
        first = min(16 * group, count - 16)
        store_f32x16_as_f16(out + 2 * first, load_f32x16(x + 4 * first))


QUANTIZER = Quantizer("F16", 1, 2, f16_quantize_rows, uses_importance=False)
