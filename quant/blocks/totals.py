"""The order in which the products of a row are added up: one for all ways to multiply, so that these agree to the bit.

Columns that share a scale are a group, of 32 or of 16; so 256 columns are 8 or 16 groups, and each has a total of its own.
Products within a group are whole numbers, whose sum has no order. Then, 256 columns after the other,

    total = total - minimum * s, and total = total + (scale * d) * sum        each rounded once

where d and s are the activation's scale and sum (see quant.activation). At the end halves of the totals are added to each
other until one is left. Groups behind the last whole 256 columns have one total together, which is added last.

Row by row, totals of a row are lanes of a vector (here). Tile by tile, lanes are rows (quant.kernels.step_tiles).
Row by row for several tokens, they are groups again, in another order (quant.blocks.step_rows).
"""

from __future__ import annotations

from typing import Any

from quant.activation import scales_of, sums16_of, sums32_of
from quant.jit import inline, intrinsic
from quant.simd import call_llvm, fma, load_f32x8, load_f32x16, mul, permute, to_f32

_TWICE = permute([lane // 2 for lane in range(16)])


@intrinsic
def less_product(a: Any, b: Any, c: Any) -> Any:
    """c - a * b, rounded once."""

    def generate(builder: Any, a: Any, b: Any, c: Any) -> Any:
        return call_llvm(builder, f"llvm.fma.v{a.type.count}f32", a.type, [builder.fneg(a), b, c])

    return a, generate


@intrinsic
def fma1(a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once, of single float32."""
    return c, lambda builder, a, b, c: call_llvm(builder, "llvm.fma.f32", c.type, [a, b, c])


@inline
def of_groups_of_32(x, columns, b):
    """d and s of the eight groups of the b-th 256 columns of the activation row at x, f32x8 each."""
    return load_f32x8(scales_of(x, columns) + 32 * b), load_f32x8(sums32_of(x, columns) + 32 * b)


@inline
def of_groups_of_16(x, columns, b):
    """Likewise of 16 groups, f32x16 each."""
    return _TWICE(load_f32x8(scales_of(x, columns) + 32 * b)), load_f32x16(sums16_of(x, columns) + 64 * b)


@inline
def add_groups(total, sums, scale, minimum, d, s):
    """The totals with 256 columns more, a lane for each group; sums: of products, i32 lanes."""
    return fma(to_f32(sums), mul(scale, d), less_product(minimum, s, total))
