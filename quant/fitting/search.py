"""Searches for the scale of a sub-block, and its minimum, that leave the least weighted squared error of its columns.

For sixteen sub-blocks at once, a lane each: columns and weights are float32 [columns, 16 lanes] (see quant.fitting.lanes).
The candidates, and the order of every sum, are those of ggml's quantizers (ggml-quants.c: make_qx_quants, make_q3_quants,
make_qkx2_quants, make_qkx3_quants, make_qp_quants), so that the blocks are equal to theirs, too.
"""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import larger, nearest_between, smaller, unknown, where_equal, where_greater
from quant.jit import inline
from quant.simd import absolute, add, divide, load_f32x16, mul, round_even, splat, store_f32x16, sub, zero_f32x16

_ONE, _INFINITE = np.float32(1), np.float32(np.inf)
NEGLIGIBLE = np.float32(1e-15)  # columns below count as zeros


@inline
def sum_of_squares(x, count, total):
    """total + x^2 of each lane, one column after the other."""
    count = unknown(count)
    for i in range(count):
        value = load_f32x16(x + 64 * i)
        total = add(total, mul(value, value))
    return total


@inline
def sum_of(x, count):
    """The sum of each lane."""
    count = unknown(count)
    total = zero_f32x16()
    for i in range(count):
        total = add(total, load_f32x16(x + 64 * i))
    return total


@inline
def extreme_of(x, count):
    """The first number of largest magnitude, and its magnitude."""
    count = unknown(count)
    extreme, size = zero_f32x16(), zero_f32x16()
    for i in range(count):
        value = load_f32x16(x + 64 * i)
        extreme = where_greater(absolute(value), size, value, extreme)
        size = larger(absolute(value), size)
    return extreme, size


@inline
def affine(x, weights, count, most, first, step, steps, magnitudes, q):
    """x ~ scale * q - minimum, q in [0, most], minimum >= 0: candidates for 1 / scale are (most + first + step * i) /
    range, i <= steps; each gives the q for which scale and minimum are then solved by least squares. The range begins
    at the minimum of the best so far (ggml's make_qkx2_quants and make_qkx3_quants).

    -> scale, minimum, and what gives the best q again: round(inverse * (x - begin)); q: float32 [count, 16] of scratch.
    magnitudes: the error is measured as a magnitude, not as a square.
    """
    count = unknown(count)
    zero, top = zero_f32x16(), splat(most)
    lowest, highest = load_f32x16(x), load_f32x16(x)
    sum_w, sum_x = zero, zero
    for i in range(count):
        value, weight = load_f32x16(x + 64 * i), load_f32x16(weights + 64 * i)
        lowest, highest = smaller(value, lowest), larger(value, highest)
        sum_w, sum_x = add(sum_w, weight), add(sum_x, mul(weight, value))
    lowest = smaller(lowest, zero)
    begin, minimum, inverse = lowest, lowest, divide(top, sub(highest, lowest))
    scale, error = divide(splat(_ONE), inverse), zero
    for i in range(count):
        value = load_f32x16(x + 64 * i)
        level = nearest_between(mul(inverse, sub(value, lowest)), zero, top)
        error = add(error, _error(value, level, load_f32x16(weights + 64 * i), scale, lowest, magnitudes))
    for candidate in range(steps + 1):
        tried = divide(splat((first + step * np.float32(candidate)) + most), sub(highest, minimum))
        sum_l, sum_l2, sum_xl = zero, zero, zero
        for i in range(count):
            value = load_f32x16(x + 64 * i)
            level = nearest_between(mul(tried, sub(value, minimum)), zero, top)
            store_f32x16(q + 64 * i, level)
            weighted = mul(load_f32x16(weights + 64 * i), level)
            sum_l = add(sum_l, weighted)
            sum_l2 = add(sum_l2, mul(weighted, level))
            sum_xl = add(sum_xl, mul(weighted, value))
        determinant = sub(mul(sum_w, sum_l2), mul(sum_l, sum_l))
        new_scale = divide(sub(mul(sum_w, sum_xl), mul(sum_x, sum_l)), determinant)
        new_minimum = divide(sub(mul(sum_l2, sum_x), mul(sum_l, sum_xl)), determinant)
        new_scale = where_greater(new_minimum, zero, divide(sum_xl, sum_l2), new_scale)
        new_minimum = where_greater(new_minimum, zero, zero, new_minimum)
        new_error = zero
        for i in range(count):
            value, level = load_f32x16(x + 64 * i), load_f32x16(q + 64 * i)
            weight = load_f32x16(weights + 64 * i)
            new_error = add(new_error, _error(value, level, weight, new_scale, new_minimum, magnitudes))
        new_error = where_greater(determinant, zero, new_error, splat(_INFINITE))
        begin = where_greater(error, new_error, minimum, begin)
        inverse = where_greater(error, new_error, tried, inverse)
        scale = where_greater(error, new_error, new_scale, scale)
        minimum = where_greater(error, new_error, new_minimum, minimum)
        error = where_greater(error, new_error, new_error, error)
    scale = where_equal(highest, lowest, zero, scale)
    minimum = where_equal(highest, lowest, lowest, minimum)
    inverse = where_equal(highest, lowest, zero, inverse)
    return scale, sub(zero, minimum), inverse, begin


