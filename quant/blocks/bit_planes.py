"""Bit planes: a high bit of all columns, stored apart from their low bits, one plane after the other (hmask of Q3_K)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant import cpu
from quant.int8_dot import UNIT, join
from quant.jit import intrinsic
from quant.simd import I8, I64, call_llvm, constant_of, i8x64, shuffle, vector_of

_GALOIS = UNIT.startswith("avx512") and "+gfni" in cpu.features().split(",")
_PLACE = 2  # where the lower two bits of a number end


@intrinsic
def third_bits(planes: Any) -> Any:
    """i8x32 -> four i8x64: vector v has bit v of every byte, and then bit v + 4, as bit 2."""
    return (i8x64, 4), _by_matrix if _GALOIS else _by_shift


def _by_matrix(builder: Any, planes: Any) -> list[Any]:
    """An instruction for each: it makes every bit of a byte the parity of the bits that a row of a matrix chooses."""
    both = shuffle(builder, planes, planes, list(range(32)) * 2)
    vectors = []
    for v in range(4):
        rows = [1 << bit << 8 * (7 - _PLACE) for bit in (v, v + 4) for _ in range(4)]
        matrix = builder.bitcast(ir.Constant(vector_of(I64, 8), rows), both.type)
        vectors.append(call_llvm(builder, "llvm.x86.vgf2p8affineqb.512", both.type, [both, matrix, I8(0)]))
    return vectors


def _by_shift(builder: Any, planes: Any) -> list[Any]:
    both = join(builder, [planes, builder.lshr(planes, constant_of(planes.type, 4))])
    vectors = []
    for v in range(4):
        shift = builder.shl if v < _PLACE else builder.lshr
        moved = shift(both, constant_of(both.type, abs(_PLACE - v)))
        vectors.append(builder.and_(moved, constant_of(both.type, 1 << _PLACE)))
    return vectors
