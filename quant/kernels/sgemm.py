"""Small float32 matrix products inside kernels: c (+)= a b, all row-major, strides in bytes.

Every element is a chain of fused multiplications and additions along `inner`, from 0 on, so its bits do not depend on the block
of c that it is made in.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.atomics import call
from quant.declarations import vector_llvm
from quant.int8_dot import UNIT
from quant.jit import function, inline, intrinsic
from quant.simd import F32, constant_of, f32x16, pointer, splat_llvm
from quant.tile import fma_llvm, offset_by

# Rows and vectors of 16 columns whose sums fit into registers together.
_ROWS, _VECTORS = (8, 2) if UNIT.startswith("avx512") else (6, 1)
_ROW_VECTORS = 4  # of a row that is left over: a single sum would wait for itself


def _block(rows: int, vectors: int) -> tuple[Any, Any, Any]:
    """Declare intrinsics: `rows` times `vectors` sums of 0; the same with products of a column of a and a row of b; into c."""
    count, zero = rows * vectors, constant_of(vector_llvm(f32x16), 0.0)

    def add(builder: Any, sums: Any, a: Any, a_stride: Any, b: Any) -> list[Any]:
        places = (pointer(builder, offset_by(builder, b, 64 * i), zero.type) for i in range(vectors))
        columns, new = [builder.load(place, align=1) for place in places], []
        for row in range(rows):
            x = splat_llvm(builder, builder.load(pointer(builder, a, F32), align=1), 16)
            new += [fma_llvm(builder, x, column, sums[vectors * row + i]) for i, column in enumerate(columns)]
            a = builder.add(a, a_stride)
        return new

    def store(builder: Any, sums: Any, c: Any, c_stride: Any, accumulate: Any) -> None:
        adds = builder.icmp_signed("!=", accumulate, ir.Constant(accumulate.type, 0))
        for row in range(rows):
            for i in range(vectors):
                place, value = pointer(builder, offset_by(builder, c, 64 * i), zero.type), sums[vectors * row + i]
                more = builder.fadd(builder.load(place, align=1), value)
                builder.store(builder.select(adds, more, value), place, align=1)
            c = builder.add(c, c_stride)

    return (
        intrinsic(lambda: ((f32x16, count), lambda _builder: [zero] * count)),
        intrinsic(lambda sums, a, a_stride, b: (sums, add)),
        intrinsic(lambda sums, c, c_stride, accumulate: (None, store)),
    )


_ZEROS, _ADD, _STORE = _block(_ROWS, _VECTORS)
_ZEROS_1, _ADD_1, _STORE_1 = _block(_ROWS, 1)
_ROW_ZEROS, _ROW_ADD, _ROW_STORE = _block(1, _ROW_VECTORS)
_ROW_ZEROS_1, _ROW_ADD_1, _ROW_STORE_1 = _block(1, 1)


@inline
def _multiply(zeros, add, store, a, a_stride, b, b_stride, c, c_stride, inner, accumulate):
    """One block of c."""
    sums = zeros()
    for _ in range(inner):
        sums = add(sums, a, a_stride, b)
        a += 4
        b += b_stride
    store(sums, c, c_stride, accumulate)


@function("p" * 10)
def sgemm_kernel(a, a_stride, b, b_stride, c, c_stride, rows, columns, inner, accumulate):
    """a [rows, inner], b [inner, columns], c [rows, columns]; columns is a multiple of 16."""
    whole, vectors, j = rows // _ROWS * _ROWS, columns // 16, 0
    while j < vectors:
        wide = vectors - j >= _VECTORS
        for i in range(0, whole, _ROWS):
            x, y = a + i * a_stride, c + i * c_stride + 64 * j
            if wide:
                _multiply(_ZEROS, _ADD, _STORE, x, a_stride, b + 64 * j, b_stride, y, c_stride, inner, accumulate)
            else:
                _multiply(_ZEROS_1, _ADD_1, _STORE_1, x, a_stride, b + 64 * j, b_stride, y, c_stride, inner, accumulate)
        j += _VECTORS if wide else 1
    for i in range(whole, rows):
        x, y, j = a + i * a_stride, c + i * c_stride, 0
        while j < vectors:
            if vectors - j >= _ROW_VECTORS:
                _multiply(
                    _ROW_ZEROS, _ROW_ADD, _ROW_STORE, x, 0, b + 64 * j, b_stride, y + 64 * j, 0, inner, accumulate
                )
                j += _ROW_VECTORS
            else:
                _multiply(
                    _ROW_ZEROS_1, _ROW_ADD_1, _ROW_STORE_1, x, 0, b + 64 * j, b_stride, y + 64 * j, 0, inner, accumulate
                )
                j += 1


@inline
def sgemm(kernel, a, a_stride, b, b_stride, c, c_stride, rows, columns, inner, accumulate):
    """Call `sgemm_kernel` by its address: compiled once, it would cost a second wherever it were merged."""
    call(kernel, (a, a_stride, b, b_stride, c, c_stride, rows, columns, inner, accumulate))
