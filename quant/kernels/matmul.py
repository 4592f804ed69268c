"""Dense matrices times activations. Matrices with one input share a record, so that threads wait once for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quant.atomics import call
from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.few_rows import few_operands, few_scratch_bytes, multiply_few
from quant.kernels.multiply import entries_bytes, pad_entries, scratch_bytes, set_entry, tile_operands
from quant.kernels.observer import observe
from quant.kernels.panel_products import TILE_ROWS
from quant.kernels.panels import pack
from quant.kernels.partition import COUNTER_WORDS, shares_of, start_of, take_piece
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import add, load_f32, load_f32x16, load_i64, mul, splat, store_f32, store_f32x16
from quant.tile import ENTRY
from quant.weights import MATRIX, Matrix

PRODUCT = Layout(  # of one matrix and its input; a record has one or more, one behind the other
    "matrix",  # its table of MATRIX
    "weights",  # its first row
    "x",  # rows, float32 or q8
    "x_stride",
    "residual",  # the residual of one row of x, which is multiplied, too; or 0
    "panels",  # many q8 rows of x
    "residual_panels",  # and their residuals; or 0
    "y",  # results, float32
    "y_stride",
    "accumulate",  # 1 if they are added to what is there
    "scale",  # float32, of every result
)
_PARTS = 4  # for each thread, of the tiles that are left
_TWICE_ROWS = 16  # that are multiplied with x and then its residual: they must still be in the first-level cache


@inline
def _product(products, i):
    """The i-th of a record's products, and its matrix."""
    product = products + i * PRODUCT.bytes
    return product, load_i64(product + PRODUCT.matrix)


@inline
def _multiply_rows(product, matrix, first, last, x, accumulate):
    """Rows first to last of a matrix times one row of x."""
    w = load_i64(product + PRODUCT.weights) + first * load_i64(matrix + MATRIX.row_bytes)
    y = load_i64(product + PRODUCT.y) + 4 * first
    columns, scale = load_i64(matrix + MATRIX.columns), load_f32(product + PRODUCT.scale)
    call(load_i64(matrix + MATRIX.dot), (w, last - first, columns, x, y, scale, accumulate))


@inline
def _add_bias(product, matrix, first, last, accumulate, row):
    """A token's results begin with scale * bias, added to what is there if accumulate is not 0; row: bytes to those of y."""
    bias, scale = load_i64(matrix + MATRIX.bias), load_f32(product + PRODUCT.scale)
    y = load_i64(product + PRODUCT.y) + row
    for r in range(first, last):
        before = load_f32(y + 4 * r) if accumulate else np.float32(0)
        store_f32(y + 4 * r, before + scale * load_f32(bias + 4 * r))


@inline
def _add_bias_tile(product, matrix, r, tokens, accumulate):
    """The same for 16 rows of many tokens; rows of y and the bias are padded to as many."""
    bias, scale = load_i64(matrix + MATRIX.bias), load_f32(product + PRODUCT.scale)
    y, stride = load_i64(product + PRODUCT.y) + 4 * r, load_i64(product + PRODUCT.y_stride)
    b = mul(splat(scale), load_f32x16(bias + 4 * r))
    for t in range(tokens):
        store_f32x16(y + t * stride, add(load_f32x16(y + t * stride), b) if accumulate else b)


@kernel
def matmul_step(rank, size, products, count):
    """One token: every thread streams its share of the rows of each matrix."""
    for i in range(count):
        product, matrix = _product(products, i)
        rows = load_i64(matrix + MATRIX.rows)
        first, last = start_of(rank, size, rows), start_of(rank + 1, size, rows)
        x, residual = load_i64(product + PRODUCT.x), load_i64(product + PRODUCT.residual)
        accumulate = load_i64(product + PRODUCT.accumulate)
        if load_i64(matrix + MATRIX.bias):
            _add_bias(product, matrix, first, last, accumulate, 0)
            accumulate = 1
        if residual == 0:
            _multiply_rows(product, matrix, first, last, x, accumulate)
            continue
        for r in range(first, last, _TWICE_ROWS):
            end = min(last, r + _TWICE_ROWS)
            _multiply_rows(product, matrix, r, end, x, accumulate)
            _multiply_rows(product, matrix, r, end, residual, 1)


