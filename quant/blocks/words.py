"""Fields of packed blocks as words of four columns, in the order of quant.blocks.step_rows, on units with AVX-512.

A field is some bits of every byte of a word. With VBMI one instruction makes each byte of any eight neighbouring bits of 64,
so two words are picked at once; without it each word is picked, then rotated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from quant.blocks.lookup import VPERMB
from quant.declarations import Intrinsic
from quant.jit import intrinsic
from quant.simd import I8, I32, I64, call_llvm, constant_of, i8x64, shuffle, vector_of

Place = Callable[[int, int, int], int]  # of j, i and k: lane 4 * i + j of vector k
Places = Sequence[tuple[int, int]]  # a word, and where its field begins in each byte, for every lane


def fields(word_of: Place, bit_of: Place, target: int, bits: int) -> Intrinsic:
    """Declare an intrinsic: two i8x64 -> four, whose bytes have a field of so many bits, from bit `target` on, and else 0.

    word_of: which of the 32 words a lane takes, an even one for an even k, and the next for the next; those of an even j and
    the next j are the same. bit_of: where the field begins in each byte.
    """
    lanes = [(lane % 4, lane // 4) for lane in range(16)]
    places = [[(word_of(j, i, k), bit_of(j, i, k)) for j, i in lanes] for k in range(4)]
    mask = ((1 << bits) - 1) << target

    def generate(builder: Any, a: Any, b: Any) -> list[Any]:
        made = (_by_windows if VPERMB else _by_turns)(builder, a, b, places, target)
        return [builder.and_(x, constant_of(x.type, mask)) for x in made]

    return intrinsic(lambda a, b: ((i8x64, 4), generate))


def _by_windows(builder: Any, a: Any, b: Any, places: Sequence[Places], target: int) -> list[Any]:
    made, kind = [], vector_of(I64, 8)
    a, b = builder.bitcast(a, kind), builder.bitcast(b, kind)
    for first in (0, 2):
        picked = shuffle(builder, a, b, [word // 2 for word, _ in places[first][::2]])
        picked = builder.bitcast(picked, vector_of(I8, 64))
        for own in places[first : first + 2]:
            starts = [32 * (word % 2) + 8 * byte + bit - target for word, bit in own for byte in range(4)]
            windows = ir.Constant(picked.type, [start % 64 for start in starts])
            made.append(call_llvm(builder, "llvm.x86.avx512.pmultishift.qb.512", picked.type, [windows, picked]))
    return made


def _by_turns(builder: Any, a: Any, b: Any, places: Sequence[Places], target: int) -> list[Any]:
    made, kind = [], vector_of(I32, 16)
    a, b = builder.bitcast(a, kind), builder.bitcast(b, kind)
    for own in places:
        words = shuffle(builder, a, b, [word for word, _ in own])
        turns = ir.Constant(kind, [(target - bit) % 32 for _, bit in own])
        turned = call_llvm(builder, "llvm.fshl.v16i32", kind, [words, words, turns])
        made.append(builder.bitcast(turned, vector_of(I8, 64)))
    return made
