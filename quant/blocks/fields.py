"""Bit fields of packed blocks, taken apart by vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from quant.declarations import Intrinsic, Vector
from quant.int8_dot import UNIT
from quant.jit import intrinsic
from quant.simd import (
    F16,
    F32,
    I8,
    I16,
    I32,
    I64,
    constant_of,
    f32x16,
    i8x64,
    i32x8,
    pointer,
    shuffle,
    splat_llvm,
    vector_of,
)


def nibbles(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [..., n] -> uint4 [..., 2n], each low nibble before the high one."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def spread(bits: int) -> Intrinsic:
    """Declare an intrinsic: the lowest four fields of so many bits of each i32 lane -> a byte each."""

    def generate(builder: Any, words: Any) -> Any:
        made = constant_of(words.type, 0)
        for i in range(4):
            field = builder.and_(words, constant_of(words.type, ((1 << bits) - 1) << bits * i))
            made = builder.or_(made, builder.shl(field, constant_of(words.type, (8 - bits) * i)))
        return builder.bitcast(made, vector_of(I8, 4 * words.type.count))

    return intrinsic(lambda words: (Vector("i8", 4 * words.lanes), generate))


def _alternate(size: int, first: int) -> Intrinsic:
    """Declare an intrinsic: every second group of `size` bytes of two i8x64."""
    lanes = [2 * size * (i // size) + size * first + i % size for i in range(64)]
    return intrinsic(lambda a, b: (i8x64, lambda builder, a, b: shuffle(builder, a, b, lanes)))


even_bytes, odd_bytes = _alternate(1, 0), _alternate(1, 1)
even_words, odd_words = _alternate(4, 0), _alternate(4, 1)


def _load_wide(stored: Any, lanes: int) -> Intrinsic:
    def generate(builder: Any, address: Any) -> Any:
        value = builder.load(pointer(builder, address, vector_of(stored, lanes)), align=1)
        return builder.zext(value, vector_of(I32, lanes))

    return intrinsic(lambda address: (Vector("i32", lanes), generate))


load_u8x8, load_u16x4, load_u16x8 = _load_wide(I8, 8), _load_wide(I16, 4), _load_wide(I16, 8)  # as i32 lanes


@intrinsic
def load_i32x8(address: Any) -> Any:
    """Eight i32."""
    return i32x8, lambda builder, address: builder.load(pointer(builder, address, vector_of(I32, 8)), align=1)


@intrinsic
def u8_to_f32(vector: Any) -> Any:
    """Unsigned i8 lanes -> float32 lanes."""
    return Vector("f32", vector.lanes), lambda builder, x: builder.uitofp(x, vector_of(F32, vector.lanes))


@intrinsic
def f16_of(bits: Any) -> Any:
    """The low 16 bits of an integer, read as float16 -> float32."""
    return "f32", lambda builder, x: builder.fpext(builder.bitcast(builder.trunc(x, I16), F16), F32)


@intrinsic
def as_i32(vector: Any) -> Any:
    """i8 lanes as i32 lanes of four bytes."""
    lanes = vector.lanes // 4
    return Vector("i32", lanes), lambda builder, x: builder.bitcast(x, vector_of(I32, lanes))


@intrinsic
def both_nibbles(packed: Any) -> Any:
    """i8 lanes -> twice as many, each low nibble before the high one."""
    lanes = packed.lanes

    def generate(builder: Any, packed: Any) -> Any:
        low, high = (
            builder.and_(packed, constant_of(packed.type, 15)),
            builder.lshr(packed, constant_of(packed.type, 4)),
        )
        return shuffle(builder, low, high, [i // 2 + i % 2 * lanes for i in range(2 * lanes)])

    return Vector("i8", 2 * lanes), generate


@intrinsic
def load_nibbles(address: Any) -> Any:
    """8 bytes -> 16 nibbles as float32 lanes, each low nibble before the high one."""

    def generate(builder: Any, address: Any) -> Any:
        packed = builder.load(pointer(builder, address, vector_of(I8, 8)), align=1)
        low, high = (
            builder.and_(packed, constant_of(packed.type, 15)),
            builder.lshr(packed, constant_of(packed.type, 4)),
        )
        return builder.uitofp(shuffle(builder, low, high, [i // 2 + i % 2 * 8 for i in range(16)]), vector_of(F32, 16))

    return f32x16, generate


def hidden(builder: Any, address: Any) -> Any:
    """The same address, of which LLVM knows nothing: what is stored or loaded there cannot be moved across."""
    return builder.asm(ir.FunctionType(I64, [I64]), "", "=r,0,~{memory}", [address], True)


def is_set(builder: Any, bits: Any) -> Any:
    """64 bits -> 64 truth values, for LLVM code: with AVX512 as they are, else a byte at a time to where it is tested."""
    if UNIT.startswith("avx512"):
        return builder.bitcast(bits, vector_of(ir.IntType(1), 64))
    everywhere = builder.bitcast(splat_llvm(builder, bits, 8), vector_of(I8, 64))
    copies = shuffle(builder, everywhere, everywhere, [i // 16 * 16 + i // 8 for i in range(64)])
    own = ir.Constant(copies.type, [1 << i % 8 for i in range(64)])
    return builder.icmp_unsigned("==", builder.and_(copies, own), own)


@intrinsic
def bits_as_bytes(bits: Any) -> Any:
    """64 bits -> i8x64 of 0 and 1."""
    return i8x64, lambda builder, bits: builder.zext(is_set(builder, bits), vector_of(I8, 64))
