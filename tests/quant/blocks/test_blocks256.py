"""What types with blocks of 256 columns are built of, against NumPy, with whatever instructions the processor has."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, replay

from quant.blocks.bit_planes import third_bits
from quant.blocks.blocks256 import fields8
from quant.blocks.group_sums import sums_by_group
from quant.blocks.sixteens import six_bits, to_words
from quant.blocks.trits import SHIFT, digits_of, five_words, four_words, trits
from quant.jit import inline, kernel
from quant.simd import (
    load_i8x32,
    load_i8x64,
    load_i32x16,
    load_i64,
    load_u32,
    store_f32x8,
    store_f32x16,
    store_i8x32,
    store_i8x64,
    to_f32,
)

RNG = np.random.default_rng(0)


def run(kernel, *operands):
    plan = new_plan(1)
    plan.add(kernel, *operands)
    replay(plan)


HALVES = [[0, 0, 2, 2], [1, 1, 3, 3], [4, 4, 6, 6], [5, 5, 7, 7]]
SIXTEEN = [[4 * v + i for i in range(4)] for v in range(4)]
EIGHT = [[0, 1, 2, 3], [4, 5, 6, 7]]
_of_halves, _of_halves_u4, _of_halves_u5 = (sums_by_group(HALVES, bits) for bits in (0, 4, 5))
_of_sixteen, _of_sixteen_u6 = sums_by_group(SIXTEEN, 0), sums_by_group(SIXTEEN, 6)
_of_eight = sums_by_group(EIGHT, 0)


@inline
def four_sums(summed, store, x, y):
    store(y, to_f32(summed(load_i32x16(x), load_i32x16(x + 64), load_i32x16(x + 128), load_i32x16(x + 192))))


@kernel
def halves(rank, size, x, y):
    four_sums(_of_halves, store_f32x8, x, y)


@kernel
def halves_u4(rank, size, x, y):
    four_sums(_of_halves_u4, store_f32x8, x, y)


@kernel
def halves_u5(rank, size, x, y):
    four_sums(_of_halves_u5, store_f32x8, x, y)


@kernel
def sixteen(rank, size, x, y):
    four_sums(_of_sixteen, store_f32x16, x, y)


@kernel
def sixteen_u6(rank, size, x, y):
    four_sums(_of_sixteen_u6, store_f32x16, x, y)


@kernel
def eight(rank, size, x, y):
    store_f32x8(y, to_f32(_of_eight(load_i32x16(x), load_i32x16(x + 64))))


@pytest.mark.parametrize(
    ("summed", "quads", "bits"),
    [
        (halves, HALVES, 0), (halves_u4, HALVES, 4), (halves_u5, HALVES, 5), (sixteen, SIXTEEN, 0),
        (sixteen_u6, SIXTEEN, 6), (eight, EIGHT, 0),
    ],
)  # fmt: skip
def test_sums_of_groups(summed, quads, bits):
    most = 4 * 127 * ((1 << bits) - 1 if bits else 255)
    shape = len(quads), 4, 4
    for x in (RNG.integers(-most, most, shape), np.full(shape, most), np.full(shape, -most)):
        found, expected = np.zeros(16, np.float32), np.zeros(16)
        run(summed, x.astype(np.int32), found)
        np.add.at(expected, np.array(quads), x.sum(axis=-1))
        np.testing.assert_array_equal(found, expected)


@kernel
def six(rank, size, x, y):
    store_f32x16(y, to_f32(to_words(six_bits(load_i64(x), load_u32(x + 8)))))


def test_six_bits_in_two_places():
    numbers = RNG.permutation(64).astype(np.uint8)
    for part in numbers.reshape(4, 16):
        low, high = part & 15, (part >> 4).reshape(4, 4)
        twos = high[0] | high[1] << 2 | high[2] << 4 | high[3] << 6
        packed = np.concatenate([low[:8] | low[8:] << 4, twos]).astype(np.uint8)
        found = np.zeros(16, np.float32)
        run(six, packed, found)
        np.testing.assert_array_equal(found, part)


@kernel
def shifted(rank, size, word, y):
    store_f32x8(y, to_f32(_nibbles(word)))


_nibbles = fields8(4)


def test_a_word_shifted_by_lane():
    found = np.zeros(8, np.float32)
    run(shifted, 0x654321, found)
    np.testing.assert_array_equal(found, [0x654321 >> 4 * i for i in range(8)])


@kernel
def thirds(rank, size, x, y):
    a, b, c, d = third_bits(load_i8x32(x))
    store_i8x64(y, a)
    store_i8x64(y + 64, b)
    store_i8x64(y + 128, c)
    store_i8x64(y + 192, d)


def test_planes_of_bits_where_they_belong():
    for planes in np.arange(256, dtype=np.uint8).reshape(8, 32):
        found = np.zeros((4, 2, 32), np.uint8)
        run(thirds, planes, found)
        for v in range(4):
            expected = [(planes >> bit & 1) << 2 for bit in (v, v + 4)]
            np.testing.assert_array_equal(found[v], expected)


@kernel
def five(rank, size, x, y):
    a, b, c, d, e = trits(load_i8x64(x))
    store_i8x64(y, a)
    store_i8x64(y + 64, b)
    store_i8x64(y + 128, c)
    store_i8x64(y + 192, d)
    store_i8x64(y + 256, e)


def test_every_byte_has_five_digits():
    for packed in np.arange(256, dtype=np.uint8).reshape(4, 64):
        found = np.zeros((5, 64), np.uint8)
        run(five, packed, found)
        found[1::2] >>= SHIFT
        np.testing.assert_array_equal(found.T, [digits_of(int(byte)) for byte in packed])


def test_digits_are_those_of_a_number_of_base_three():
    for number in range(243):
        places = [number // 3**n % 3 for n in (4, 3, 2, 1, 0)]
        assert digits_of(-(-number * 256 // 243)) == places


@kernel
def words(rank, size, x, y):
    low, high = load_i8x32(x), load_i8x32(x + 32)
    store_i8x32(y, four_words(low))
    store_i8x32(y + 32, five_words(low, high))


def test_words_behind_zeros():
    x, found = np.arange(1, 17, dtype=np.int32), np.zeros((2, 8), np.int32)
    run(words, x, found)
    assert found.tolist() == [[0, 0, 0, 4, 5, 6, 7, 0], [0, 0, 0, 4, 5, 6, 7, 16]]
