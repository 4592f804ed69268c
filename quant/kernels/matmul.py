"""Dense matrices times activations. Matrices with one input share a record, so that threads meet once for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quant.atomics import call
from quant.jit import Kernel, inline, kernel
from quant.kernels.multiply import ROWS, multiply_kernel, pad_table, scratch_bytes, set_entry, table_bytes
from quant.kernels.panels import pack
from quant.kernels.share import COUNTER_WORDS, first_of, take
from quant.plan import Activation, Operand, Plan
from quant.simd import add, load_f32, load_f32x16, load_i64, mul, splat, store_f32, store_f32x16
from quant.weights import Matrix

# A segment of the record's table, int64: two kernels (dot_rows, or unpack_tile and multiply); w, rows, row bytes,
# columns, group; x, y, the strides of x and y, whether results are added to y, the rest of x or 0; panels of x and of its
# rest, or 0; a bias or 0, and what every product is multiplied with (float32 bits).
_SEGMENT_BYTES = 8 * 17
_TWICE_ROWS = 16  # that meet x and then its rest: they must still be in the first-level cache


_TURNS = 6  # pieces that each thread takes on average: enough for even ends, few enough to stream long


@inline
def _part_of(segment, rank, size, unit):
    """First and last row of a rank, on borders of `unit` rows."""
    rows = load_i64(segment + 24)
    units = (rows + unit - 1) // unit
    return min(first_of(rank, size, units) * unit, rows), min(first_of(rank + 1, size, units) * unit, rows)


@inline
def _dot_rows(s, first, last, x, accumulate):
    row_bytes = load_i64(s + 32)
    w, y = load_i64(s + 16) + first * row_bytes, load_i64(s + 64) + 4 * first
    call(load_i64(s), (w, last - first, load_i64(s + 40), x, y, load_f32(s + 128), accumulate))


@inline
def _add_bias(s, first, last, accumulate):
    """One token's results begin with scale * bias, added to what is there if accumulate is not 0."""
    bias, y, scale = load_i64(s + 120), load_i64(s + 64), load_f32(s + 128)
    for r in range(first, last):
        before = load_f32(y + 4 * r) if accumulate else np.float32(0)
        store_f32(y + 4 * r, before + scale * load_f32(bias + 4 * r))


@inline
def _add_bias_tile(s, r, tokens, accumulate):
    """The same for 16 rows of many tokens; rows of y and the bias are padded to as many."""
    bias, y, stride = load_i64(s + 120), load_i64(s + 64) + 4 * r, load_i64(s + 80)
    b = mul(splat(load_f32(s + 128)), load_f32x16(bias + 4 * r))
    for t in range(tokens):
        store_f32x16(y + t * stride, add(load_f32x16(y + t * stride), b) if accumulate else b)


@kernel
def matmul_step(rank, size, segments, count):
    """One token: every thread streams its share of the rows of each matrix."""
    for i in range(count):
        s = segments + i * _SEGMENT_BYTES
        first, last = _part_of(s, rank, size, 1)
        x, accumulate, rest = load_i64(s + 56), load_i64(s + 88), load_i64(s + 96)
        if load_i64(s + 120):
            _add_bias(s, first, last, accumulate)
            accumulate = 1
        if rest == 0:
            _dot_rows(s, first, last, x, accumulate)
            continue
        for r in range(first, last, _TWICE_ROWS):
            end = min(last, r + _TWICE_ROWS)
            _dot_rows(s, r, end, x, accumulate)
            _dot_rows(s, r, end, rest, 1)


@inline
def _tiles_of(segment):
    return (load_i64(segment + 24) + ROWS - 1) // ROWS


@inline
def _fill_table(table, segment, tokens, spare):
    x, y, x_stride, y_stride = (
        load_i64(segment + 56), load_i64(segment + 64), load_i64(segment + 72), load_i64(segment + 80),
    )  # fmt: skip
    for t in range(tokens):
        set_entry(table, t, x + t * x_stride, y + t * y_stride, load_f32(segment + 128))
    pad_table(table, tokens, x, spare)


@inline
def _meet_tiles(s, first, last, table, tokens, memory):
    """Tiles first to last of a matrix."""
    rows, row_bytes, bias, adds = load_i64(s + 24), load_i64(s + 32), load_i64(s + 120), load_i64(s + 88)
    for tile in range(first, last):
        r = tile * ROWS
        if bias:
            _add_bias_tile(s, r, tokens, adds)
        call(
            load_i64(s + 8),
            (
                load_i64(s), load_i64(s + 16) + r * row_bytes, row_bytes, min(ROWS, rows - r), load_i64(s + 40),
                load_i64(s + 48), table, load_i64(s + 104), load_i64(s + 112), tokens, 4 * r, 1 if bias else adds, memory,
            ),
        )  # fmt: skip


