"""The searches for scales, sixteen sub-blocks at once, against one sub-block at a time."""

from __future__ import annotations

import numpy as np
import pytest
from reference import search as twin

from quant.fitting.search import affine, positive, symmetric, symmetric_by_rounds
from quant.jit import function
from quant.plan import aligned
from quant.simd import store_f32x16

COUNT = 16


@function("ppfffppp")
def find_affine(x, w, most, first, step, steps, magnitudes, out):
    scale, minimum, _, _ = affine(x, w, 16, most, first, step, steps, magnitudes, out + 128)
    store_f32x16(out, scale)
    store_f32x16(out + 64, minimum)


@function("ppfp")
def find_symmetric(x, w, most, out):
    scale, _ = symmetric(x, w, 16, most)
    store_f32x16(out, scale)


@function("pfp")
def find_by_rounds(x, most, out):
    symmetric_by_rounds(x, 1, 16, most, out + 64, out + 2048, out)


@function("ppfp")
def find_positive(x, w, most, out):
    store_f32x16(out, positive(x, w, 16, most, out + 64))


def found(kernel, x, w, *options):
    """What a search writes, float32 [.., 16 lanes], of x and w [16 sub-blocks, 16 columns]."""
    out = aligned((40, 16), np.float32)
    lanes = [np.ascontiguousarray(values.T) for values in (x, w) if values is not None]
    kernel(*[values.ctypes.data for values in lanes], *options, out.ctypes.data)
    return out


def sub_blocks(seed):
    """Easy ones, sparse ones, zeros, constants, one number alone, and hardly anything."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((16, COUNT)) * np.exp(2 * rng.standard_normal((16, 1)))
    x[4:6] *= rng.random((2, COUNT)) < 0.3
    x[6] = 0
    x[7], x[8] = -1.5, 0.25
    x[9, 1:] = 0
    x[10] *= 1e-17
    x[11] = np.abs(x[11]) + 1
    w = np.exp(rng.standard_normal((16, COUNT)))
    w[12] = 0
    w[13] *= rng.random(COUNT) < 0.5
    return x.astype(np.float32), w.astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [3, 15, 31])
@pytest.mark.parametrize("magnitudes", [False, True])
def test_affine(seed, most, magnitudes):
    x, w = sub_blocks(seed)
    scale, minimum = found(find_affine, x, w, most, -0.9, 0.05, 36, magnitudes)[:2]
    with np.errstate(all="ignore"):
        expected = [twin.affine(*row, most, -0.9, 0.05, 36, magnitudes) for row in zip(x, w, strict=True)]
    np.testing.assert_array_equal(np.stack([scale, minimum], axis=1), expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [4, 8, 16, 32])
def test_symmetric(seed, most):
    x, w = sub_blocks(seed)
    expected = [twin.symmetric(*row, most) for row in zip(x, w, strict=True)]
    np.testing.assert_array_equal(found(find_symmetric, x, w, most)[0], expected)


@pytest.mark.parametrize("seed", range(4))
def test_symmetric_by_rounds(seed):
    x, _ = sub_blocks(seed)
    out = found(find_by_rounds, x, None, 4)
    for lane, row in enumerate(x):
        scale, q = twin.symmetric_by_rounds(row, 4)
        assert out[0, lane] == scale
        np.testing.assert_array_equal(out[1 : 1 + COUNT, lane], q)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [15, 63])
def test_positive(seed, most):
    x, w = sub_blocks(seed)
    x = np.abs(x)
    out = found(find_positive, x, w, most)
    for lane in range(16):
        scale, q = twin.positive(x[lane], w[lane], most)
        assert out[0, lane] == scale
        np.testing.assert_array_equal(out[1 : 1 + COUNT, lane], q)


def test_numbers_on_a_grid_are_found_exactly():
    """Every level of 0.5 * q - 2, with the ends far apart."""
    x = np.tile(0.5 * np.arange(16) - 2, (16, 1)).astype(np.float32)
    scale, minimum = found(find_affine, x, np.ones_like(x), 15, -1, 0.1, 20, False)[:2]
    assert (scale[0], minimum[0]) == (0.5, 2)
    assert found(find_symmetric, x - 2, np.ones_like(x), 8)[0, 0] == pytest.approx(0.5, rel=1e-6)
    out = found(find_positive, x + 2, np.ones_like(x), 15)
    assert out[0, 0] == pytest.approx(0.5, rel=1e-6)
    assert out[1:17, 0].tolist() == list(range(16))
