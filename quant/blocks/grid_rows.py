"""dot_rows, unpack_rows and unpack_tile of types whose columns are signed points of a grid: block by block, or, where a
lookup finds the points of two blocks at once, in pairs.

A format tells what differs by helpers:

load(w)         -> four parts, their signs (see quant.blocks.signs) and the scales of a block
load(w, second) -> the same of two blocks, each as a tuple of the three; the second may be the first again
add             -> add_signed_by_32 or _16: a block's products, with a scale for 32 or for 16 columns; of parts without signs
                   add_by_32 or _16, for which `load` gives the parts, their scales and minima
store, turn     -> store_by_32, turn_by_32, or by_16: how a row's scales are stored, and those of 16 rows transposed
"""

from __future__ import annotations

from quant.blocks.blocks256 import parts_in_order
from quant.blocks.group_sums import sums_by_group, sums_of_products
from quant.blocks.rows import emit
from quant.blocks.signs import OFFSET, interleave, offset, store_parts, tile_minima
from quant.blocks.totals import add_groups, of_groups_of_16, of_groups_of_32
from quant.jit import inline
from quant.simd import mul, prefetch, splat, splat8, store_f32x8, store_f32x16, sum_lanes
from quant.tile import transpose8, transpose16

_AHEAD = 2112  # bytes: prefetch distance
_sums_of_32 = sums_by_group([[2 * part + half for half in (0, 0, 1, 1)] for part in range(4)], bits=0)
_sums_of_16 = sums_by_group([range(first, first + 4) for first in (0, 4, 8, 12)], bits=0)


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
def add_by_32(total, loaded, x, columns, b):
    """The totals with a block and the b-th 256 columns of the activation row at x; loaded: four parts, scales and minima."""
    q, scale, minimum = loaded
    d, s = of_groups_of_32(x, columns, b)
    sums = sums_of_products(_sums_of_32, q, parts_in_order(x + 256 * b))
    return add_groups(total, sums, scale, minimum, d, s)


@inline
def add_by_16(total, loaded, x, columns, b):
    """The same, with a scale for 16 columns."""
    q, scale, minimum = loaded
    d, s = of_groups_of_16(x, columns, b)
    sums = sums_of_products(_sums_of_16, q, parts_in_order(x + 256 * b))
    return add_groups(total, sums, scale, minimum, d, s)


@inline
def add_signed_by_32(total, loaded, x, columns, b):
    """The same of parts, signs and scales: OFFSET is added to weights, and taken off as a minimum is."""
    parts, signs, scales = loaded
    return add_by_32(total, (offset(parts, signs), scales, mul(scales, splat8(OFFSET))), x, columns, b)


@inline
def add_signed_by_16(total, loaded, x, columns, b):
    """The same, with a scale for 16 columns."""
    parts, signs, scales = loaded
    return add_by_16(total, (offset(parts, signs), scales, mul(scales, splat(OFFSET))), x, columns, b)


@inline
def dot_singles(w, rows, columns, x, y, alpha, accumulate, block, load, add, zero):
    """dot_rows of quant.formats; block: the type's declaration; zero: no totals, a lane for each scale of a block."""
    for r in range(rows):
        total = zero()
        for b in range(columns // 256):
            for line in range(0, block.bytes, 64):
                prefetch(w + _AHEAD + line)
            total = add(total, load(w), x, columns, b)
            w += block.bytes
        emit(y + 4 * r, sum_lanes(total), alpha, accumulate)


@inline
def dot_pairs(w, rows, columns, x, y, alpha, accumulate, block, load, add, zero):
    """The same, two blocks at a time."""
    blocks = columns // 256
    for r in range(rows):
        total = zero()
        for b in range(0, blocks, 2):
            for line in range(0, 2 * block.bytes, 64):
                prefetch(w + _AHEAD + line)
            second = w + block.bytes if b + 1 < blocks else w
            first, other = load(w, second)
            total = add(total, first, x, columns, b)
            if b + 1 < blocks:
                total = add(total, other, x, columns, b + 1)
            w = second + block.bytes
        emit(y + 4 * r, sum_lanes(total), alpha, accumulate)


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