@inline
def _fill_few(entries, product, x, first, tokens):
    """Entries of all tokens for results from row `first` on; x: the first token's row, of x or of its residual."""
    x_stride, y_stride = load_i64(product + PRODUCT.x_stride), load_i64(product + PRODUCT.y_stride)
    y = load_i64(product + PRODUCT.y) + 4 * first
    for t in range(tokens):
        set_entry(entries, t, x + t * x_stride, y + t * y_stride, load_f32(product + PRODUCT.scale))


@kernel
def matmul_few(rank, size, products, count, batch, scratch, scratch_stride):
    """A few tokens of a stepwise plan: every thread streams its share of the rows of each matrix once for all of them."""
    tokens, entries = load_i64(batch + BATCH.tokens), scratch + rank * scratch_stride
    for i in range(count):
        product, matrix = _product(products, i)
        rows, w = load_i64(matrix + MATRIX.rows), load_i64(product + PRODUCT.weights)
        first, last = start_of(rank, size, rows), start_of(rank + 1, size, rows)
        residual, accumulate = load_i64(product + PRODUCT.residual), load_i64(product + PRODUCT.accumulate)
        w += first * load_i64(matrix + MATRIX.row_bytes)
        if load_i64(matrix + MATRIX.bias):
            for t in range(tokens):
                _add_bias(product, matrix, first, last, accumulate, t * load_i64(product + PRODUCT.y_stride))
            accumulate = 1
        _fill_few(entries, product, load_i64(product + PRODUCT.x), first, tokens)
        all_entries = tokens
        if residual:
            _fill_few(entries + tokens * ENTRY.bytes, product, residual, first, tokens)
            all_entries += tokens
        memory = entries + all_entries * ENTRY.bytes
        multiply_few(matrix, w, last - first, entries, all_entries, tokens, accumulate, memory)


@inline
def _tiles_of(matrix):
    return (load_i64(matrix + MATRIX.rows) + TILE_ROWS - 1) // TILE_ROWS


@inline
def _fill_entries(entries, product, tokens, unused):
    x, x_stride = load_i64(product + PRODUCT.x), load_i64(product + PRODUCT.x_stride)
    y, y_stride = load_i64(product + PRODUCT.y), load_i64(product + PRODUCT.y_stride)
    for t in range(tokens):
        set_entry(entries, t, x + t * x_stride, y + t * y_stride, load_f32(product + PRODUCT.scale))
    pad_entries(entries, tokens, x, unused)


@inline
def _multiply_tiles(product, matrix, first, last, entries, tokens, memory):
    """Tiles first to last of a matrix times all tokens."""
    rows, bias = load_i64(matrix + MATRIX.rows), load_i64(matrix + MATRIX.bias)
    multiply, accumulate = load_i64(matrix + MATRIX.multiply), load_i64(product + PRODUCT.accumulate)
    w, row_bytes = load_i64(product + PRODUCT.weights), load_i64(matrix + MATRIX.row_bytes)
    panels, residual = load_i64(product + PRODUCT.panels), load_i64(product + PRODUCT.residual_panels)
    for tile in range(first, last):
        r = tile * TILE_ROWS
        if bias:
            _add_bias_tile(product, matrix, r, tokens, accumulate)
        count, adds = min(TILE_ROWS, rows - r), 1 if bias else accumulate
        call(multiply, (matrix, w + r * row_bytes, count, entries, panels, residual, tokens, 4 * r, adds, memory))


@kernel
def matmul_rows(rank, size, products, count, batch, counter, scratch, scratch_stride, entries_size, unused_size):
    """Many tokens: threads take tiles of rows, of all matrices in order, and unpack them once for all tokens."""
    tokens, total = load_i64(batch + BATCH.tokens), 0
    for i in range(count):
        total += _tiles_of(_product(products, i)[1])
    entries = scratch + rank * scratch_stride
    unused = entries + entries_size
    share = start_of(rank, size, total), start_of(rank + 1, size, total)
    begin, end = take_piece(counter, total, _PARTS * size, 1) if counter else share
    while begin < end:
        before = 0
        for i in range(count):
            product, matrix = _product(products, i)
            tiles = _tiles_of(matrix)
            first, last = max(begin - before, 0), min(end - before, tiles)
            if first < last:
                _fill_entries(entries, product, tokens, unused)
                _multiply_tiles(product, matrix, first, last, entries, tokens, unused + unused_size)
            before += tiles
        begin, end = take_piece(counter, total, _PARTS * size, 1) if counter else (end, end)


