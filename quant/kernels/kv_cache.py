"""Rows of a key-value cache, in one of four kinds.

'f16'   float16 [width]
'q8_0'  half the size: int8 q[width], then float32 d[width / 32], where value = d * q (elsewhere d is a float16 beside each
        block)
'i16'   int16 q[width], then one float32 d: of the size of f16, and some eight times as near to normed keys and values
'f32'   float32 [width]: twice the size, and nothing is rounded

A cache is an array [heads, context, row]; its dtype says which: float16, uint8, int16 or float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.activation import to_whole
from quant.jit import inline
from quant.simd import (
    absolute,
    broadcast_f32,
    concat,
    load_f16x16,
    load_f32x16,
    load_i8x16_as_f32,
    load_i16x16_as_f32,
    max_lanes,
    maximum,
    mul,
    round_even,
    splat,
    store_f32,
    store_f32x16,
    store_f32x16_as_f16,
    store_f32x16_as_i16,
    store_i8x32,
    to_i8,
    zero_f32x16,
)

TYPES = ("f16", "q8_0", "f32")  # that a user may ask for
_NUMBERS = {np.dtype(np.float16): 0, np.dtype(np.uint8): 1, np.dtype(np.int16): 2, np.dtype(np.float32): 3}


def row_shape(kind: str, width: int) -> tuple[int, Any]:
    """Elements of a row, and their dtype; ValueError where a head does not divide into blocks."""
    if kind == "f16":
        return width, np.float16
    if kind == "f32":
        return width, np.float32
    if kind == "i16":
        return width + 2, np.int16
    if width % 32:
        raise ValueError(f"a q8_0 cache needs heads of a multiple of 32, not {width}")
    return width + width // 8, np.uint8


def kind_of(cache: NDArray[Any]) -> str:
    """The kind of the rows."""
    return ("f16", "q8_0", "i16", "f32")[number_of(cache)]


def number_of(cache: NDArray[Any]) -> int:
    """The kind of the rows, as `load_row` and `store_row` take it: 0 for f16."""
    return _NUMBERS[cache.dtype]


@inline
def load_row(row, column, width, kind):
    """16 columns of a row from `column` on, float32; kind: its number."""
    if kind == 0:
        return load_f16x16(row + 2 * column)
    if kind == 1:
        return mul(load_i8x16_as_f32(row + column), broadcast_f32(row + width + column // 32 * 4))
    if kind == 2:
        return mul(load_i16x16_as_f32(row + 2 * column), broadcast_f32(row + 2 * width))
    return load_f32x16(row + 4 * column)


@inline
def _store_whole(x, width, row):
    """float32 [width] at x -> a row of the kind i16."""
    top = zero_f32x16()
    for c in range(0, 4 * width, 64):
        top = maximum(top, absolute(load_f32x16(x + c)))
    largest = max_lanes(top)
    inverse = splat(np.float32(32767) / largest if largest > 0 else np.float32(0))
    for c in range(0, width, 16):
        store_f32x16_as_i16(row + 2 * c, round_even(mul(load_f32x16(x + 4 * c), inverse)))
    store_f32(row + 2 * width, largest / np.float32(32767))


@inline
def store_row(x, width, row, kind):
    """float32 [width] at x -> a row; kind: its number."""
    if kind == 1:
        for c in range(0, width, 32):
            a, b, d = to_whole(load_f32x16(x + 4 * c), load_f32x16(x + 4 * c + 64))
            store_i8x32(row + c, concat(to_i8(a), to_i8(b)))
            store_f32(row + width + c // 8, d)
    elif kind == 2:
        _store_whole(x, width, row)
    elif kind == 3:
        for c in range(0, 4 * width, 64):
            store_f32x16(row + c, load_f32x16(x + c))
    else:
        for c in range(0, width, 16):
            store_f32x16_as_f16(row + 2 * c, load_f32x16(x + 4 * c))
