"""Whole-number sums of the groups of columns of a block that share a scale: lanes of dot products, until each group has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quant.declarations import Intrinsic, Vector
from quant.int8_dot import UNIT, dot_u7, join
from quant.jit import inline, intrinsic
from quant.simd import I16, call_llvm, constant_of, shuffle, vector_of, zero_i32x16

_REGISTER_LANES = {"avx512vnni": 16, "avx512": 16, "avxvnni": 8, "avx2": 8}.get(UNIT, 0)
_NARROW = {8: ("avx2.packssdw", "avx2.pmadd.wd"), 16: ("avx512.packssdw.512", "avx512.pmaddw.d.512")}


def sums_by_group(quads: Sequence[Sequence[int]], bits: int) -> Intrinsic:
    """Declare an intrinsic: two or four i32x16 of dot products of four columns -> the sum of every group, in order.

    quads: for each vector, to which group its lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15 belong; a group has one of them
    or two. bits: that the weights have at most, without a sign; 0 for any int8.
    """
    groups = 1 + max(max(four) for four in quads)

    def generate(builder: Any, *vectors: Any) -> Any:
        places: list[list[int]] = [[] for _ in range(groups)]
        sums = [_added(builder, a, b, bits, 1) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
        if len(sums) == 2:
            sums = [_added(builder, sums[0], sums[1], bits, 2)]
        lanes = 4 // len(vectors)  # that a vector's quad is left with
        for vector, four in enumerate(quads):
            for i, group in enumerate(four):
                places[group] += [4 * i + lanes * vector + lane for lane in range(lanes)]
        parts = [shuffle(builder, sums[0], sums[0], lane) for lane in zip(*places, strict=True)]
        return parts[0] if len(parts) == 1 else builder.add(*parts)

    if len(quads) == 2:
        return intrinsic(lambda a, b: (Vector("i32", groups), generate))
    return intrinsic(lambda a, b, c, d: (Vector("i32", groups), generate))


@inline
def sums_of_products(sums, q, x):
    """The sum of every group of four vectors of weights, none of them negative, times four of an activation.

    sums: declared by `sums_by_group`; q and x: i8x64 each.
    """
    zero = zero_i32x16()
    first, second = dot_u7(zero, q[0], x[0]), dot_u7(zero, q[1], x[1])
    return sums(first, second, dot_u7(zero, q[2], x[2]), dot_u7(zero, q[3], x[3]))


def _added(builder: Any, a: Any, b: Any, bits: int, level: int) -> Any:
    """Of each four lanes: [a0 + a1, a2 + a3, b0 + b1, b2 + b3]; level: 1 for sums of four columns, 2 for those of eight."""
    if _REGISTER_LANES and bits and 4 * level * 127 * ((1 << bits) - 1) < 1 << 15:
        starts = range(0, 16, _REGISTER_LANES)
        parts = [[shuffle(builder, v, v, range(at, at + _REGISTER_LANES)) for v in (a, b)] for at in starts]
        return join(builder, [_added_as_int16(builder, *part) for part in parts])
    even = [four + lane for four in range(0, 16, 4) for lane in (0, 2, 16, 18)]
    return builder.add(shuffle(builder, a, b, even), shuffle(builder, a, b, [lane + 1 for lane in even]))


def _added_as_int16(builder: Any, a: Any, b: Any) -> Any:
    """The same of x86 registers of numbers that fit into int16: packed, and neighbours added up by a product with ones."""
    pack, multiply = _NARROW[a.type.count]
    words = vector_of(I16, 2 * a.type.count)
    both = call_llvm(builder, f"llvm.x86.{pack}", words, [a, b])
    return call_llvm(builder, f"llvm.x86.{multiply}", a.type, [both, constant_of(words, 1)])
