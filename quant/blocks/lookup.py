"""A table of 16 bytes, looked up by the nibbles of packed bytes: weights whose 4 bits name a value, not count one.

A byte shuffle by lanes that are not constants has no common name in LLVM, so it is named by CPU here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from quant import cpu
from quant.declarations import Intrinsic
from quant.int8_dot import UNIT, join
from quant.jit import intrinsic
from quant.simd import I8, I16, call_llvm, constant_of, shuffle, vector_of

_NEON = UNIT in ("i8mm", "dotprod", "neon")
_WIDEST = 64 if UNIT.startswith("avx512") else 32 if UNIT.startswith("avx") else 16  # bytes of a register
VPERMB = _WIDEST == 64 and "+avx512vbmi" in cpu.features().split(",")  # bytes of 64 or 128, picked at will
_PSHUFB = {16: "llvm.x86.ssse3.pshuf.b.128", 32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}


def low_nibbles(table: Sequence[int]) -> Intrinsic:
    """Declare an intrinsic: i8 lanes -> table[lane & 15], the table's 16 values being int8 or uint8."""
    return _declare(table, lambda builder, packed: packed)


def high_nibbles(table: Sequence[int]) -> Intrinsic:
    """Declare an intrinsic: i8 lanes -> table[lane >> 4 & 15]."""
    return _declare(table, _shifted)


def _declare(table: Sequence[int], index: Callable[[Any, Any], Any]) -> Intrinsic:
    return intrinsic(lambda packed: (packed, lambda builder, x: lookup_llvm(builder, table, index(builder, x))))


def _shifted(builder: Any, packed: Any) -> Any:
    """The high nibble of each byte, below bits of its neighbour: no CPU shifts bytes, and the lookup wants 4 bits."""
    words = vector_of(I16, packed.type.count // 2)
    return builder.bitcast(builder.lshr(builder.bitcast(packed, words), constant_of(words, 4)), packed.type)


def lookup_llvm(builder: Any, table: Sequence[int], index: Any) -> Any:
    """table[index & 15] of i8 lanes, register by register."""
    lanes = min(_WIDEST, index.type.count)
    if not VPERMB or lanes < 64:
        index = builder.and_(index, constant_of(index.type, 15))
    starts = range(0, index.type.count, lanes)
    pieces = [shuffle(builder, index, index, range(start, start + lanes)) for start in starts]
    return join(builder, [_piece(builder, table, piece) for piece in pieces])


def _piece(builder: Any, table: Sequence[int], index: Any) -> Any:
    lanes = index.type.count
    values = ir.Constant(index.type, [table[lane % 16] & 255 for lane in range(lanes)])
    if _NEON:
        return call_llvm(builder, "llvm.aarch64.neon.tbl1.v16i8", index.type, [values, index])
    if VPERMB and lanes == 64:  # looks at 6 bits: the table stands there four times
        return call_llvm(builder, "llvm.x86.avx512.permvar.qi.512", index.type, [values, index])
    if UNIT.startswith("avx"):  # in each 16 bytes on their own
        return call_llvm(builder, _PSHUFB[lanes], index.type, [values, index])
    return _selected(builder, table, index)


def _selected(builder: Any, table: Sequence[int], index: Any) -> Any:
    """The table halved by a bit of the index at a time."""
    kind = vector_of(I8, index.type.count)
    values = [constant_of(kind, value & 255) for value in table]
    for bit in (1, 2, 4, 8):
        is_set = builder.icmp_unsigned("!=", builder.and_(index, constant_of(kind, bit)), constant_of(kind, 0))
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [builder.select(is_set, odd, even) for even, odd in pairs]
    return values[0]
