"""The layouts of an activation row, of n columns, that weights are multiplied with.

'f32'       n float32, for F32, F16 and BF16 weights
'q8'        for quantized weights: n int8 q, then float32 d[n/32], s32[n/32] and s16[n/16], where value = d * q, and s32
            and s16 hold d * (sum of q) over 32 and 16 columns: what a format with an offset or a minimum takes off again
'residual'  value - d * q, as a q8 row of its own: both products together are good to 14 bits. Outputs of the mixers have
            a few large values, which cost their neighbours precision (1 % of the norm, 0.5 % elsewhere)

A buffer holds one row a token, each padded to a multiple of 64 bytes.
"""

from __future__ import annotations

import numpy as np

from quant.jit import inline
from quant.layout import Layout
from quant.simd import (
    absolute,
    concat,
    load_f32x16,
    load_i64,
    max_lanes,
    maximum,
    mul,
    round_even,
    splat,
    store_f32,
    store_f32x16,
    store_i8x32,
    sub,
    sum_lanes,
    to_i8,
)

OUTPUT = Layout(  # where a kernel writes the rows of an activation; 0 for a layout that nobody reads
    "f32",
    "f32_stride",  # bytes from one row to the next
    "q8",
    "residual",
    "q8_stride",  # of both
)


def row_bytes(kind: str, columns: int) -> int:
    """Bytes from one token's row to the next, for activations of the kind 'f32', 'q8' or 'residual'."""
    size = 4 * columns if kind == "f32" else columns + 2 * (columns // 8) + columns // 4
    return -(-size // 64) * 64


@inline
def row_addresses(rows, i):
    """Where the i-th row begins in float32, in q8 and in its residual, given the table of OUTPUT; 0 if nobody reads that."""
    y, q, residual = load_i64(rows + OUTPUT.f32), load_i64(rows + OUTPUT.q8), load_i64(rows + OUTPUT.residual)
    at = i * load_i64(rows + OUTPUT.q8_stride)
    return y + i * load_i64(rows + OUTPUT.f32_stride) if y else 0, q + at if q else 0, residual + at if residual else 0


@inline
def scales_of(x, columns):
    """Address of d[n/32] in a q8 row."""
    return x + columns


@inline
def sums32_of(x, columns):
    """Address of s32[n/32] in a q8 row."""
    return x + columns + columns // 8


@inline
def sums16_of(x, columns):
    """Address of s16[n/16] in a q8 row."""
    return x + columns + columns // 4


@inline
def to_whole(a, b):
    """32 columns, given as two f32x16 -> whole numbers in [-127, 127], likewise, and d: value = d * number."""
    largest = max_lanes(maximum(absolute(a), absolute(b)))
    inverse = splat(np.float32(127) / largest if largest > 0 else np.float32(0))
    return round_even(mul(a, inverse)), round_even(mul(b, inverse)), largest / np.float32(127)


@inline
def _quantize(a, b, columns, block, out):
    """Write columns 32*block to 32*block + 31, given as two f32x16, into the q8 row at `out`; gives what is left."""
    qa, qb, d = to_whole(a, b)
    store_i8x32(out + 32 * block, concat(to_i8(qa), to_i8(qb)))
    sum_a, sum_b = d * sum_lanes(qa), d * sum_lanes(qb)
    store_f32(scales_of(out, columns) + 4 * block, d)
    store_f32(sums32_of(out, columns) + 4 * block, sum_a + sum_b)
    store_f32(sums16_of(out, columns) + 8 * block, sum_a)
    store_f32(sums16_of(out, columns) + 8 * block + 4, sum_b)
    return sub(a, mul(splat(d), qa)), sub(b, mul(splat(d), qb))


@inline
def quantize_block(a, b, columns, block, q, residual):
    """Write 32 columns, given as two f32x16, into the row at `q` and, unless it is 0, what is left into that at `residual`."""
    a, b = _quantize(a, b, columns, block, q)
    if residual:
        _quantize(a, b, columns, block, residual)


@inline
def store_block(a, b, columns, block, y, q, residual):
    """Write 32 columns to the layouts that are asked for: y (float32), q and residual may be 0."""
    if y:
        store_f32x16(y + 128 * block, a)
        store_f32x16(y + 128 * block + 64, b)
    if q:
        quantize_block(a, b, columns, block, q, residual)


@inline
def quantize_row(x, columns, q, residual, first, last):
    """Blocks first to last, of 32 columns, of float32 [columns] at `x` -> the same blocks of the rows at q and residual."""
    for block in range(first, last):
        quantize_block(load_f32x16(x + 128 * block), load_f32x16(x + 128 * block + 64), columns, block, q, residual)


@inline
def store_output(a, b, columns, block, out, i):
    """Columns 32 * block to 32 * block + 31 of row i, given as two f32x16 -> every layout of the table `out` (see OUTPUT)."""
    y, q, residual = row_addresses(out, i)
    store_block(a, b, columns, block, y, q, residual)
