"""Packing: q of sixteen blocks, int32 [columns, 16 lanes], to words, int32 [words, 16], and words to the bytes of blocks."""

from __future__ import annotations

from typing import Any

from quant.fitting.lanes import LANE_BYTES, scatter_u16, scatter_u32, store_i32x16, unknown
from quant.jit import inline
from quant.simd import bit_and, bit_or, load_i32x16, shift_left, shift_right, zero_i32x16
from quant.tile import transpose16


@inline
def four_bytes(q, first):
    """Whole numbers below 256, int32 [columns, 16 lanes] -> a word of the four from column `first` on."""
    q += LANE_BYTES * first
    low = bit_or(load_i32x16(q), shift_left(load_i32x16(q + 64), 8))
    return bit_or(low, bit_or(shift_left(load_i32x16(q + 128), 16), shift_left(load_i32x16(q + 192), 24)))


@inline
def two_nibbles(q, low, high):
    """The low four bits of four columns from column `low` on, and above them of those from column `high` on."""
    upper = shift_left(bit_and(four_bytes(q, high), 0x0F0F0F0F), 4)
    return bit_or(bit_and(four_bytes(q, low), 0x0F0F0F0F), upper)


@inline
def pack_bytes(q, columns, words):
    """The low eight bits of all columns, four to a word."""
    for word in range(unknown(columns // 4)):
        store_i32x16(words + LANE_BYTES * word, four_bytes(q, 4 * word))


@inline
def pack_nibbles(q, columns, apart, words):
    """The low four bits of all columns, eight to a word; a byte holds columns i and i + apart of 2 * apart."""
    for pair in range(columns // (2 * apart)):
        for word in range(unknown(apart // 4)):
            low = 2 * apart * pair + 4 * word
            store_i32x16(words + 16 * apart * pair + LANE_BYTES * word, two_nibbles(q, low, low + apart))


@inline
def write_nibbles(q, out, block):
    """The low four bits of q, int32 [32, 16 lanes], to the field qs of the 16 blocks at `out`: column i beside i + 16."""
    for word in range(4):
        packed = two_nibbles(q, 4 * word, 4 * word + 16)
        scatter_u32(out + block.qs + 4 * word, block.bytes, packed)


def _two_bits(drop: int) -> Any:
    @inline
    def two_bits(q, words):
        for half in range(2):
            for word in range(unknown(8)):
                packed = zero_i32x16()
                for back in range(4):
                    four = four_bytes(q, 128 * half + 4 * word + 32 * (3 - back))
                    packed = bit_or(shift_left(packed, 2), bit_and(shift_right(four, drop), 0x03030303))
                store_i32x16(words + 64 * (8 * half + word), packed)

    return two_bits


# low_two_bits(q, words): bits 0 and 1 of 256 columns, int32 [256, 16 lanes] -> 16 words; a byte holds columns i, i + 32,
# i + 64 and i + 96 of 128, as in Q2_K, Q3_K and, of bits 4 and 5, Q6_K.
low_two_bits, high_two_bits = _two_bits(0), _two_bits(4)


def _one_bit(drop: int) -> Any:
    @inline
    def one_bit(q, words):
        for word in range(unknown(8)):
            packed = zero_i32x16()
            for back in range(8):
                four = four_bytes(q, 32 * (7 - back) + 4 * word)
                packed = bit_or(shift_left(packed, 1), bit_and(shift_right(four, drop), 0x01010101))
            store_i32x16(words + 64 * word, packed)

    return one_bit


# third_bits(q, words): bit 2 of 256 columns -> 8 words; bit i of byte l is that of column 32 * i + l.
third_bits, fifth_bits = _one_bit(2), _one_bit(4)


@inline
def write_words(words, block, out):
    """Words, int32 [bytes of a block / 4, 16 lanes], as the 16 blocks at `out`; block: the type's declaration."""
    _write_words(words, block.bytes // 4, out, block.bytes)


@inline
def write_d_words(d, words, block, out):
    """The same for blocks that are d, a float16 whose bits are given as i32x16, and then words."""
    scatter_u16(out + block.d, block.bytes, d)
    _write_words(words, block.bytes // 4, out + 2, block.bytes)


@inline
def write_words_d(words, block, d, out):
    """The same for blocks that are words, and then d."""
    _write_words(words, block.bytes // 4, out, block.bytes)
    scatter_u16(out + block.d, block.bytes, d)


@inline
def _write_words(words, count, out, size):
    for part in range(unknown(count // 16)):
        transpose16(words + 1024 * part, LANE_BYTES, out + 64 * part, size)
    if count < 16:
        for word in range(unknown(count)):
            scatter_u32(out + 4 * word, size, load_i32x16(words + LANE_BYTES * word))
    elif count % 16 != 0:
        transpose16(words + LANE_BYTES * (count - 16), LANE_BYTES, out + 4 * (count - 16), size)
