"""What the loops over rows of every block layout share."""

from __future__ import annotations

from quant.int8_dot import UNIT
from quant.jit import inline
from quant.simd import load_f32, load_i64, store_f32
from quant.tile import ENTRY

# Activation rows that dot_few takes together at most: their sums, and a block unpacked, are in registers.
_TOGETHER = 4 if UNIT.startswith("avx512") else 2


@inline
def emit(y, value, alpha, accumulate):
    """Write one result of dot_rows (see quant.formats): alpha * value, added to what is there if accumulate is not 0."""
    result = alpha * value
    store_f32(y, load_f32(y) + result if accumulate else result)


@inline
def few_of(left):
    """How many activation rows dot_few takes together of so many that are left: 4, 2 or 1."""
    return _TOGETHER if left >= _TOGETHER else 2 if left >= 2 else 1


@inline
def _input(entries, i):
    return load_i64(entries + i * ENTRY.bytes + ENTRY.activation)


@inline
def few_inputs(entries, first, together):
    """The activation rows of entries from `first` on, four addresses; those that are not taken repeat the last."""
    last = first + together - 1
    x0, x1 = _input(entries, first), _input(entries, min(first + 1, last))
    return x0, x1, _input(entries, min(first + 2, last)), _input(entries, last)


@inline
def _emit(entries, i, r, value, accumulate):
    entry = entries + i * ENTRY.bytes
    emit(load_i64(entry + ENTRY.result) + 4 * r, value, load_f32(entry + ENTRY.factor), accumulate)


@inline
def emit_few(entries, first, together, r, sums, accumulate):
    """Write the results of weight row r with the activation rows of entries from `first` on; sums: four, or fewer that count."""
    s0, s1, s2, s3 = sums
    _emit(entries, first, r, s0, accumulate)
    if together > 1:
        _emit(entries, first + 1, r, s1, accumulate)
    if together > 2:
        _emit(entries, first + 2, r, s2, accumulate)
        _emit(entries, first + 3, r, s3, accumulate)