@kernel
def matmul_rows(rank, size, segments, count, run, counter, scratch, scratch_stride, table_size, spare_size):
    """Many tokens: threads take tiles of rows, of all matrices in order, and unpack them once for all tokens."""
    tokens, total = load_i64(run), 0
    for i in range(count):
        total += _tiles_of(segments + i * _SEGMENT_BYTES)
    table = scratch + rank * scratch_stride
    spare = table + table_size
    grain = total // (size * _TURNS) + 1
    if counter == 0:
        grain = (total + size - 1) // size
    begin = take(counter, grain) if counter else rank * grain
    while begin < total:
        before = 0
        for i in range(count):
            s = segments + i * _SEGMENT_BYTES
            tiles = _tiles_of(s)
            first, last = max(begin - before, 0), min(begin + grain - before, tiles)
            if first < last:
                _fill_table(table, s, tokens, spare)
                _meet_tiles(s, first, last, table, tokens, spare + spare_size)
            before += tiles
        begin = take(counter, grain) if counter else total


def matmul(plan: Plan, x: Activation, matrices: Sequence[tuple[Matrix, Activation]], scale: float = 1.0) -> None:
    """For each (w [n, k], y [tokens, n]): y = scale * (x w^T + bias of w); x is [tokens, k]."""
    _add(plan, x, matrices, scale, accumulate=False)


def add_matmul(plan: Plan, x: Activation, w: Matrix, y: Activation, scale: float = 1.0) -> None:
    """y [tokens, n] += scale * (x w^T + bias), w [n, k], with all of x [tokens, k]: its quantized form and the rest."""
    _add(plan, x, [(w, y)], scale, accumulate=True)


def _add(
    plan: Plan, x: Activation, matrices: Sequence[tuple[Matrix, Activation]], scale: float, accumulate: bool
) -> None:
    plan.watch([w.name for w, _ in matrices], x)
    segments = np.zeros((len(matrices), _SEGMENT_BYTES // 8), np.int64)
    segments[:, 16] = np.float32(scale).view(np.int32)
    for segment, (w, y) in zip(segments, matrices, strict=True):
        if w.columns != x.columns or w.rows != y.columns or y.tokens < plan.tokens:
            raise ValueError(f"[{x.tokens}, {x.columns}] x [{w.rows}, {w.columns}] -> [{y.tokens}, {y.columns}]")
        kind = w.format.activation
        rest = x.read("rest").ctypes.data if accumulate and kind == "q8" else 0
        segment[2:13] = (
            w.address, w.rows, w.row_bytes, w.columns, w.format.group, x.read(kind).ctypes.data,
            y.read("f32").ctypes.data, x.stride(kind), y.stride("f32"), accumulate, rest,
        )  # fmt: skip
        if w.bias is not None:
            bias = np.pad(w.bias.astype(np.float32), (0, -w.rows % ROWS))
            segment[15] = bias.ctypes.data
            plan.keep(bias)
        plan.weight_bytes += w.data.nbytes
        plan.keep(w, x, y)
    formats = [w.format for w, _ in matrices]
    if plan.tokens == 1:
        plan.add(matmul_step, _with_kernels(plan, segments, [(kind.dot_rows,) for kind in formats]), len(matrices))
        return
    counter: Operand = 0
    for name, kind, column in (("dense", "q8", 13), ("dense rest", "rest", 14)):
        wants = [w.format.activation == "q8" and (kind == "q8" or accumulate) for w, _ in matrices]
        if any(wants):
            counter = plan.buffer("dense counter", COUNTER_WORDS, np.int64)
            panels = pack(plan, f"{name} {x.columns}", x, kind, counter=counter)
            segments[wants, column] = panels.ctypes.data
    table_size = -(-table_bytes(plan.tokens) // 64) * 64
    spare_size = 64 * max(-(-w.rows // ROWS) for w, _ in matrices)  # a result of the widest matrix
    scratch = plan.scratch(table_size + spare_size + scratch_bytes(x.columns))
    kernels = [(kind.unpack_tile, multiply_kernel(kind)) for kind in formats]
    filled = _with_kernels(plan, segments, kernels)
    plan.add(matmul_rows, filled, len(matrices), plan.run, counter, *scratch, table_size, spare_size)


def _with_kernels(plan: Plan, segments: NDArray[np.int64], kernels: Sequence[Sequence[Kernel]]) -> Operand:
    """The segments, with the kernels' addresses put in once the plan is sealed."""
    for used in (used for row in kernels for used in row):
        plan.use(used)

    def filled() -> NDArray[np.int64]:
        for segment, row in zip(segments, kernels, strict=True):
            segment[: len(row)] = [used.address for used in row]
        return segments

    return filled
