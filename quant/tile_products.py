"""The inner loop of prefill: the columns of a tile that share a scale, times a few tokens of a panel (see quant.tile).

A dot product is one instruction on most units. `vpmaddubsw`, of AVX2 and of AVX-512 without VNNI, leaves int16 pairs,
which a second one adds up to int32: weights of few bits allow several steps of pairs to be added before that. `smmla`, of
AArch64 with I8MM, multiplies a matrix of two rows and eight columns with one of two tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from quant.int8_dot import UNIT, join
from quant.jit import intrinsic
from quant.simd import I8, I16, I32, call_llvm, constant_of, pointer, shuffle, splat_llvm, vector_of
from quant.tile import MANY, offset_by, scaled

_PAIR_BYTES = {"avx512": 64, "avx2": 32}.get(UNIT, 0)  # of a register, on units that leave pairs
PAIRS = _PAIR_BYTES > 0  # whether bits of a weight matter
MATRICES = UNIT == "i8mm"  # whether two tokens are multiplied at once
# Steps of 4 columns whose pairs fit into int16, by bits of a weight: 2 * 8 * 15 * 127 = 30480.
_STEPS = {4: 8, 5: 4, 6: 2}

Values = list[Any]


Word = Callable[[int, int], Any]  # of a step and a token: four columns of the token, i32


def load_word(builder: Any, address: Any, offset: int) -> Any:
    """Four columns of a token, `offset` bytes behind an address."""
    return builder.load(pointer(builder, offset_by(builder, address, offset), I32), align=1)


def _of_panel(builder: Any, panel: Any) -> Word:
    return lambda step, token: load_word(builder, panel, 4 * (MANY * step + token))


def _pairs(builder: Any, w: Any, x: Any) -> Any:
    """Products of two columns added up, int16."""
    name = "llvm.x86.avx512.pmaddubs.w.512" if _PAIR_BYTES == 64 else "llvm.x86.avx2.pmadd.ub.sw"
    return call_llvm(builder, name, vector_of(I16, _PAIR_BYTES // 2), [w, x])


def _sum_pairs(builder: Any, pairs: Any) -> Any:
    name = "llvm.x86.avx512.pmaddw.d.512" if _PAIR_BYTES == 64 else "llvm.x86.avx2.pmadd.wd"
    return call_llvm(builder, name, vector_of(I32, pairs.type.count // 2), [pairs, constant_of(pairs.type, 1)])


def _in_order(builder: Any, value: Any) -> Any:
    """The value, made here and nowhere else: LLVM would add pairs up token by token, and keep all weights on the stack."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.asm(kind, "", "=v,0", [value], True)


def _add_to(builder: Any, sums: Values, i: int, value: Any) -> None:
    sums[i] = value if sums[i] is None else builder.add(sums[i], value)


