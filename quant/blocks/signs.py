"""Weights that are a magnitude and a sign bit, 256 columns at a time: four parts of 64 (i8x64), and their signs (int64).

Magnitudes take their signs, and OFFSET is added, so that no weight is negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.blocks.fields import hidden, is_set
from quant.int8_dot import UNIT
from quant.jit import inline, intrinsic
from quant.simd import (
    I64,
    call_llvm,
    constant_of,
    i8x64,
    load_f32x16,
    load_i64,
    mul,
    pointer,
    splat,
    store_f32x16,
    store_i8x64,
    vector_of,
)
from quant.tile import transpose16

OFFSET = np.float32(64)  # of unpacked values, none of which is below -62


# --- in NumPy -----------------------------------------------------------------------------------------------------


def with_parity(index: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Seven signs a byte -> eight: the last one makes the number of minus signs even."""
    return index | (np.bitwise_count(index) & np.uint8(1)) << np.uint8(7)


def plus_minus(signs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [...] of eight signs, the first lowest -> 1 or -1, float32 [..., 8]."""
    minus = signs[..., None] >> np.arange(8, dtype=np.uint8) & np.uint8(1)
    return np.float32(1) - np.float32(2) * minus


# --- signs --------------------------------------------------------------------------------------------------------


@inline
def load_signs(address):
    """32 bytes of signs, the first column's lowest."""
    return load_i64(address), load_i64(address + 8), load_i64(address + 16), load_i64(address + 24)


@intrinsic
def parity_signs(index: Any) -> Any:
    """Seven signs a byte -> eight, 64 columns in an integer: the last one makes the number of minus signs even."""

    def generate(builder: Any, index: Any) -> list[Any]:
        odd = call_llvm(builder, f"llvm.ctpop.v{index.type.count}i8", index.type, [index])
        signs = builder.or_(index, builder.shl(odd, constant_of(index.type, 7)))
        return _words(builder, signs)

    return ("i64", index.lanes // 8), generate


def _words(builder: Any, vector: Any) -> list[Any]:
    """i8 lanes as 64-bit integers, by way of memory: a mask is loaded from there, not moved from a vector."""
    kind = vector_of(I64, vector.type.count // 8)
    with builder.goto_entry_block():
        local = builder.alloca(kind)
    local.align = 64
    builder.store(builder.bitcast(vector, kind), local)
    address = hidden(builder, builder.ptrtoint(local, I64))
    places = [pointer(builder, builder.add(address, I64(8 * i)), I64) for i in range(kind.count)]
    return [builder.load(place, align=8) for place in places]


# --- as int8 ------------------------------------------------------------------------------------------------------


def _signed(builder: Any, part: Any, minus: Any) -> Any:
    """OFFSET + part, or OFFSET - part where a bit is set."""
    middle = constant_of(part.type, int(OFFSET))
    if UNIT.startswith("avx512"):  # which has masks of bits
        return builder.select(minus, builder.sub(middle, part), builder.add(middle, part))
    ones = builder.sext(minus, part.type)
    return builder.sub(builder.xor(part, ones), builder.sub(ones, middle))


@intrinsic
def offset(parts: Any, signs: Any) -> Any:
    """OFFSET + or - each magnitude."""

    def generate(builder: Any, parts: list[Any], signs: list[Any]) -> list[Any]:
        return [_signed(builder, part, is_set(builder, sign)) for part, sign in zip(parts, signs, strict=True)]

    return (i8x64, 4), generate


@inline
def store_parts(parts, address, step):
    """The four parts, `step` bytes apart."""
    store_i8x64(address, parts[0])
    store_i8x64(address + step, parts[1])
    store_i8x64(address + 2 * step, parts[2])
    store_i8x64(address + 3 * step, parts[3])


@inline
def interleave(tile):
    """256 columns of 16 rows, stored part by part, 64 bytes a row, become a tile where they are."""
    for part in range(4):
        transpose16(tile + 1024 * part, 64, tile + 1024 * part, 64)


@inline
def tile_minima(scales, count, minima):
    """minima = OFFSET * scales, float32 [count, 16]."""
    for i in range(count):
        store_f32x16(minima + 64 * i, mul(load_f32x16(scales + 64 * i), splat(OFFSET)))
