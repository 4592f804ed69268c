"""Small float32 products inside kernels."""

from __future__ import annotations

import numpy as np
import pytest

from quant.kernels.sgemm import sgemm_kernel

SHAPES = [(1, 16, 1), (5, 48, 7), (8, 32, 16), (13, 80, 33), (64, 128, 64), (7, 144, 3)]


def product(a, b, c, accumulate):
    """c (+)= a b, in place."""
    places = [number for x in (a, b, c) for number in (x.ctypes.data, x.strides[0])]
    sgemm_kernel(*places, a.shape[0], b.shape[1], a.shape[1], accumulate)


def random_of(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("rows", "columns", "inner"), SHAPES)
@pytest.mark.parametrize("accumulate", [0, 1])
def test_products_against_float64(rows, columns, inner, accumulate):
    a, b, c = random_of((rows, inner), 1), random_of((inner, columns), 2), random_of((rows, columns), 3)
    expected = a.astype(np.float64) @ b + accumulate * c
    product(a, b, c, accumulate)
    np.testing.assert_allclose(c, expected, rtol=0, atol=1e-6 * inner)


@pytest.mark.parametrize(("rows", "columns", "inner"), SHAPES)
def test_an_element_has_the_bits_that_it_has_alone(rows, columns, inner):
    a, b = random_of((rows, inner), 1), random_of((inner, columns), 2)
    together, alone = np.empty((rows, columns), np.float32), np.empty((rows, columns), np.float32)
    product(a, b, together, 0)
    for row in range(rows):
        for column in range(0, columns, 16):
            product(a[row : row + 1], b[:, column : column + 16], alone[row : row + 1, column : column + 16], 0)
    assert np.array_equal(together.view(np.int32), alone.view(np.int32))


def test_rows_may_be_apart_and_nothing_beside_them_is_written():
    a, b, c = random_of((9, 40), 1)[:, :21], random_of((21, 80), 2)[:, :48], np.full((9, 64), 7, np.float32)
    product(a, b, c[:, :48], 0)
    np.testing.assert_allclose(c[:, :48], a.astype(np.float64) @ b, rtol=0, atol=3e-5)
    assert (c[:, 48:] == 7).all()
