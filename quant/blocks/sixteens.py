"""Sub-blocks of 16 columns: the 16 of a block, a lane each, for types whose scales are as many as that."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.jit import intrinsic
from quant.simd import (  # fmt: skip
    F16,
    F32,
    I8,
    I32,
    call_llvm,
    constant_of,
    f32x16,
    i8x16,
    i32x16,
    pointer,
    shuffle,
    splat_llvm,
    vector_of,
)


@intrinsic
def six_bits(low: Any, high: Any) -> Any:
    """Sixteen numbers -> i8x16: bits 0 to 3 are the nibbles of an int64, the low ones of all bytes first, bits 4 and 5
    those of four bytes, of which each has the lowest bits of a number, of the fourth after it, and so on.
    """

    def generate(builder: Any, low: Any, high: Any) -> Any:
        low = splat_llvm(builder, low, 2)
        low = builder.lshr(low, ir.Constant(low.type, [0, 4]))
        high = splat_llvm(builder, builder.trunc(high, I32), 4)
        turns = ir.Constant(high.type, [4, 2, 0, 30])
        high = call_llvm(builder, "llvm.fshl.v4i32", high.type, [high, high, turns])
        kind = vector_of(I8, 16)
        parts = [builder.and_(builder.bitcast(x, kind), constant_of(kind, mask)) for x, mask in ((low, 15), (high, 48))]
        return builder.or_(*parts)

    return i8x16, generate


@intrinsic
def to_words(vector: Any) -> Any:
    """uint8 lanes -> i32x16."""
    return i32x16, lambda builder, x: builder.zext(x, vector_of(I32, 16))


@intrinsic
def load_two_f16(address: Any) -> Any:
    """Two float16 beside each other -> two f32x16, each with one of them in every lane."""

    def generate(builder: Any, address: Any) -> list[Any]:
        both = builder.load(pointer(builder, address, vector_of(F16, 2)), align=1)
        both = builder.fpext(both, vector_of(F32, 2))
        return [shuffle(builder, both, both, [lane] * 16) for lane in range(2)]

    return (f32x16, 2), generate


@intrinsic
def scales_and_minima(w: Any) -> Any:
    """d * scale of the eight sub-blocks of a block that begins like Q4_K's, then dmin * minimum: f32x16."""

    def generate(builder: Any, w: Any) -> Any:
        words = builder.load(pointer(builder, builder.add(w, ir.Constant(w.type, 4)), vector_of(I32, 4)), align=1)
        shift, mask = [0, 0, 0, 4], [0x3F3F3F3F, 0x0F0F0F0F, 0x3F3F3F3F, 0x0F0F0F0F]
        low = _picked(builder, words, [0, 2, 1, 2], shift, mask)
        high = _picked(builder, words, [0, 0, 1, 1], [2] * 4, [0, 0x30303030, 0, 0x30303030])
        six_bits = builder.bitcast(builder.or_(low, high), vector_of(I8, 16))
        factors = builder.fpext(builder.load(pointer(builder, w, vector_of(F16, 2)), align=1), vector_of(F32, 2))
        factors = shuffle(builder, factors, factors, [0] * 8 + [1] * 8)
        return builder.fmul(builder.uitofp(six_bits, factors.type), factors)

    return f32x16, generate


def _picked(builder: Any, words: Any, lanes: list[int], shift: list[int], mask: list[int]) -> Any:
    moved = builder.lshr(shuffle(builder, words, words, lanes), ir.Constant(words.type, shift))
    return builder.and_(moved, ir.Constant(words.type, mask))
