"""Rows of a key-value cache, in one of four kinds.

'f16'   float16 [width]
'q8_0'  half the size: int8 q[width], then float32 d[width / 32], where value = d * q (elsewhere d is a float16 beside each
        block)
'i16'   int16 q[width], then one float32 d: of the size of f16, and some eight times as near to normed keys and values;
        where the first columns are of another magnitude than the others, a second d behind it is theirs
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
    load_f32,
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
_NUMBERS = {np.dtype(np.float16): 0, np.dtype(np.uint8): 1, np.dtype(np.float32): 2, np.dtype(np.int16): 3}
_FIRST = 16  # a kind's number is 3 + 16 * the first columns of a row of i16 that have a scale of their own


def row_shape(kind: str, width: int, first: int = 0) -> tuple[int, Any]:
    """Elements of a row, and their dtype; ValueError where a head does not divide into blocks.

    first: columns that have a scale of their own, if the rows are of i16: a multiple of 16, 0 for none.
    """
    if kind == "f16":
        return width, np.float16
    if kind == "f32":
        return width, np.float32
    if kind == "i16":
        return width + (4 if first else 2), np.int16
    if width % 32:
        raise ValueError(f"a q8_0 cache needs heads of a multiple of 32, not {width}")
    return width + width // 8, np.uint8


def kind_of(cache: NDArray[Any]) -> str:
    """The kind of the rows."""
    return ("f16", "q8_0", "f32", "i16")[number_of(cache)]


def number_of(cache: NDArray[Any], first: int = 0) -> int:
    """The kind of the rows, as `load_row` and `store_row` take it: 0 for f16; first: see row_shape."""
    number = _NUMBERS[cache.dtype]
    return number + _FIRST * first if number == 3 else number


@inline
def number_of_values(kind):
    """The number of the kind of a cache of values, by that of the keys: no columns have a scale of their own."""
    return kind % _FIRST


@inline
def first_columns(kind):
    """How many of the first columns of a row of this kind have a scale of their own."""
    return kind // _FIRST


@inline
def load_unscaled(row, column, width, kind):
    """16 columns of a row from `column` on, float32, yet to be multiplied by `scale_of`; kind: its number."""
    if kind == 0:
        return load_f16x16(row + 2 * column)
    if kind == 1:
        return mul(load_i8x16_as_f32(row + column), broadcast_f32(row + width + column // 32 * 4))
    if kind == 2:
        return load_f32x16(row + 4 * column)
    return load_i16x16_as_f32(row + 2 * column)


@inline
def scale_of(row, column, width, kind):
    """What the columns of a row around this one are multiplied by, beside what `load_unscaled` gives; 1 but for i16."""
    if kind < 3:
        return np.float32(1)
    return load_f32(row + 2 * width + (4 if column < first_columns(kind) else 0))


@inline
def load_row(row, column, width, kind):
    """16 columns of a row from `column` on, float32; kind: its number."""
    x = load_unscaled(row, column, width, kind)
    return mul(x, splat(scale_of(row, column, width, kind))) if kind >= 3 else x


@inline
def _store_whole(x, width, row, scale):
    """float32 [width] at x -> int16 [width] at row, and what they are multiplied by, float32, at scale."""
    top = zero_f32x16()
    for c in range(0, 4 * width, 64):
        top = maximum(top, absolute(load_f32x16(x + c)))
    largest = max_lanes(top)
    inverse = splat(np.float32(32767) / largest if largest > 0 else np.float32(0))
    for c in range(0, width, 16):
        store_f32x16_as_i16(row + 2 * c, round_even(mul(load_f32x16(x + 4 * c), inverse)))
    store_f32(scale, largest / np.float32(32767))


@inline
def store_row(x, width, row, kind):
    """float32 [width] at x -> a row; kind: its number."""
    if kind == 1:
        for c in range(0, width, 32):
            a, b, d = to_whole(load_f32x16(x + 4 * c), load_f32x16(x + 4 * c + 64))
            store_i8x32(row + c, concat(to_i8(a), to_i8(b)))
            store_f32(row + width + c // 8, d)
    elif kind >= 3:
        first, scale = kind // _FIRST, row + 2 * width
        if first:
            _store_whole(x, first, row, scale + 4)
        _store_whole(x + 4 * first, width - first, row + 2 * first, scale)
    elif kind == 2:
        for c in range(0, 4 * width, 64):
            store_f32x16(row + c, load_f32x16(x + c))
    else:
        for c in range(0, width, 16):
            store_f32x16_as_f16(row + 2 * c, load_f32x16(x + 4 * c))
