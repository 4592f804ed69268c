"""What queries make of one block of positions: largest score m, sum of exp(score - m), sum of values weighted by these.

Keys and values are converted to float32 once for all queries, as many at a time as the nearest cache has room for.
"""

from __future__ import annotations

from quant.attention_tile import (
    ROWS,
    WIDE,
    add_product,
    add_products,
    add_value,
    add_values,
    narrow_sums,
    store_lane_sums,
    store_sums,
    wide_sums,
)
from quant.jit import inline
from quant.kernels.heads import HEADS, caches_of, shape_of
from quant.kernels.kv_cache import first_columns, load_unscaled, number_of_values, scale_of
from quant.kernels.softmax import BLOCK, LOWEST, softmax_block
from quant.simd import add, load_f32, load_f32x16, load_i64, mul, prefetch_l2, splat, store_f32, store_f32x16
from quant.tile import ENTRY

_KEYS = 16  # that are converted at a time
_FLOAT32 = 2  # the kind of caches that need not be converted, see quant.kernels.kv_cache
_ROW = 4 * BLOCK  # bytes of a query's scores


@inline
def tokens_at_a_time(group):
    """How many tokens attend to a block together: as many as make 64 queries, of which scores take 16 KiB."""
    return max(1, 64 // group)


@inline
def padded(count):
    """So many queries, and some that fill the last tile."""
    return (count + ROWS - 1) // ROWS * ROWS


@inline
def entry_bytes(width):
    """Bytes of what a block gives for one query: largest score and sum, padded to 64 bytes, and the sum of values."""
    return 4 * (width + 16)


@inline
def scratch_bytes(group, width, values):
    """Memory that `attend_block` needs."""
    queries, near = padded(tokens_at_a_time(group) * group), max(4 * _KEYS * width, 64 * WIDE * BLOCK)
    return queries * (ENTRY.bytes + 2 * _ROW) + 3 * _ROW + entry_bytes(values) + near


@inline
def _prefetch(address, size):
    """Prefetch so many bytes while something else is computed: a cache row is too short for the hardware to foresee the next."""
    for line in range(0, size, 64):
        prefetch_l2(address + line)


@inline
def _unpack(row, first, last, width, kind, out):
    """Columns first to last of a row, yet to be multiplied by its scale -> out float32."""
    for c in range(first, last, 16):
        store_f32x16(out + 4 * (c - first), load_unscaled(row, c, width, kind))


@inline
def _products(entries, keys, stride, begin, end, scores, ahead, share):
    """q . k of a tile's queries and keys, columns begin to end -> scores; `share` bytes ahead are prefetched for each 16."""
    sums = wide_sums()
    for c in range(begin, end, 16):
        sums = add_products(sums, entries, keys, stride, 4 * c)
        _prefetch(ahead + c // 16 * share, share)
    store_lane_sums(sums, scores, _ROW)


@inline
def _scores(entries, count, heads, k, first, last, v, scores, near):
    """q . k of `count` queries and the keys of positions first to last -> scores; those of other positions mean nothing.

    Of keys whose first columns have a scale of their own, theirs stand behind the scores of all queries.
    """
    _, _, width, _ = shape_of(heads)
    _, _, k_row, v_row, _, kind = caches_of(heads)
    begin, apart = first_columns(kind), _ROW * padded(count)
    for p in range(first // _KEYS * _KEYS, last, _KEYS):
        keys, stride, start, stop = near, 4 * width, max(first, p), min(last, p + _KEYS)
        if kind == _FLOAT32 and stop - start == _KEYS:
            keys, stride = k + k_row * p, k_row
        else:
            for i in range(start, stop):
                _unpack(k + k_row * i, 0, width, width, kind, near + 4 * width * (i - p))
        for r in range(0, count, ROWS):
            tile, at = entries + ENTRY.bytes * r, scores + _ROW * r + 4 * p
            for i in range(0, _KEYS, WIDE):
                x, y, ahead = keys + stride * i, at + 4 * i, v + v_row * (p + i)
                share = 0 if r else (16 * WIDE * v_row + width - 1) // width
                for part in range(2 if begin else 1):
                    c, end = (0, begin) if part else (begin, width)
                    _products(tile, x, stride, c, end, y + part * apart, ahead, share)


@inline
def _one_product(entries, key, width, kind, begin, end, scores):
    """q . k of a tile's queries and one key, which is converted for that."""
    sums = narrow_sums()
    for c in range(begin, end, 16):
        sums = add_product(sums, entries, 4 * c, load_unscaled(key, c, width, kind))
    store_lane_sums(sums, scores, _ROW)


@inline
def _scores_of_tile(entries, heads, k, first, last, v, scores):
    """The same of one tile of queries."""
    _, _, width, _ = shape_of(heads)
    _, _, k_row, v_row, _, kind = caches_of(heads)
    begin = first_columns(kind)
    for p in range(first, last):
        _prefetch(v + v_row * p, v_row)
        for part in range(2 if begin else 1):
            c, end = (0, begin) if part else (begin, width)
            _one_product(entries, k + k_row * p, width, kind, c, end, scores + 4 * p + _ROW * ROWS * part)


@inline
def _scale(scores, apart, scales, kind, scale):
    """Sums of products of one query -> scores, in place; apart: those of columns that have a scale of their own."""
    for p in range(0, _ROW, 64):
        x = load_f32x16(scores + p)
        if kind >= 3:
            x = mul(load_f32x16(scales + p), x)
            if first_columns(kind):
                x = add(x, mul(load_f32x16(scales + _ROW + p), load_f32x16(apart + p)))
        store_f32x16(scores + p, mul(splat(scale), x))


@inline
def _load_scales(heads, k, v, first, last, scales):
    """What rows of whole numbers are multiplied by -> scales float32 [3, BLOCK]: of keys, of their first columns, of values."""
    _, _, width, values = shape_of(heads)
    _, _, k_row, v_row, _, kind = caches_of(heads)
    for p in range(first, last):
        store_f32(scales + 4 * p, scale_of(k + k_row * p, first_columns(kind), width, kind))
        store_f32(scales + _ROW + 4 * p, scale_of(k + k_row * p, 0, width, kind))
        store_f32(scales + 2 * _ROW + 4 * p, scale_of(v + v_row * p, 0, values, number_of_values(kind)))


@inline
def _weigh(entries, count, heads, first, last, scores, scales):
    """Scores of each query -> its weights of values, in place; the largest score and the sum -> its result."""
    _, _, _, _, _, kind = caches_of(heads)
    scale, softcap = load_f32(heads + HEADS.scale), load_f32(heads + HEADS.softcap)
    apart = _ROW * padded(count)
    for r in range(count):
        row, result = scores + _ROW * r, load_i64(entries + ENTRY.bytes * r + ENTRY.result)
        _scale(row, row + apart, scales, kind, scale)
        largest, total = softmax_block(row, first, last, softcap, LOWEST)
        store_f32(result, largest)
        store_f32(result + 4, total)
        if kind >= 3:
            for p in range(0, _ROW, 64):
                store_f32x16(row + p, mul(load_f32x16(scales + 2 * _ROW + p), load_f32x16(row + p)))


@inline
def _sum_values(zeros, entries, count, values, stride, column, first, last, scores, ahead, share):
    """As many columns as `zeros` has sums for, from `column` on, of values float32, `stride` bytes a position -> results.

    `share` bytes ahead are prefetched for each position.
    """
    for r in range(0, count, ROWS):
        weights, sums = scores + _ROW * r, zeros
        for p in range(first, last):
            sums = add_values(sums, weights + 4 * p, _ROW, values + stride * p)
            if r == 0:
                _prefetch(ahead + share * p, share)
        store_sums(sums, entries + ENTRY.bytes * r, 64 + 4 * column)


@inline
def _values(entries, count, heads, v, first, last, k, scores, near):
    """Sums of the values of positions first to last, with each query's weights -> its result."""
    _, _, _, width = shape_of(heads)
    _, _, k_row, v_row, _, kind = caches_of(heads)
    kind, whole, c = number_of_values(kind), width // (16 * WIDE) * 16 * WIDE, 0
    while c < width:
        columns = 16 * WIDE if c < whole else 16
        rows, stride = near, 4 * columns
        if kind == _FLOAT32:
            rows, stride = v + 4 * c, v_row
        else:
            for p in range(first, last):
                _unpack(v + v_row * p, c, c + columns, width, kind, near + stride * p)
        ahead, share = k + BLOCK * k_row * (width + c) // width, k_row * columns // width
        if c < whole:
            _sum_values(wide_sums(), entries, count, rows, stride, c, first, last, scores, ahead, share)
        else:
            _sum_values(narrow_sums(), entries, count, rows, stride, c, first, last, scores, ahead, share)
        c += columns


@inline
def _values_of_tile(entries, heads, v, first, last, k, scores):
    """The same of one tile of queries."""
    _, _, _, width = shape_of(heads)
    _, _, k_row, v_row, _, kind = caches_of(heads)
    kind, share = number_of_values(kind), k_row * 16 // width
    for c in range(0, width, 16):
        sums, ahead = narrow_sums(), k + BLOCK * k_row * (width + c) // width
        for p in range(first, last):
            sums = add_value(sums, scores + 4 * p, _ROW, load_unscaled(v + v_row * p, c, width, kind))
        _prefetch(ahead, BLOCK * share)
        store_sums(sums, entries, 64 + 4 * c)


@inline
def attend_block(entries, count, heads, k, v, first, last, scratch):
    """Queries attend to positions first to last of a block whose keys and values are at k and v.

    entries: a table of ENTRY, the address of each of `count` queries and of its result, filled up to a whole tile.
    """
    _, _, _, _, _, kind = caches_of(heads)
    scales = scratch + 2 * _ROW * padded(count)
    scores, near = scratch, scales + 3 * _ROW
    if kind >= 3:
        _load_scales(heads, k, v, first, last, scales)
    if count > ROWS:
        _scores(entries, count, heads, k, first, last, v, scores, near)
    else:
        _scores_of_tile(entries, heads, k, first, last, v, scores)
    _weigh(entries, count, heads, first, last, scores, scales)
    if count > ROWS:
        _values(entries, count, heads, v, first, last, k, scores, near)
    else:
        _values_of_tile(entries, heads, v, first, last, k, scores)
