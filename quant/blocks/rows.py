"""What the loops over rows of every block layout share."""

from __future__ import annotations

from quant.jit import inline
from quant.simd import load_f32, store_f32


@inline
def emit(y, value, alpha, accumulate):
    """Write one result of dot_rows (see quant.formats): alpha * value, added to what is there if accumulate is not 0."""
    result = alpha * value
    store_f32(y, load_f32(y) + result if accumulate else result)