@inline
def _error(value, level, weight, scale, minimum, magnitudes):
    difference = sub(add(mul(scale, level), minimum), value)
    return mul(weight, absolute(difference) if magnitudes else mul(difference, difference))


@inline
def symmetric(x, weights, count, most):
    """x ~ scale * q, q in [-most, most - 1]: candidates for 1 / scale are -(most + i / 10) / the largest, |i| <= 9
    (ggml's make_qx_quants).

    -> scale, and what gives the best q again: round(inverse * x), both 0 where all x are negligible.
    """
    count = unknown(count)
    zero, top = zero_f32x16(), splat(most)
    extreme, size = extreme_of(x, count)
    bottom, ceiling = sub(zero, top), sub(top, splat(_ONE))
    inverse = divide(bottom, extreme)
    sum_xl, sum_l2 = _products(x, weights, count, inverse, bottom, ceiling)
    scale = where_greater(sum_l2, zero, divide(sum_xl, sum_l2), zero)
    best = mul(scale, sum_xl)
    for candidate in range(18):
        offset = np.float32(candidate - 9 + candidate // 9)
        tried = divide(splat(-(most + np.float32(0.1) * offset)), extreme)
        sum_xl, sum_l2 = _products(x, weights, count, tried, bottom, ceiling)
        gain, needed = mul(sum_xl, sum_xl), where_greater(sum_l2, zero, mul(best, sum_l2), splat(_INFINITE))
        solved = divide(sum_xl, sum_l2)
        scale = where_greater(gain, needed, solved, scale)
        inverse = where_greater(gain, needed, tried, inverse)
        best = where_greater(gain, needed, mul(solved, sum_xl), best)
    negligible = splat(NEGLIGIBLE)
    return where_greater(negligible, size, zero, scale), where_greater(negligible, size, zero, inverse)


@inline
def _products(x, weights, count, inverse, bottom, ceiling):
    """The weighted sums of x * q and of q * q."""
    count = unknown(count)
    sum_xl, sum_l2 = zero_f32x16(), zero_f32x16()
    for i in range(count):
        value, weight = load_f32x16(x + 64 * i), load_f32x16(weights + 64 * i)
        level = nearest_between(mul(inverse, value), bottom, ceiling)
        sum_xl = add(sum_xl, mul(mul(weight, value), level))
        sum_l2 = add(sum_l2, mul(mul(weight, level), level))
    return sum_xl, sum_l2


@inline
def positive(x, weights, count, most, q):
    """x ~ scale * q, x >= 0, q in [0, most]: candidates for 1 / scale are (most + i / 10) / the largest, |i| <= 4; then
    five rounds in which each q may change if the error, with the scale solved anew, is less (ggml's make_qp_quants).

    -> scale; q is written, float32 [count, 16].
    """
    count = unknown(count)
    zero, top = zero_f32x16(), splat(most)
    largest = zero
    for i in range(count):
        largest = larger(load_f32x16(x + 64 * i), largest)
    inverse = divide(top, largest)
    error = _error_of_positive(x, weights, count, inverse, top)
    for candidate in range(8):
        offset = np.float32(candidate - 4 + candidate // 4)
        tried = divide(splat(np.float32(0.1) * offset + most), largest)
        new_error = _error_of_positive(x, weights, count, tried, top)
        inverse = where_greater(error, new_error, tried, inverse)
        error = smaller(new_error, error)
    sum_xl, sum_l2 = zero, zero
    for i in range(count):
        value, weight = load_f32x16(x + 64 * i), load_f32x16(weights + 64 * i)
        level = nearest_between(mul(inverse, value), zero, top)
        store_f32x16(q + 64 * i, level)
        sum_xl = add(sum_xl, mul(mul(weight, value), level))
        sum_l2 = add(sum_l2, mul(mul(weight, level), level))
    for _ in range(5):
        for i in range(count):
            weight = load_f32x16(weights + 64 * i)
            sum_xl, sum_l2 = _improve(x + 64 * i, weight, q + 64 * i, sum_xl, sum_l2, zero, top, True)
    none = splat(NEGLIGIBLE)
    for i in range(count):
        store_f32x16(q + 64 * i, where_greater(none, largest, zero, load_f32x16(q + 64 * i)))
    scale = where_greater(sum_l2, zero, divide(sum_xl, sum_l2), zero)
    return where_greater(none, largest, zero, scale)


@inline
def _error_of_positive(x, weights, count, inverse, top):
    count = unknown(count)
    scale, error = divide(splat(_ONE), inverse), zero_f32x16()
    for i in range(count):
        value = load_f32x16(x + 64 * i)
        difference = sub(value, mul(scale, smaller(round_even(mul(inverse, value)), top)))
        error = add(error, mul(mul(load_f32x16(weights + 64 * i), difference), difference))
    return error


@inline
def _improve(x, weight, q, sum_xl, sum_l2, least, most, others):
    """One q made the best beside all others, where that gains; -> the sums of x * q and q * q with it.

    others: the sum of q * q must be positive without the one, not with it.
    """
    zero = zero_f32x16()
    value, level = load_f32x16(x), load_f32x16(q)
    weighted = mul(weight, value)
    other_xl = sub(sum_xl, mul(weighted, level))
    other_l2 = sub(sum_l2, mul(mul(weight, level), level))
    new = nearest_between(divide(mul(value, other_l2), other_xl), least, most)
    new_xl = add(other_xl, mul(weighted, new))
    new_l2 = add(other_l2, mul(mul(weight, new), new))
    needed = mul(mul(sum_xl, sum_xl), new_l2)
    needed = where_greater(other_xl, zero, needed, splat(_INFINITE))
    needed = where_greater(other_l2 if others else new_l2, zero, needed, splat(_INFINITE))
    needed = where_equal(new, level, splat(_INFINITE), needed)
    gain = mul(mul(new_xl, new_xl), sum_l2)
    store_f32x16(q, where_greater(gain, needed, new, level))
    return where_greater(gain, needed, new_xl, sum_xl), where_greater(gain, needed, new_l2, sum_l2)


@inline
def symmetric_by_rounds(x, parts, count, most, q, sums, scales):
    """For each part of `count` columns: x ~ scale * q, q in [-most, most - 1], weights x^2: from the number of largest
    magnitude at -most, five rounds in which each q may change if the error, with the scale solved anew, is less (ggml's
    make_q3_quants).

    q: float32 [parts * count, 16], scales: float32 [parts, 16], are written; sums: float32 [parts, 2, 16] of scratch.
    """
    parts, count = unknown(parts), unknown(count)
    top = splat(most)
    bottom, ceiling = sub(zero_f32x16(), top), sub(top, splat(_ONE))
    for part in range(parts):
        at = 64 * count * part
        _begin_rounds(x + at, count, bottom, ceiling, q + at, sums + 128 * part)
    for _ in range(5):
        for i in range(count):
            for part in range(parts):  # a column of each, since a part's next must wait for this one: 3 x as quick
                at, sum_at = 64 * (count * part + i), sums + 128 * part
                value, sum_xl, sum_l2 = load_f32x16(x + at), load_f32x16(sum_at), load_f32x16(sum_at + 64)
                weight = mul(value, value)
                sum_xl, sum_l2 = _improve(x + at, weight, q + at, sum_xl, sum_l2, bottom, ceiling, False)
                store_f32x16(sum_at, sum_xl)
                store_f32x16(sum_at + 64, sum_l2)
    for part in range(parts):
        at = 64 * count * part
        store_f32x16(scales + 64 * part, _end_rounds(x + at, count, bottom, q + at, sums + 128 * part))


@inline
def _begin_rounds(x, count, bottom, ceiling, q, sums):
    extreme, _ = extreme_of(x, count)
    inverse = divide(bottom, extreme)
    sum_xl, sum_l2 = zero_f32x16(), zero_f32x16()
    for i in range(count):
        value = load_f32x16(x + 64 * i)
        level, weight = nearest_between(mul(inverse, value), bottom, ceiling), mul(value, value)
        store_f32x16(q + 64 * i, level)
        sum_xl = add(sum_xl, mul(mul(weight, value), level))
        sum_l2 = add(sum_l2, mul(mul(weight, level), level))
    store_f32x16(sums, sum_xl)
    store_f32x16(sums + 64, sum_l2)


@inline
def _end_rounds(x, count, bottom, q, sums):
    """The scale; where all is negligible 0, and every q the least."""
    _, size = extreme_of(x, count)
    zero, none = zero_f32x16(), splat(NEGLIGIBLE)
    for i in range(count):
        store_f32x16(q + 64 * i, where_greater(none, size, bottom, load_f32x16(q + 64 * i)))
    sum_xl, sum_l2 = load_f32x16(sums), load_f32x16(sums + 64)
    return where_greater(none, size, zero, where_greater(sum_l2, zero, divide(sum_xl, sum_l2), zero))