def matmul(plan: Plan, x: Activation, matrices: Sequence[tuple[Matrix, Activation]], scale: float = 1.0) -> None:
    """For each (w [n, k], y [tokens, n]): y = scale * (scale of w * x w^T + bias of w); x is [tokens, k]."""
    _add(plan, x, matrices, scale, accumulate=False)


def add_matmul(plan: Plan, x: Activation, w: Matrix, y: Activation, scale: float = 1.0) -> None:
    """y [tokens, n] += scale * (scale of w * x w^T + bias), w [n, k], with all of x [tokens, k]: quantized, and the residual."""
    _add(plan, x, [(w, y)], scale, accumulate=True)


def _add(
    plan: Plan, x: Activation, matrices: Sequence[tuple[Matrix, Activation]], scale: float, accumulate: bool
) -> None:
    observe(plan, [w.name for w, _ in matrices], x)
    for w, y in matrices:
        if w.columns != x.columns or w.rows != y.columns or y.tokens < plan.tokens:
            raise ValueError(f"[{x.tokens}, {x.columns}] x [{w.rows}, {w.columns}] -> [{y.tokens}, {y.columns}]")
        plan.weight_bytes += w.data.nbytes
        plan.keep(w, x, y)
    products = [_operands(plan, x, w, y, scale, accumulate) for w, y in matrices]
    if plan.stepwise:
        shares, tables = (
            shares_of(sum(w.data.nbytes for w, _ in matrices), plan.threads),
            plan.tables(PRODUCT, products),
        )
        if plan.tokens == 1:
            plan.add(matmul_step, tables, len(products), shares=shares)
            return
        scratch = plan.scratch(few_scratch_bytes([w for w, _ in matrices], plan.tokens * (1 + accumulate)))
        plan.add(matmul_few, tables, len(products), plan.batch, *scratch, shares=shares)
        return
    counter: Operand = 0
    if any(w.format.activation == "q8" for w, _ in matrices):
        counter = plan.buffer("dense counter", COUNTER_WORDS, np.int64)
        panels = pack(plan, f"dense {x.columns}", x, "q8", counter=counter)
        residual = pack(plan, f"dense residual {x.columns}", x, "residual", counter=counter) if accumulate else 0
        for product, (w, _) in zip(products, matrices, strict=True):
            if w.format.activation == "q8":
                product |= {"panels": panels, "residual_panels": residual}
    entries_size = -(-entries_bytes(plan.tokens) // 64) * 64
    unused_size = 64 * max(-(-w.rows // TILE_ROWS) for w, _ in matrices)  # a result of the widest matrix
    scratch = plan.scratch(entries_size + unused_size + scratch_bytes(x.columns))
    plan.add(
        matmul_rows,
        plan.tables(PRODUCT, products),
        len(products),
        plan.batch,
        counter,
        *scratch,
        entries_size,
        unused_size,
    )


def _operands(
    plan: Plan, x: Activation, w: Matrix, y: Activation, scale: float, accumulate: bool
) -> dict[str, Operand]:
    """The fields of PRODUCT, with panels of nothing."""
    kind, given = w.format.activation, (few_operands if plan.stepwise else tile_operands)(w)
    return {
        "matrix": plan.table(MATRIX, **given | {"bias": _padded_bias(w)}),
        "weights": w.data,
        "x": x.read(kind),
        "x_stride": x.stride(kind),
        "residual": x.read("residual") if accumulate and kind == "q8" else 0,
        "panels": 0,
        "residual_panels": 0,
        "y": y.read("f32"),
        "y_stride": y.stride("f32"),
        "accumulate": accumulate,
        "scale": float(scale) * w.scale,
    }


def _padded_bias(w: Matrix) -> NDArray[np.float32] | int:
    """float32 [rows, rounded up to whole tiles], as it is added before the scale of w is applied; 0 if there is none."""
    if w.bias is None:
        return 0
    bias: NDArray[np.float32] = (w.bias / w.scale).astype(np.float32)
    return np.pad(bias, (0, -w.rows % TILE_ROWS))
