"""int8 dot products, the one operation that differs by CPU: acc[l] += sum of w[4l + i] * x[4l + i] over i < 4.

`dot_u7(acc, w, x)`    w in [0, 127]
`dot_wide(acc, w, x)`  w any int8, stored as w ^ BIAS; the caller takes BIAS * sum(x) off again
Both take x in [-127, 127], i8x64 with i32x16 or i8x32 with i32x8, and are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from quant import cpu
from quant.jit import intrinsic
from quant.simd import I16, I32, call_llvm, shuffle, vector_of


def _pieces(builder: Any, vector: Any, lanes: int) -> list[Any]:
    count = vector.type.count
    return [shuffle(builder, vector, vector, range(start, start + lanes)) for start in range(0, count, lanes)]


def join(builder: Any, pieces: list[Any]) -> Any:
    """Vectors end to end, a power of two of them."""
    while len(pieces) > 1:
        lanes = 2 * pieces[0].type.count
        pieces = [shuffle(builder, a, b, range(lanes)) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def _in_pieces(builder: Any, arguments: Sequence[Any], lanes: int, step: Callable[[Any, Any, Any], Any]) -> Any:
    """Split (acc i32, w i8, x i8) into registers of `lanes` bytes, apply `step` to each, join the sums."""
    acc, w, x = arguments
    lanes = min(lanes, w.type.count)
    parts = zip(_pieces(builder, acc, lanes // 4), _pieces(builder, w, lanes), _pieces(builder, x, lanes), strict=True)
    return join(builder, [step(*part) for part in parts])


def _vpdpbusd(builder: Any, acc: Any, w: Any, x: Any) -> Any:
    """AVX512-VNNI or AVX-VNNI: unsigned w, signed x, exact."""
    bits = 8 * w.type.count
    return call_llvm(builder, f"llvm.x86.avx512.vpdpbusd.{bits}", acc.type, [acc, w, x])


def _vpmaddubsw(builder: Any, acc: Any, w: Any, x: Any) -> Any:
    """AVX2 or AVX512-BW: unsigned w below 128 (pairs must stay within int16), signed x."""
    half = vector_of(I16, w.type.count // 2)
    wide = w.type.count == 64
    pairs = call_llvm(builder, f"llvm.x86.{'avx512.pmaddubs.w.512' if wide else 'avx2.pmadd.ub.sw'}", half, [w, x])
    ones = ir.Constant(half, [1] * half.count)
    name = "llvm.x86.avx512.pmaddw.d.512" if wide else "llvm.x86.avx2.pmadd.wd"
    return builder.add(acc, call_llvm(builder, name, acc.type, [pairs, ones]))


def _with_sign_of(builder: Any, x: Any, w: Any) -> Any:
    """AVX2: x, -x where w is negative, and 0 where it is 0, i8x32: one instruction, which LLVM does not find by itself."""
    return call_llvm(builder, "llvm.x86.avx2.psign.b", x.type, [x, w])


def _signed_by_sign(builder: Any, acc: Any, w: Any, x: Any) -> Any:
    """Signed w by signed x on a unit that wants unsigned w: |w| and x with w's sign (w is never -128 beside x -128)."""
    zero = ir.Constant(w.type, [0] * w.type.count)
    negative = builder.icmp_signed("<", w, zero)
    magnitude = builder.select(negative, builder.sub(zero, w), w)
    if w.type.count == 32:
        return _vpmaddubsw(builder, acc, magnitude, _with_sign_of(builder, x, w))
    return _vpmaddubsw(builder, acc, magnitude, builder.select(negative, builder.sub(zero, x), x))


def _sdot(builder: Any, acc: Any, w: Any, x: Any) -> Any:
    """AArch64 with dot products: signed w by signed x."""
    return call_llvm(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", acc.type, [acc, w, x])


def _by_neon(builder: Any, acc: Any, w: Any, x: Any) -> Any:
    """AArch64 without dot products: signed w by signed x to int16, pairs of which are added up to int32, and pairs of these."""
    eight, four = vector_of(I16, 8), vector_of(I32, 4)
    pairs = []
    for part in zip(_pieces(builder, w, 8), _pieces(builder, x, 8), strict=True):
        products = call_llvm(builder, "llvm.aarch64.neon.smull.v8i16", eight, part)
        pairs.append(call_llvm(builder, "llvm.aarch64.neon.saddlp.v4i32.v8i16", four, [products]))
    return builder.add(acc, call_llvm(builder, "llvm.aarch64.neon.addp.v4i32", four, pairs))


def _portable(builder: Any, acc: Any, w: Any, x: Any) -> Any:
    """Signed w by signed x with plain vector arithmetic."""
    half = vector_of(I16, w.type.count)
    products = builder.mul(builder.sext(w, half), builder.sext(x, half))
    wide = builder.sext(products, vector_of(I32, w.type.count))
    for offset in range(4):
        lanes = range(offset, w.type.count, 4)
        acc = builder.add(acc, shuffle(builder, wide, wide, lanes))
    return acc


UNIT = cpu.dot_unit()
_VNNI = UNIT in ("avx512vnni", "avxvnni")
# What `dot_wide` wants added (by xor) to a signed weight byte, so that the unit sees the kind of number it multiplies.
BIAS = 128 if _VNNI else 0
_REGISTER_BYTES = {"avx512vnni": 64, "avx512": 64, "avxvnni": 32, "avx2": 32}.get(UNIT, 16)
_SMALL = {
    "avx512vnni": _vpdpbusd, "avxvnni": _vpdpbusd, "avx512": _vpmaddubsw, "avx2": _vpmaddubsw,
    "i8mm": _sdot, "dotprod": _sdot, "neon": _by_neon,
}.get(UNIT, _portable)  # fmt: skip
_WIDE = {"avx512": _signed_by_sign, "avx2": _signed_by_sign}.get(UNIT, _SMALL)


def dot_wide_llvm(builder: Any, acc: Any, w: Any, x: Any) -> Any:
    """The LLVM code of `dot_wide`, for intrinsics that unroll it."""
    return _in_pieces(builder, (acc, w, x), _REGISTER_BYTES, lambda *part: _WIDE(builder, *part))


@intrinsic
def dot_u7(acc: Any, w: Any, x: Any) -> Any:
    """acc + dot of w in [0, 127] and x in [-127, 127]."""

    def generate(builder: Any, *values: Any) -> Any:
        return _in_pieces(builder, values, _REGISTER_BYTES, lambda *part: _SMALL(builder, *part))

    return acc, generate


@intrinsic
def dot_wide(acc: Any, w: Any, x: Any) -> Any:
    """acc + dot of w, stored as w ^ BIAS, and x in [-127, 127], plus BIAS * sum(x)."""
    return acc, dot_wide_llvm
