"""Small float32 matrix products inside kernels: c (+)= a b, all row-major, strides in bytes."""

from __future__ import annotations

from quant.atomics import call
from quant.jit import function, inline
from quant.simd import add, broadcast_f32, fma, load_f32x16, store_f32x16, zero_f32x16


@inline
def _store(c, value, accumulate):
    store_f32x16(c, add(load_f32x16(c), value) if accumulate else value)


@inline
def _rows4(a, a_stride, b, b_stride, c, c_stride, inner, accumulate):
    """4 rows by 32 columns: eight sums in registers."""
    s00, s01, s10, s11 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    s20, s21, s30, s31 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for k in range(inner):
        b0, b1 = load_f32x16(b + k * b_stride), load_f32x16(b + k * b_stride + 64)
        x0, x1 = broadcast_f32(a + 4 * k), broadcast_f32(a + a_stride + 4 * k)
        x2, x3 = broadcast_f32(a + 2 * a_stride + 4 * k), broadcast_f32(a + 3 * a_stride + 4 * k)
        s00, s01, s10, s11 = fma(x0, b0, s00), fma(x0, b1, s01), fma(x1, b0, s10), fma(x1, b1, s11)
        s20, s21, s30, s31 = fma(x2, b0, s20), fma(x2, b1, s21), fma(x3, b0, s30), fma(x3, b1, s31)
    _store(c, s00, accumulate)
    _store(c + 64, s01, accumulate)
    _store(c + c_stride, s10, accumulate)
    _store(c + c_stride + 64, s11, accumulate)
    _store(c + 2 * c_stride, s20, accumulate)
    _store(c + 2 * c_stride + 64, s21, accumulate)
    _store(c + 3 * c_stride, s30, accumulate)
    _store(c + 3 * c_stride + 64, s31, accumulate)


@inline
def _row1(a, b, b_stride, c, inner, accumulate):
    """1 row by 16 columns."""
    s = zero_f32x16()
    for k in range(inner):
        s = fma(broadcast_f32(a + 4 * k), load_f32x16(b + k * b_stride), s)
    _store(c, s, accumulate)


@function("p" * 10)
def sgemm_kernel(a, a_stride, b, b_stride, c, c_stride, rows, columns, inner, accumulate):
    """a [rows, inner], b [inner, columns], c [rows, columns]; columns is a multiple of 16."""
    whole_rows, whole_columns = rows // 4 * 4, columns // 32 * 32
    for j in range(0, whole_columns, 32):
        for i in range(0, whole_rows, 4):
            at = c + i * c_stride + 4 * j
            _rows4(a + i * a_stride, a_stride, b + 4 * j, b_stride, at, c_stride, inner, accumulate)
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns, 16):
            _row1(a + i * a_stride, b + 4 * j, b_stride, c + i * c_stride + 4 * j, inner, accumulate)


@inline
def sgemm(kernel, a, a_stride, b, b_stride, c, c_stride, rows, columns, inner, accumulate):
    """Call `sgemm_kernel` by its address: compiled once, it would cost a second wherever it were merged."""
    call(kernel, (a, a_stride, b, b_stride, c, c_stride, rows, columns, inner, accumulate))