def sum_by_pairs(builder: Any, tile: Any, word_of: Word, steps: int, tokens: int, bits: int) -> Values:
    """i32x16 sums of so many steps of four columns for each token, by way of int16 pairs, in parts that fill a register."""
    parts, run = 64 // _PAIR_BYTES, min(steps, _STEPS[bits])
    register = vector_of(I8, _PAIR_BYTES)
    sums: Values = [None] * (tokens * parts)
    for first in range(0, steps, run):
        shorts: Values = [None] * (tokens * parts)
        for step in range(first, first + run):
            places = [offset_by(builder, tile, 64 * step + _PAIR_BYTES * part) for part in range(parts)]
            w = [builder.load(pointer(builder, place, register), align=1) for place in places]
            for token in range(tokens):
                word = splat_llvm(builder, word_of(step, token), _PAIR_BYTES // 4)
                x = builder.bitcast(word, register)
                for part in range(parts):
                    at = token * parts + part
                    _add_to(builder, shorts, at, _pairs(builder, w[part], x))
                    shorts[at] = _in_order(builder, shorts[at])
        for i, pairs in enumerate(shorts):
            _add_to(builder, sums, i, _sum_pairs(builder, pairs))
    return [join(builder, sums[token * parts : (token + 1) * parts]) for token in range(tokens)]


def add_pairs(columns: int, bits: int) -> Any:
    """Declare an intrinsic: totals + scale * d * sums - minimum * s, of that many columns, by way of int16 pairs.

    Weights have so many bits and are never negative. It takes the addresses of the columns in the tile and in the panel, the
    scale and the minimum of each row, and the addresses of the tokens' d and s.
    """

    def generate(
        builder: Any, totals: Values, tile: Any, panel: Any, scale: Any, minimum: Any, d: Any, s: Any
    ) -> Values:
        sums = sum_by_pairs(builder, tile, _of_panel(builder, panel), columns // 4, len(totals), bits)
        return scaled(builder, totals, sums, scale, minimum, d, s)

    return intrinsic(lambda totals, tile, panel, scale, minimum, d, s: (totals, generate))


@intrinsic
def interleave(tile: Any) -> Any:
    """Eight columns of an int8 tile, in place, as `add_matrices` wants them: [2, 16 rows, 4] -> [16 rows, 8]."""

    def generate(builder: Any, tile: Any) -> None:
        places = [pointer(builder, offset_by(builder, tile, 64 * step), vector_of(I32, 16)) for step in range(2)]
        first, second = (builder.load(place, align=1) for place in places)
        for place, start in zip(places, (0, 8), strict=True):
            lanes = [lane for row in range(start, start + 8) for lane in (row, 16 + row)]
            builder.store(shuffle(builder, first, second, lanes), place, align=1)

    return None, generate


def _two_tokens(builder: Any, panel: Any, eight: int, pair: int) -> Any:
    """Eight columns of a token, and of the next one: i8x16."""
    steps = [
        pointer(builder, offset_by(builder, panel, 4 * MANY * (2 * eight + i)), vector_of(I32, MANY)) for i in (0, 1)
    ]
    first, second = (builder.load(step, align=1) for step in steps)
    lanes = [lane for token in (2 * pair, 2 * pair + 1) for lane in (token, MANY + token)]
    return builder.bitcast(shuffle(builder, first, second, lanes), vector_of(I8, 16))


def sum_by_matrices(builder: Any, tile: Any, panel: Any, columns: int, tokens: int) -> Values:
    """i32x16 sums of that many columns for each token: two rows, two tokens and eight columns at a time."""
    pairs, sixteen = range(-(-tokens // 2)), vector_of(I8, 16)
    sums: list[Values] = [[constant_of(vector_of(I32, 4), 0)] * 8 for _ in pairs]
    for eight in range(columns // 8):
        x = [_two_tokens(builder, panel, eight, pair) for pair in pairs]
        for rows in range(8):
            w = builder.load(pointer(builder, offset_by(builder, tile, 128 * eight + 16 * rows), sixteen), align=1)
            for pair in pairs:
                name, given = "llvm.aarch64.neon.smmla.v4i32.v16i8", [sums[pair][rows], w, x[pair]]
                sums[pair][rows] = call_llvm(builder, name, given[0].type, given)
    both = [join(builder, sums[pair]) for pair in pairs]  # a row's two tokens beside each other
    return [shuffle(builder, both[token // 2], both[token // 2], range(token % 2, 32, 2)) for token in range(tokens)]


def add_matrices(columns: int) -> Any:
    """As `add_pairs`, of any int8 weights, by products of matrices; the tile is interleaved."""

    def generate(
        builder: Any, totals: Values, tile: Any, panel: Any, scale: Any, minimum: Any, d: Any, s: Any
    ) -> Values:
        sums = sum_by_matrices(builder, tile, panel, columns, len(totals))
        return scaled(builder, totals, sums, scale, minimum, d, s)

    return intrinsic(lambda totals, tile, panel, scale, minimum, d, s: (totals, generate))
