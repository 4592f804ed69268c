"""Functions of float32 vectors that LLVM has no operation for: exp, and what is made of it.

Written out, and not taken from a library of the system, so that results have the same bits everywhere.
"""

from __future__ import annotations

from typing import Any

from quant.jit import inline, intrinsic
from quant.simd import (
    I32,
    absolute,
    add,
    constant,
    constant_of,
    divide,
    f32x16,
    fma,
    maximum,
    minimum,
    mul,
    round_even,
    sub,
    vector_of,
    zero_f32x16,
)


@intrinsic
def scale_by_power_of_two(vector: Any, exponent: Any) -> Any:
    """f32x16 * 2**exponent, the exponent given as whole float32 lanes in [-126, 127]."""

    def generate(builder: Any, x: Any, n: Any) -> Any:
        words = vector_of(I32, 16)
        biased = builder.add(builder.fptosi(n, words), constant_of(words, 127))
        return builder.fmul(x, builder.bitcast(builder.shl(biased, constant_of(words, 23)), x.type))

    return f32x16, generate


_one, _low, _high = (constant(f32x16, x) for x in (1.0, -87.0, 88.0))
_log2e, _ln2_head, _ln2_tail = (constant(f32x16, x) for x in (1.4426950408889634, 0.693359375, -2.12194440e-4))
_c2, _c3, _c4, _c5, _c6 = (constant(f32x16, 1 / n) for n in (2, 6, 24, 120, 720))


@inline
def exp(x):
    """exp of f32x16, within 3 ulp on [-87, 88], saturating outside (Cody and Waite's reduction, Taylor to x^6)."""
    x = minimum(maximum(x, _low()), _high())
    n = round_even(mul(x, _log2e()))
    r = sub(sub(x, mul(n, _ln2_head())), mul(n, _ln2_tail()))
    p = fma(_c6(), r, _c5())
    p = fma(p, r, _c4())
    p = fma(p, r, _c3())
    p = fma(p, r, _c2())
    p = fma(mul(r, r), p, add(r, _one()))
    return scale_by_power_of_two(p, n)


@inline
def sigmoid(x):
    """1 / (1 + exp(-x)) of f32x16."""
    return divide(_one(), add(_one(), exp(sub(zero_f32x16(), x))))


@inline
def silu(x):
    """x * sigmoid(x) of f32x16."""
    return mul(x, sigmoid(x))


_two = constant(f32x16, 2.0)
_t1, _t2, _t3, _t4, _t5, _t6 = (constant(f32x16, 1 / n) for n in (3, 5, 7, 9, 11, 13))


@inline
def softplus(x):
    """log(1 + exp(x)) of f32x16: max(x, 0) + log(1 + u), u = exp(-|x|), by the series of 2 atanh(u / (2 + u))."""
    u = exp(sub(zero_f32x16(), absolute(x)))
    z = divide(u, add(_two(), u))
    y = mul(z, z)
    p = fma(_t6(), y, _t5())
    p = fma(p, y, _t4())
    p = fma(p, y, _t3())
    p = fma(p, y, _t2())
    p = fma(p, y, _t1())
    p = fma(p, y, _one())
    return add(maximum(x, zero_f32x16()), mul(mul(_two(), z), p))
