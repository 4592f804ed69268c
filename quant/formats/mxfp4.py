"""MXFP4: 32 columns in 17 bytes, 4-bit floats (E2M1) by a power of two (E8M0); OCP Microscaling Formats 1.0.

0  uint8 e           the scale, halved because VALUES are doubled: d = 2^(e - 128)
1  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * VALUES[q]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks32 import dot_blocks, fields, fields16, packed4, unpack_blocks, unpack_nibbles
from quant.blocks.lookup import high_nibbles, low_nibbles
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.int8_dot import dot_u7
from quant.jit import inline
from quant.simd import (
    F32,
    I8,
    I32,
    bits_to_f32,
    call_llvm,
    concat,
    constant_of,
    f32x8,
    f32x16,
    load_i8x16,
    load_u8,
    mul,
    splat,
    splat8,
    vector_of,
)

BLOCK = Block("MXFP4", number=39, columns=32, e=Scale("e8m0", 1 / 8), qs=16)

VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
OFFSET = np.float32(12)  # what makes them unsigned
LOW, HIGH = (declare([value + 12 for value in VALUES]) for declare in (low_nibbles, high_nibbles))


def decoded(scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """E8M0, halved -> float32: 2^(byte - 128)."""
    return np.ldexp(np.float32(1), scales.astype(np.int32) - 128)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    e, qs = BLOCK.split(data)
    nibbles = np.concatenate([qs & 15, qs >> 4], axis=-1)
    return rows_of(decoded(e) * np.array(VALUES, np.float32)[nibbles])


def _powers(builder: Any, exponents: Any) -> Any:
    """E8M0, halved -> float32; the two smallest, which would be denormal, are 0."""
    one = constant_of(exponents.type, 1)
    less = call_llvm(builder, f"llvm.usub.sat.v{exponents.type.count}i8", exponents.type, [exponents, one])
    wide = builder.zext(less, vector_of(I32, exponents.type.count))
    return builder.bitcast(builder.shl(wide, constant_of(wide.type, 23)), vector_of(F32, exponents.type.count))


_powers8, _powers16 = fields(f32x8, I8, BLOCK.bytes, BLOCK.e, _powers), fields16(f32x16, I8, _powers)


@inline
def _scales8(w):
    d = _powers8(w)
    return d, mul(d, splat8(OFFSET))


@inline
def _scales1(w):
    e = load_u8(w + BLOCK.e)
    d = bits_to_f32((e - 1) << 23 if e else 0)
    return d, OFFSET * d


@inline
def _scales16(w, row_bytes):
    d = _powers16(w + BLOCK.e, row_bytes)
    return d, mul(d, splat(OFFSET))


@inline
def split_nibbles(packed):
    """VALUES, unsigned, of the low and of the high nibbles."""
    return LOW(packed), HIGH(packed)


@inline
def _load4(w):
    return split_nibbles(packed4(w + BLOCK.qs, BLOCK.bytes))


@inline
def _load1(w):
    low, high = split_nibbles(load_i8x16(w + BLOCK.qs))
    return concat(low, high)


@inline
def _dot(acc, q, x):
    return dot_u7(acc, q, x)


@dot_rows
def mxfp4_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, BLOCK, _scales8, _scales1, _load4, _load1, _dot)


@unpack_rows
def mxfp4_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, BLOCK, _scales1, _load1)


@unpack_tile
def mxfp4_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    unpack_nibbles(w, row_bytes, columns, tile, scales, minima, BLOCK, _scales16, split_nibbles)


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=mxfp4_dot_rows,
    by_tiles=True,
    unpack_rows=mxfp4_unpack_rows,
    unpack_tile=mxfp4_unpack_tile,
    bits=5,
)
