"""Vector operations one by one, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, replay

from quant.int8_dot import BIAS, dot_u7, dot_wide
from quant.jit import kernel
from quant.simd import (
    add,
    bit_xor,
    broadcast_f32,
    concat,
    divide,
    fma,
    load_bf16x16,
    load_f16,
    load_f16x16,
    load_f32,
    load_f32x16,
    load_i8x32,
    load_i8x64,
    max_lanes,
    maximum,
    minimum,
    mul,
    permute,
    round_even,
    splat,
    store_f32,
    store_f32x8,
    store_f32x16,
    store_f32x16_as_f16,
    sub,
    sum_lanes,
    to_f32,
    zero_f32x16,
    zero_i32x8,
    zero_i32x16,
)
from quant.tile import transpose16
from quant.vector_math import exp, sigmoid, silu, softplus


def run(kernel, *operands):
    plan = new_plan(1)
    plan.add(kernel, *operands)
    replay(plan)


def result(kernel, shape, *operands):
    """Run a kernel whose last operand is float32 of this shape."""
    out = np.zeros(shape, np.float32)
    run(kernel, *operands, out)
    return out


@kernel
def functions(rank, size, x, count, y):
    """y [4, count] = exp, sigmoid, silu and softplus of x."""
    for c in range(0, 4 * count, 64):
        store_f32x16(y + c, exp(load_f32x16(x + c)))
        store_f32x16(y + 4 * count + c, sigmoid(load_f32x16(x + c)))
        store_f32x16(y + 8 * count + c, silu(load_f32x16(x + c)))
        store_f32x16(y + 12 * count + c, softplus(load_f32x16(x + c)))


def test_exp_is_good_to_three_units_in_the_last_place():
    x = np.concatenate([np.linspace(-87, 88, 160_000), np.linspace(-1, 1, 40_000), [0, -0.0] * 8]).astype(np.float32)
    found, sigmoids, silus, softpluses = result(functions, (4, len(x)), x, len(x))
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(found - exact) / np.spacing(exact.astype(np.float32))).max() < 3.1
    assert (found[x == 0] == 1).all()
    np.testing.assert_allclose(sigmoids, 1 / (1 + 1 / exact), rtol=5e-7)
    np.testing.assert_allclose(silus, x / (1 + 1 / exact), rtol=5e-7)
    np.testing.assert_allclose(softpluses, np.log1p(exact), rtol=5e-7, atol=1e-37)


def test_exp_saturates():
    x = np.array([-np.inf, -1e30, -200, -88, 89, 200, 1e30, np.inf] * 2, np.float32)
    found, sigmoids, silus, softpluses = result(functions, (4, 16), x, 16)
    assert (found[:4] <= np.exp(-86)).all()
    assert (found[:4] >= 0).all()
    assert (found[4:8] > 1e38).all()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(sigmoids[:8], [0] * 4 + [1] * 4, atol=1e-30)
    np.testing.assert_allclose(silus[2:6], [0, 0, 89, 200], atol=1e-30)
    np.testing.assert_allclose(softpluses[:7], [0] * 4 + [89, 200, 1e30], rtol=1e-6, atol=1e-30)


@kernel
def arithmetic(rank, size, a, b, y):
    """y [9, 16]."""
    p, q = load_f32x16(a), load_f32x16(b)
    store_f32x16(y, add(p, q))
    store_f32x16(y + 64, sub(p, q))
    store_f32x16(y + 128, mul(p, q))
    store_f32x16(y + 192, divide(p, q))
    store_f32x16(y + 256, fma(p, q, p))
    store_f32x16(y + 320, maximum(p, q))
    store_f32x16(y + 384, minimum(p, q))
    store_f32x16(y + 448, round_even(p))
    store_f32x16(y + 512, add(add(splat(load_f32(a)), broadcast_f32(b)), zero_f32x16()))


def test_arithmetic_is_that_of_float32():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 16)).astype(np.float32)
    a[:4] = 0.5, 1.5, 2.5, -0.5
    exact = a.astype(np.float64)
    once = (exact * b + exact).astype(np.float32)  # fma rounds once
    rows = [a + b, a - b, a * b, a / b, once, np.maximum(a, b), np.minimum(a, b), np.rint(a), np.full(16, a[0] + b[0])]
    assert np.array_equal(result(arithmetic, (9, 16), a, b), np.array(rows, np.float32))


@kernel
def reductions(rank, size, x, y):
    """y [2] = sum and maximum."""
    store_f32(y, sum_lanes(load_f32x16(x)))
    store_f32(y + 4, max_lanes(load_f32x16(x)))


def test_a_sum_of_lanes_has_one_order():
    """Halves are added to halves: the same bits wherever vectors are split."""
    x = (np.random.default_rng(1).standard_normal(16) * 10.0 ** np.arange(-8, 8)).astype(np.float32)
    halves = x
    while len(halves) > 1:
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    assert result(reductions, 2, x).tolist() == [halves[0], x.max()]


@kernel
def halves(rank, size, x, y):
    """float16 at x -> float32 [17], and float16 of the first 16 again behind them."""
    wide = load_f16x16(x)
    store_f32x16(y, wide)
    store_f32(y + 64, load_f16(x + 32))
    store_f32x16_as_f16(y + 68, wide)


def test_every_half_is_read_exactly_and_written_back():
    bits = np.arange(0, 1 << 16, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))]
    for start in range(0, len(bits) - 17, 977):
        x = np.ascontiguousarray(bits[start : start + 17])
        found = result(halves, 25, x)
        assert np.array_equal(found[:17], x.view(np.float16).astype(np.float32))
        assert np.array_equal(found[17:].view(np.uint16), x[:16])


@kernel
def to_halves(rank, size, x, y):
    """float32 [16] -> float16 [16]."""
    store_f32x16_as_f16(y, load_f32x16(x))


def test_halves_are_rounded_to_even():
    x = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519, 65520, 2**-25, 1.5 * 2**-24, -2049, 1e-10] * 2, np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    assert np.array_equal(result(to_halves, 8, x).view(np.float16), expected)


@kernel
def upper_halves(rank, size, x, y):
    store_f32x16(y, load_bf16x16(x))


def test_bf16_is_the_upper_half():
    x = np.random.default_rng(2).integers(0, 0x7F80, 16, np.uint16)
    assert np.array_equal(result(upper_halves, 16, x).view(np.uint32), x.astype(np.uint32) << 16)


_reverse = permute(range(15, -1, -1))
_evens = permute(range(0, 16, 2))


@kernel
def lanes(rank, size, x, y):
    """y [24]: x reversed, then its even lanes; [32] more: concatenated with itself."""
    v = load_f32x16(x)
    store_f32x16(y, _reverse(v))
    store_f32x8(y + 64, _evens(v))
    store_f32x16(y + 96, concat(_evens(v), _evens(v)))


def test_lanes_are_picked():
    x = np.arange(16, dtype=np.float32)
    found = result(lanes, 40, x)
    assert found.tolist() == [*range(15, -1, -1), *range(0, 16, 2), *range(0, 16, 2), *range(0, 16, 2)]


@kernel
def dots(rank, size, w, x, y):
    """y [2, 16] of 64 bytes, then y [2, 8] of the first 32: by dot_u7, and by dot_wide with its bias."""
    store_f32x16(y, to_f32(dot_u7(zero_i32x16(), load_i8x64(w), load_i8x64(x))))
    store_f32x16(y + 64, to_f32(dot_wide(zero_i32x16(), bit_xor(load_i8x64(w), BIAS), load_i8x64(x))))
    store_f32x8(y + 128, to_f32(dot_u7(zero_i32x8(), load_i8x32(w), load_i8x32(x))))
    store_f32x8(y + 160, to_f32(dot_wide(zero_i32x8(), bit_xor(load_i8x32(w), BIAS), load_i8x32(x))))


def quads(w, x):
    return (w.astype(np.int32) * x).reshape(-1, 4).sum(axis=1)


def cases():
    rng = np.random.default_rng(3)
    yield from ((np.full(64, w, np.int8), np.full(64, x, np.int8)) for w in (127, 0, 1) for x in (127, -127, 0))
    yield np.tile(np.array([127, 127, 0, 0], np.int8), 16), np.tile(np.array([127, 127, -127, -127], np.int8), 16)
    for _ in range(20):
        yield rng.integers(0, 128, 64, np.int8), rng.integers(-127, 128, 64, np.int8)


@pytest.mark.parametrize("sign", [1, -1])
def test_int8_dots_are_exact(sign):
    for w, x in cases():
        signed = sign * w
        found = result(dots, 48, signed, x)
        biased = quads(signed, x) + BIAS * quads(np.ones(64, np.int8), x)
        assert np.array_equal(found[16:32], biased)
        assert np.array_equal(found[40:], biased[:8])
        if sign > 0:  # dot_u7 wants no negative weight
            assert np.array_equal(found[:16], quads(w, x))
            assert np.array_equal(found[32:40], quads(w, x)[:8])


@pytest.mark.parametrize("x", [127, -127])
def test_the_lowest_int8_is_a_weight_too(x):
    w, x = np.full(64, -128, np.int8), np.full(64, x, np.int8)
    found = result(dots, 48, w, x)
    assert np.array_equal(found[16:32], quads(w, x) + BIAS * quads(np.ones(64, np.int8), x))


@kernel
def transpose(rank, size, x, x_stride, y_stride, y):
    transpose16(x, x_stride, y, y_stride)


def test_sixteen_rows_are_transposed():
    x = np.arange(16 * 20, dtype=np.int32).reshape(16, 20)
    found = result(transpose, (16, 17), x, 80, 68).view(np.int32)
    assert np.array_equal(found[:, :16], x[:, :16].T)
    assert not found[:, 16].any()
