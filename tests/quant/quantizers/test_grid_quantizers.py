"""Types whose points are looked for in a grid: less error than ggml's bytes leave, and no better point anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from places import DATA

from quant import formats, quantizers
from quant.blocks.grids import points

GOLDEN = [DATA / name for name in ("quants.npz", "quants-edge.npz")]
NAMES = [name for name in quantizers.names() if name.startswith(("IQ1", "IQ2", "IQ3"))]
NEEDING = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"}
GROUPS = {"IQ1_S": 32, "IQ1_M": 16, "IQ2_XXS": 32, "IQ2_XS": 16, "IQ2_S": 16, "IQ3_XXS": 32, "IQ3_S": 32}
UNITS = {
    "IQ2_XXS": 8,
    "IQ2_XS": 8,
    "IQ2_S": 8,
    "IQ3_XXS": 4,
    "IQ3_S": 1,
}  # of the grid's values, in d * (1 + 2 * level)


def dequantized(name, data):
    return quants.dequantize(data, GGMLQuantizationType[name]).astype(np.float64)


def weights(x, importance):
    """What a column weighs in the search, by the definition in quant.fitting.grid_blocks."""
    x = x.astype(np.float64)
    square = x**2 + np.repeat((x.reshape(len(x), -1, 256) ** 2).mean(axis=2), 256, axis=1)
    return square if importance is None else importance * np.sqrt(square)


def golden_cases():
    for path in GOLDEN:
        with np.load(path) as file:
            for key in sorted(file):
                name, weighed, _ = key.partition("+imatrix")
                if name in NAMES:
                    yield pytest.param(path, name, bool(weighed), id=f"{path.stem}-{key}")


@pytest.mark.parametrize(("path", "name", "weighed"), list(golden_cases()))
def test_error_is_less_than_that_of_ggml(path, name, weighed):
    """By its weights, and by importance alone."""
    with np.load(path) as golden:
        x, importance, theirs = golden["x"], golden["imatrix"], golden[name + "+imatrix" * weighed]
    importance = importance if weighed else None
    ours = quantizers.find(name).quantize(x, importance)
    for weight in (weights(x, importance), np.ones(512) if importance is None else importance):
        errors = [(weight * (dequantized(name, data) - x) ** 2).sum() for data in (ours, theirs)]
        assert errors[0] < 0.98 * errors[1]


def test_golden_bytes_are_there_for_each_type():
    assert {case.values[1] for case in golden_cases()} == set(NAMES) == set(GROUPS)


@pytest.mark.parametrize("name", NAMES)
def test_who_needs_importance_says_so(name):
    kind, x = quantizers.find(name), np.ones((16, 256), np.float32)
    assert kind.needs_importance == (name in NEEDING)
    if kind.needs_importance:
        with pytest.raises(ValueError, match=f"{name} is only made by importance"):
            kind.quantize(x)
    else:
        assert len(kind.quantize(x)) == 16


@pytest.mark.parametrize("name", sorted(UNITS))
def test_no_point_of_the_grid_is_nearer(name):
    """With the scales and signs that are stored, every point is the best of all."""
    rng = np.random.default_rng(0)
    x = rng.standard_t(4, (8, 256)).astype(np.float32)
    importance = np.exp(rng.standard_normal(256)).astype(np.float32)
    found = dequantized(name, quantizers.find(name).quantize(x, importance)).reshape(8, -1, GROUPS[name])
    values = points(name).astype(np.float64)
    width = values.shape[1]
    signs, sizes = np.sign(found), np.abs(found)
    scales = stored_scales(name, quantizers.find(name).quantize(x, importance))[..., None, None, None]
    near = (x.reshape(found.shape) * signs).reshape(*found.shape[:2], -1, 1, width)
    weight = weights(x, importance).reshape(near.shape)
    best = (weight * (near - scales * values / UNITS[name]) ** 2).sum(axis=-1).min(axis=-1)
    ours = (weight * (near - sizes.reshape(near.shape)) ** 2).sum(axis=-1)[..., 0]
    np.testing.assert_allclose(ours, best, rtol=1e-4, atol=1e-6 * ours.max())


def stored_scales(name, data):
    """d * (1 + 2 * level) of each group: float64 [rows, groups]."""
    kind = formats.find(name)
    scale = np.empty((len(data), 256 // kind.group), np.float32)
    minimum, q = np.empty_like(scale), np.empty((len(data), 256), np.int8)
    kind.unpack_rows(data.ctypes.data, len(data), 256, q.ctypes.data, scale.ctypes.data, minimum.ctypes.data)
    return scale.astype(np.float64) * UNITS[name]


@pytest.mark.parametrize("name", sorted(UNITS))
def test_numbers_that_the_grid_holds_are_held(name):
    rng = np.random.default_rng(1)
    values, group = points(name).astype(np.float32), GROUPS[name]
    chosen = values[rng.integers(0, len(values), (16, 256 // values.shape[1]))].reshape(16, 256)
    levels = rng.integers(8, 16, (16, 256 // group))
    levels[:, 0] = 15
    signs = rng.choice(np.array([-1, 1], np.float32), (16, 32, 8))
    signs[..., 7] = signs[..., :7].prod(axis=-1)  # an even number of minus signs
    x = chosen / UNITS[name] * np.repeat(1 + 2 * levels, group, axis=1) * signs.reshape(16, 256) / 64
    x = x.astype(np.float32)
    found = dequantized(name, quantizers.find(name).quantize(x, np.ones(256, np.float32)))
    exact = (found == x).reshape(16, -1, group).all(axis=2)
    assert exact.mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_no_importance_are_not_lost(name):
    x = np.random.default_rng(2).standard_normal((16, 512)).astype(np.float32)
    importance = np.zeros(512, np.float32)
    importance[256:300] = 1
    error = np.abs(dequantized(name, quantizers.find(name).quantize(x, importance)) - x) ** 2
    assert error[:, :256].mean() < 0.5
    assert error[:, 256:300].mean() <= error[:, 300:].mean()
