"""Five digits of three values in a byte: n of [0, 242] is kept as 256 n / 243 rounded up, a fraction of 256.

Three times a fraction carries its first digit over, and leaves a fraction with the others.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.blocks.lookup import VPERMB
from quant.jit import intrinsic
from quant.simd import I32, call_llvm, constant_of, shuffle, vector_of

SHIFT = 2 if VPERMB else 0


def digits_of(byte: int) -> list[int]:
    """The digits of a byte, first to last."""
    return [byte * 3**n % 256 * 3 // 256 for n in range(5)]


@intrinsic
def trits(packed: Any) -> Any:
    """i8x64 -> five i8x64 of a digit each, the second and the fourth shifted left by SHIFT bits."""
    return (packed, 5), _looked_up if VPERMB else _multiplied


def _looked_up(builder: Any, packed: Any) -> list[Any]:
    """Four digits out of one table, two bits each, the last one out of another."""
    digits = [digits_of(byte) for byte in range(256)]
    four = _entry(builder, [a | b << 2 | c << 4 | d << 6 for a, b, c, d, _ in digits], packed)
    last = _entry(builder, [row[4] for row in digits], packed)
    half = builder.lshr(four, constant_of(four.type, 4))
    low, high = constant_of(four.type, 3), constant_of(four.type, 12)
    return [*(builder.and_(x, mask) for x in (four, half) for mask in (low, high)), last]


def _entry(builder: Any, table: list[int], index: Any) -> Any:
    """Entries of a table of 256 bytes: from both halves of it, and then by the upper bit."""
    parts = [ir.Constant(index.type, table[at : at + 64]) for at in range(0, 256, 64)]
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    low, high = (call_llvm(builder, name, index.type, [parts[at], index, parts[at + 1]]) for at in (0, 2))
    return builder.select(builder.icmp_signed("<", index, constant_of(index.type, 0)), high, low)


def _multiplied(builder: Any, packed: Any) -> list[Any]:
    digits = []
    for _ in range(5):
        digits.append(builder.add(_beyond(builder, packed, 85), _beyond(builder, packed, 170)))
        packed = builder.add(packed, builder.add(packed, packed))
    return digits


def _beyond(builder: Any, packed: Any, most: int) -> Any:
    """1 where an unsigned byte is larger than that, else 0."""
    kind = packed.type
    excess = call_llvm(builder, f"llvm.usub.sat.v{kind.count}i8", kind, [packed, constant_of(kind, most)])
    return call_llvm(builder, f"llvm.umin.v{kind.count}i8", kind, [excess, constant_of(kind, 1)])


@intrinsic
def four_words(low: Any) -> Any:
    """Words 3 to 6 of an i8x32; zeros around them."""
    return low, lambda builder, low: _words(builder, low, low, 8)


@intrinsic
def five_words(low: Any, high: Any) -> Any:
    """Words 3 to 6 of an i8x32, then the last word of another; zeros before."""
    return low, lambda builder, low, high: _words(builder, low, high, 7)


def _words(builder: Any, low: Any, high: Any, last: int) -> Any:
    words = vector_of(I32, 8)
    both = shuffle(builder, builder.bitcast(low, words), builder.bitcast(high, words), [*range(7), 15])
    kept = shuffle(builder, both, constant_of(words, 0), [8, 8, 8, 3, 4, 5, 6, last])
    return builder.bitcast(kept, low.type)


# Of the vectors of `by_sub_block`, by four lanes; the last two of them are zeros.
SUB_BLOCKS = ((0, 0, 1, 1), (2, 2, 3, 3), (4, 4, 5, 6), (7, 7, 5, 6))


@intrinsic
def by_sub_block(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """i32x16 products of the five digits of bytes 0 to 31, then 20 to 51 (see quant.formats.tq1_0) -> four, by sub-block.

    Lanes 0 to 7 of digit n are of sub-block n; lanes 11 to 14 of digits 0 and 1 of the fifth, of 2 and 3 of the sixth, of 4
    of the seventh, and so is lane 15 of all; all lanes between are zeros.
    """

    def generate(builder: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> list[Any]:
        halves = [*range(8), *range(16, 24)]
        fifth, sixth = builder.add(a, b), builder.add(c, d)
        middle = shuffle(builder, fifth, sixth, [*range(11, 15), *range(27, 31)] * 2)
        seventh = shuffle(builder, e, builder.add(fifth, sixth), [*range(11, 15), 31, *[8] * 11])
        first, second = shuffle(builder, a, b, halves), shuffle(builder, c, d, halves)
        return [first, second, shuffle(builder, e, middle, halves), seventh]

    return (a, 4), generate
