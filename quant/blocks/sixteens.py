"""Sub-blocks of 16 columns: the 16 of a block, a lane each, for types whose scales are as many as that."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.int8_dot import UNIT, join
from quant.jit import intrinsic
from quant.simd import (  # fmt: skip
    F16,
    F32,
    I8,
    I16,
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

_REGISTER_LANES = {"avx512vnni": 16, "avx512": 16, "avxvnni": 8, "avx2": 8}.get(UNIT, 0)
_WIDTHS = {8: ("avx2.packssdw", "avx2.pmadd.wd"), 16: ("avx512.packssdw.512", "avx512.pmaddw.d.512")}


@intrinsic
def sums_of_four(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Four i32x16 of dot products -> i32x16, whose lane 4l + v is the sum of lanes 4l .. 4l + 3 of vector v.

    Those of a and c are taken four times, for b and d are of weights two bits too high. Pairs must fit int16.
    """
    return a, _sums_of_four


def _sums_of_four(builder: Any, *vectors: Any) -> Any:
    if not _REGISTER_LANES:
        return _pairs_added(builder, *(_halves_added(builder, *vectors[i : i + 2]) for i in (0, 2)))
    starts = range(0, 16, _REGISTER_LANES)
    parts = [[shuffle(builder, v, v, range(at, at + _REGISTER_LANES)) for v in vectors] for at in starts]
    return join(builder, [_narrowed(builder, *part) for part in parts])


def _narrowed(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """x86, within each 16 bytes: sums of neighbours out of pairs that are packed to int16, twice."""
    return _packed(builder, _packed(builder, a, b, 4), _packed(builder, c, d, 4), 1)


def _packed(builder: Any, a: Any, b: Any, factor: int) -> Any:
    """Of each four lanes: [factor * (a0 + a1), factor * (a2 + a3), b0 + b1, b2 + b3]."""
    words = vector_of(I16, 2 * a.type.count)
    pack, multiply = _WIDTHS[a.type.count]
    both = call_llvm(builder, f"llvm.x86.{pack}", words, [a, b])
    factors = ir.Constant(words, ([factor] * 4 + [1] * 4) * (words.count // 8))
    return call_llvm(builder, f"llvm.x86.{multiply}", a.type, [both, factors])


def _halves_added(builder: Any, a: Any, b: Any) -> Any:
    """Of each four lanes: [4 * (a0 + a2), b0 + b2, 4 * (a1 + a3), b1 + b3]."""
    a = builder.shl(a, constant_of(a.type, 2))
    upper = [lane for four in range(0, 16, 4) for lane in (four, four + 16, four + 1, four + 17)]
    return builder.add(shuffle(builder, a, b, upper), shuffle(builder, a, b, [lane + 2 for lane in upper]))


def _pairs_added(builder: Any, ab: Any, cd: Any) -> Any:
    """Of each four lanes: [ab0 + ab2, ab1 + ab3, cd0 + cd2, cd1 + cd3]."""
    upper = [lane for four in range(0, 16, 4) for lane in (four, four + 1, four + 16, four + 17)]
    return builder.add(shuffle(builder, ab, cd, upper), shuffle(builder, ab, cd, [lane + 2 for lane in upper]))


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


@intrinsic
def upper_half() -> Any:
    """0 in the first eight lanes, 1 in the others."""
    return f32x16, lambda _builder: ir.Constant(vector_of(F32, 16), [0.0] * 8 + [1.0] * 8)
