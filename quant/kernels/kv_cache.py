"""Rows of a key-value cache: float16 [width], or, half the size, int8 q[width] and then float32 d[width / 32].

A cache is an array [heads, context, row]; its dtype says which: float16, or uint8 for the quantized one ('q8_0' elsewhere,
where d is a float16 beside each block).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.activation import to_whole
from quant.jit import inline
from quant.simd import (
    broadcast_f32,
    concat,
    load_f16x16,
    load_f32x16,
    load_i8x16_as_f32,
    mul,
    store_f32,
    store_f32x16_as_f16,
    store_i8x32,
    to_i8,
)

TYPES = ("f16", "q8_0")


def row_shape(kind: str, width: int) -> tuple[int, Any]:
    """Elements of a row, and their dtype; ValueError where a head does not divide into blocks."""
    if kind == "f16":
        return width, np.float16
    if width % 32:
        raise ValueError(f"a q8_0 cache needs heads of a multiple of 32, not {width}")
    return width + width // 8, np.uint8


def is_quantized(cache: NDArray[Any]) -> bool:
    """Whether the rows are int8."""
    return cache.dtype == np.uint8


@inline
def load_row(row, column, width, quantized):
    """16 columns of a row from `column` on, float32."""
    if quantized:
        d = broadcast_f32(row + width + column // 32 * 4)
        return mul(load_i8x16_as_f32(row + column), d)
    return load_f16x16(row + 2 * column)


@inline
def store_row(x, width, row, quantized):
    """float32 [width] at x -> a row."""
    if quantized:
        for c in range(0, width, 32):
            a, b, d = to_whole(load_f32x16(x + 4 * c), load_f32x16(x + 4 * c + 64))
            store_i8x32(row + c, concat(to_i8(a), to_i8(b)))
            store_f32(row + width + c // 8, d)
    else:
        for c in range(0, width, 16):
            store_f32x16_as_f16(row + 2 * c, load_f32x16(x + 4 * c))
