"""dot_rows, unpack_rows and unpack_tile of types whose columns are signed points of a grid: block by block, or, where a
lookup finds the points of two blocks at once, in pairs.

A format tells what differs by helpers:

load(w)         -> four parts, their signs (see quant.blocks.signs) and the scales of a block
load(w, second) -> the same of two blocks, each as a tuple of the three; the second may be the first again
by              -> dot_by_32 or dot_by_16 of quant.blocks.signs: the dot product with a scale for 32 or for 16 columns
store, turn     -> store_by_32, turn_by_32, or by_16: how a row's scales are stored, and those of 16 rows transposed
"""

from __future__ import annotations

from quant.activation import scales_of
from quant.blocks.rows import emit
from quant.blocks.signs import OFFSET, interleave, offset, store_parts, tile_minima
from quant.jit import inline
from quant.simd import add, mul, prefetch, splat, splat8, store_f32x8, store_f32x16, sum_lanes, zero_f32x16
from quant.tile import transpose8, transpose16

_AHEAD = 2112  # bytes: prefetch distance


@inline
def store_by_32(scale, minimum, scales):
    """Scales of 32 columns each, and unless it is 0 their minima."""
    store_f32x8(scale, scales)
    if minimum:
        store_f32x8(minimum, mul(scales, splat8(OFFSET)))


@inline
def store_by_16(scale, minimum, scales):
    """The same for 16 columns each."""
    store_f32x16(scale, scales)
    if minimum:
        store_f32x16(minimum, mul(scales, splat(OFFSET)))


@inline
def turn_by_32(rows, scales):
    """Scales of 16 rows -> [8, 16 rows]."""
    transpose8(rows, 32, scales, 64)


@inline
def turn_by_16(rows, scales):
    """Scales of 16 rows -> [16, 16 rows]."""
    transpose16(rows, 64, scales, 64)


@inline
def dot_singles(w, rows, columns, x, y, alpha, accumulate, block, load, by):
    """dot_rows of quant.formats; block: the type's declaration."""
    d_x = scales_of(x, columns)
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for b in range(columns // 256):
            for line in range(0, block.bytes, 64):
                prefetch(w + _AHEAD + line)
            parts, signs, scales = load(w)
            even, odd = by(parts, signs, scales, x + 256 * b, d_x + 32 * b, even, odd)
            w += block.bytes
        emit(y + 4 * r, sum_lanes(add(even, odd)), alpha, accumulate)


@inline
def dot_pairs(w, rows, columns, x, y, alpha, accumulate, block, load, by):
    """The same, two blocks at a time."""
    d_x, blocks = scales_of(x, columns), columns // 256
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for b in range(0, blocks, 2):
            for line in range(0, 2 * block.bytes, 64):
                prefetch(w + _AHEAD + line)
            second, at, d = w + block.bytes if b + 1 < blocks else w, x + 256 * b, d_x + 32 * b
            first, other = load(w, second)
            even, odd = by(first[0], first[1], first[2], at, d, even, odd)
            if b + 1 < blocks:
                even, odd = by(other[0], other[1], other[2], at + 256, d + 32, even, odd)
            w = second + block.bytes
        emit(y + 4 * r, sum_lanes(add(even, odd)), alpha, accumulate)


@inline
def _store(block, q, step, scale, minimum, store):
    parts, signs, scales = block
    store(scale, minimum, scales)
    store_parts(offset(parts, signs), q, step)


@inline
def unpack_singles(w, rows, columns, q, scale, minimum, block, groups, load, store):
    """unpack_rows of quant.formats; groups: scales in a block."""
    for b in range(rows * columns // 256):
        _store(load(w), q + 256 * b, 64, scale + 4 * groups * b, minimum + 4 * groups * b, store)
        w += block.bytes


@inline
def unpack_pairs(w, rows, columns, q, scale, minimum, block, groups, load, store):
    """The same, with what loads two blocks."""
    for b in range(rows * columns // 256):
        _store(load(w, w)[0], q + 256 * b, 64, scale + 4 * groups * b, minimum + 4 * groups * b, store)
        w += block.bytes


@inline
def tile_singles(w, row_bytes, columns, tile, scales, minima, scratch, block, groups, load, store, turn):
    """unpack_tile of quant.formats; groups: scales in a block."""
    for _ in range(columns // 256):
        for r in range(16):
            _store(load(w + r * row_bytes), tile + 64 * r, 1024, scratch + 4 * groups * r, 0, store)
        _finish(tile, scratch, scales, minima, groups, turn)
        w, tile, scales, minima = w + block.bytes, tile + 4096, scales + 64 * groups, minima + 64 * groups


@inline
def tile_pairs(w, row_bytes, columns, tile, scales, minima, scratch, block, groups, load, store, turn):
    """The same, two rows at a time."""
    for _ in range(columns // 256):
        for r in range(0, 16, 2):
            first, second = load(w + r * row_bytes, w + (r + 1) * row_bytes)
            _store(first, tile + 64 * r, 1024, scratch + 4 * groups * r, 0, store)
            _store(second, tile + 64 * r + 64, 1024, scratch + 4 * groups * (r + 1), 0, store)
        _finish(tile, scratch, scales, minima, groups, turn)
        w, tile, scales, minima = w + block.bytes, tile + 4096, scales + 64 * groups, minima + 64 * groups


@inline
def _finish(tile, rows, scales, minima, groups, turn):
    interleave(tile)
    turn(rows, scales)
    tile_minima(scales, groups, minima)
