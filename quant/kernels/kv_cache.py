"""Rows of a key-value cache: float16 [width]; half the size, int8 q[width] and then float32 d[width / 32]; float32 [width].

A cache is an array [heads, context, row]; its dtype says which: float16, uint8 for the quantized one ('q8_0' elsewhere,
where d is a float16 beside each block), or float32.
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
    store_f32x16,
    store_f32x16_as_f16,
    store_i8x32,
    to_i8,
)

TYPES = ("f16", "q8_0", "f32")
_DTYPES: tuple[Any, ...] = (np.float16, np.uint8, np.float32)  # of TYPES
_Q8_0, _F32 = 1, 2  # places in TYPES


def row_shape(kind: str, width: int) -> tuple[int, Any]:
    """Elements of a row, and their dtype; ValueError where a head does not divide into blocks."""
    dtype = _DTYPES[TYPES.index(kind)]
    if kind != "q8_0":
        return width, dtype
    if width % 32:
        raise ValueError(f"a q8_0 cache needs heads of a multiple of 32, not {width}")
    return width + width // 8, dtype


def kind_of(cache: NDArray[Any]) -> int:
    """The type of the rows, as its place in TYPES."""
    return _DTYPES.index(cache.dtype)


@inline
def load_row(row, column, width, kind):
    """16 columns of a row from `column` on, float32; kind: see `kind_of`."""
    if kind == _F32:
        return load_f32x16(row + 4 * column)
    if kind == _Q8_0:
        d = broadcast_f32(row + width + column // 32 * 4)
        return mul(load_i8x16_as_f32(row + column), d)
    return load_f16x16(row + 2 * column)


@inline
def store_row(x, width, row, kind):
    """float32 [width] at x -> a row; kind: see `kind_of`."""
    if kind == _Q8_0:
        for c in range(0, width, 32):
            a, b, d = to_whole(load_f32x16(x + 4 * c), load_f32x16(x + 4 * c + 64))
            store_i8x32(row + c, concat(to_i8(a), to_i8(b)))
            store_f32(row + width + c // 8, d)
    elif kind == _F32:
        for c in range(0, width, 16):
            store_f32x16(row + 4 * c, load_f32x16(x + 4 * c))
    else:
        for c in range(0, width, 16):
            store_f32x16_as_f16(row + 2 * c, load_f32x16(x + 4 * c))
