"""The inner loop of prefill: the columns of a tile that share a scale, times a few tokens of a panel (see quant.tile).

A dot product is one instruction on most units. `vpmaddubsw`, of AVX2 and of AVX-512 without VNNI, leaves int16 pairs,
which a second one adds up to int32: weights of few bits allow several steps of pairs to be added before that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from quant.declarations import vector_llvm
from quant.int8_dot import UNIT, dot_wide_llvm, join
from quant.jit import intrinsic
from quant.simd import I8, I16, I32, call_llvm, constant_of, f32x16, pointer, splat_llvm, vector_of
from quant.tile import ENTRY, MANY, entry_llvm, fma_llvm, lane_llvm, offset_by, scaled

_PAIR_BYTES = {"avx512": 64, "avx2": 32}.get(UNIT, 0)  # of a register, on units that leave pairs
PAIRS = _PAIR_BYTES > 0  # whether bits of a weight matter
# Steps of 4 columns whose pairs fit into int16, by bits of a weight: 2 * 8 * 15 * 127 = 30480.
_STEPS = {4: 8, 5: 4, 6: 2}

Values = list[Any]


Word = Callable[[int, int], Any]  # of a step and a token: four columns of the token, i32


def _word_of_panel(builder: Any, panel: Any) -> Word:
    return lambda step, token: load_word(builder, panel, 4 * (MANY * step + token))


def load_word(builder: Any, address: Any, offset: int) -> Any:
    return builder.load(pointer(builder, offset_by(builder, address, offset), I32), align=1)


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


def _sum_by_pairs(builder: Any, tile: Any, word_of: Word, steps: int, tokens: int, bits: int) -> Values:
    """The same by way of int16 pairs; each sum is made of parts that fill a register."""
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
        sums = _sum_by_pairs(builder, tile, _word_of_panel(builder, panel), columns // 4, len(totals), bits)
        return scaled(builder, totals, sums, scale, minimum, d, s)

    return intrinsic(lambda totals, tile, panel, scale, minimum, d, s: (totals, generate))


STEP_MANY, STEP_SOME = (8, 2) if UNIT.startswith("avx512") else (3, 2)


def _sum_by_dots(builder: Any, tile: Any, word_of: Word, steps: int, tokens: int) -> Values:
    ways = 1 if tokens > 4 else 2
    zero = ir.Constant(vector_of(I32, 16), None)
    sums: Values = [zero] * (ways * tokens)
    kind = vector_of(I8, 64)
    for step in range(steps):
        w = builder.load(pointer(builder, offset_by(builder, tile, 64 * step), kind), align=1)
        for token in range(tokens):
            x = builder.bitcast(splat_llvm(builder, word_of(step, token), 16), kind)
            at = token * ways + step % ways
            sums[at] = dot_wide_llvm(builder, sums[at], w, x)
    if ways == 1:
        return sums
    return [builder.add(sums[2 * token], sums[2 * token + 1]) for token in range(tokens)]


def add_rows(columns: int, tokens: int, bits: int) -> Any:
    """totals + scale * d * sums - minimum * s of a group of columns, for tokens whose rows entries tell."""

    def generate(builder: Any, totals: Values, tile: Any, entries: Any, first: Any, columns_: Any, scale: Any, minimum: Any) -> Values:
        rows = [entry_llvm(builder, entries, token, ENTRY.activation, entries.type) for token in range(tokens)]
        places = [builder.add(row, first) for row in rows]

        def word_of(step: int, token: int) -> Any:
            return load_word(builder, places[token], 4 * step)

        if PAIRS and bits:
            sums = _sum_by_pairs(builder, tile, word_of, columns // 4, tokens, bits)
        else:
            sums = _sum_by_dots(builder, tile, word_of, columns // 4, tokens)
        d = builder.add(columns_, builder.shl(builder.lshr(first, ir.Constant(first.type, 5)), ir.Constant(first.type, 2)))
        s = builder.add(columns_, builder.lshr(columns_, ir.Constant(first.type, 3 if columns == 32 else 2)))
        s = builder.add(s, builder.lshr(first, ir.Constant(first.type, 3 if columns == 32 else 2)))
        less, new = builder.fneg(minimum), []
        for row, total, whole in zip(rows, totals, sums, strict=True):
            factor = builder.fmul(scale, lane_llvm(builder, builder.add(row, d), 0))
            total = fma_llvm(builder, less, lane_llvm(builder, builder.add(row, s), 0), total)
            new.append(fma_llvm(builder, builder.sitofp(whole, total.type), factor, total))
        return new

    return intrinsic(lambda totals, tile, entries, first, columns, scale, minimum: (totals, generate))


@intrinsic
def load_totals(address: Any, constant: Any) -> Any:
    """f32x16 totals of so many tokens, one behind the other in memory."""
    count = constant.literal_value

    def generate(builder: Any, address: Any, _: Any) -> Values:
        kind = vector_llvm(f32x16)
        return [builder.load(pointer(builder, offset_by(builder, address, 64 * i), kind), align=1) for i in range(count)]

    return (f32x16, count), generate


@intrinsic
def store_totals(totals: Any, address: Any) -> Any:
    """Write them there."""

    def generate(builder: Any, totals: Values, address: Any) -> None:
        for i, total in enumerate(totals):
            builder.store(total, pointer(builder, offset_by(builder, address, 64 * i), total.type), align=1)

    return None, generate
