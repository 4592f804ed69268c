"""BF16 from float32: the nearest, halves to even."""

from __future__ import annotations

from quant.fitting.lanes import store_bf16x16
from quant.quantizers import Quantizer, quantize_rows
from quant.simd import load_f32x16


@quantize_rows
def bf16_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    count = rows * columns
    for group in range((count + 15) // 16):
        first = min(16 * group, count - 16)
        store_bf16x16(out + 2 * first, load_f32x16(x + 4 * first))


QUANTIZER = Quantizer("BF16", 1, 2, bf16_quantize_rows, uses_importance=False)
