"""Grids of the IQ types: tables, lookups of every index, and signs, against NumPy."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from places import HELPERS, ROOT

from quant.blocks.fields import bits_as_bytes, both_nibbles, spread
from quant.blocks.grids import codes, grid, points
from quant.blocks.signs import OFFSET, offset, parity_signs, plus_minus, with_parity
from quant.jit import function
from quant.plan import aligned
from quant.simd import load_i8x32, load_i8x64, load_i32x16, load_i64, store_i8x64, store_i64

SHAPES = {
    "IQ3_S": (512, 4), "IQ3_XXS": (256, 4), "IQ2_S": (1024, 8), "IQ2_XS": (512, 8), "IQ2_XXS": (256, 8), "IQ1_S": (2048, 8),
}  # fmt: skip
LEVELS = {"IQ3_S": tuple(range(1, 16, 2)), "IQ3_XXS": (4, 12, 20, 28, 36, 44, 52, 62), "IQ1_S": (0, 1, 2)}

_find_4, _values_4 = grid("IQ3_S", 512, 4, LEVELS["IQ3_S"])
_find_8, _values_8 = grid("IQ1_S", 2048, 8, LEVELS["IQ1_S"])
_seven = spread(7)


@pytest.mark.parametrize("name", SHAPES)
def test_a_grid_holds_the_levels_that_its_codes_stand_for(name):
    found, levels = points(name), LEVELS.get(name, (8, 25, 43))
    assert found.shape == SHAPES[name]
    assert len(np.unique(found, axis=0)) == len(found)
    bits = 2 if found.shape[1] == 8 else 3
    levels = tuple(value - 1 for value in levels) if name == "IQ1_S" else levels
    apart = codes(name)[:, None] >> np.arange(found.shape[1]) * bits & (1 << bits) - 1
    assert np.array_equal(np.array(levels)[apart], found)


@function("ppp")
def look_up_4(low, high, out):
    parts = _values_4(_find_4(load_i8x64(low), load_i8x64(high)))
    store_i8x64(out, parts[0])
    store_i8x64(out + 64, parts[1])
    store_i8x64(out + 128, parts[2])
    store_i8x64(out + 192, parts[3])


@function("ppp")
def look_up_8(low, high, out):
    parts = _values_8(_find_8(load_i8x64(low), load_i8x64(high)))
    store_i8x64(out, parts[0])
    store_i8x64(out + 64, parts[1])
    store_i8x64(out + 128, parts[2])
    store_i8x64(out + 192, parts[3])
    store_i8x64(out + 256, parts[4])
    store_i8x64(out + 320, parts[5])
    store_i8x64(out + 384, parts[6])
    store_i8x64(out + 448, parts[7])


@pytest.mark.parametrize(("kernel", "name", "added"), [(look_up_4, "IQ3_S", 0), (look_up_8, "IQ1_S", 1)])
def test_every_index_finds_its_point(kernel, name, added):
    count, width = SHAPES[name]
    out = aligned((64, width), np.int8)
    for first in range(0, count, 64):
        index = np.random.default_rng(first).permutation(np.arange(first, first + 64))
        low, high = index.astype(np.uint8), (index >> 8).astype(np.uint8) | np.uint8(0x80)
        kernel(low.ctypes.data, high.ctypes.data, out.ctypes.data)
        assert np.array_equal(out, points(name)[index] + added)


def test_the_number_of_minus_signs_is_even():
    assert with_parity(np.array([0, 1, 3, 0x7F], np.uint8)).tolist() == [0, 0x81, 3, 0xFF]
    assert plus_minus(np.array([0x81], np.uint8)).tolist() == [[-1, 1, 1, 1, 1, 1, 1, -1]]


@function("pp")
def take_signs_apart(words, out):
    signs = parity_signs(_seven(load_i32x16(words)))
    store_i64(out, signs[0])
    store_i64(out + 56, signs[7])


def test_signs_of_packed_words():
    words = np.random.default_rng(0).integers(0, 1 << 32, 16, np.uint32)
    index = (words[:, None] >> np.array([0, 7, 14, 21], np.uint32) & 127).astype(np.uint8).reshape(-1)
    out = aligned(8, np.int64)
    take_signs_apart(words.ctypes.data, out.ctypes.data)
    expected = with_parity(index).view(np.int64)
    assert (out[0], out[7]) == (expected[0], expected[7])


@function("pppp")
def take_apart(x, bits, packed, out):
    part, signs = load_i8x64(x), load_i64(bits)
    store_i8x64(out, offset((part, part, part, part), (signs, signs, signs, signs))[3])
    store_i8x64(out + 64, bits_as_bytes(load_i64(bits)))
    store_i8x64(out + 128, both_nibbles(load_i8x32(packed)))


def test_bits_and_nibbles_are_in_order():
    rng = np.random.default_rng(1)
    x, bits = rng.integers(0, 63, 64, np.int8), rng.integers(0, 256, 8, np.uint8)
    packed, out = rng.integers(0, 256, 32, np.uint8), aligned((3, 64), np.uint8)
    take_apart(x.ctypes.data, bits.ctypes.data, packed.ctypes.data, out.ctypes.data)
    is_set = np.unpackbits(bits, bitorder="little")
    assert np.array_equal(out[0].view(np.int8), int(OFFSET) + np.where(is_set, -x, x))
    assert np.array_equal(out[1], is_set)
    assert np.array_equal(out[2], np.stack([packed & 15, packed >> 4], axis=1).reshape(-1))


VBMI = "+avx512vnni,+avx512bw,+avx512vl,+avx512vbmi"


@pytest.mark.parametrize(
    ("triple", "processor", "features", "instruction", "times"),
    [
        ("x86_64-unknown-linux-gnu", "znver4", VBMI, "vpmultishiftqb", 1),
        ("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma", "vpcmpeqb", 2),
        ("aarch64-apple-darwin", "apple-m1", None, "cmeq", 4),
        ("aarch64-unknown-linux-gnu", "cortex-a72", None, "cmeq", 4),
    ],
)
def test_points_of_other_processors(triple, processor, features, instruction, times):
    """Eight points at once where there are shuffles by table; else eight loads; signs by comparing bits, not one by one."""
    script = HELPERS / "cross_compile.py"
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "PYTHONPATH": str(ROOT)}
    if features:
        environment["NUMBA_CPU_FEATURES"] = features
    done = subprocess.run([sys.executable, script, triple, "points"], env=environment, text=True, capture_output=True)
    found = re.findall(r"^\t([a-z]\w*)", done.stdout, re.MULTILINE)
    assert found.count(instruction) == times, done.stderr
    assert len(found) < 120
