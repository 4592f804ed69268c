"""Quantizers without a search, a block at a time in plain NumPy."""

import numpy as np

from qcli.doctor.twins.functions import Array

F = np.float32
FOUR_BIT = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], F)


def blocks(x: Array, columns: int) -> Array:
    """[rows, n] -> [rows, blocks, columns]."""
    return x.reshape(len(x), -1, columns)


def half(value: Array) -> Array:
    """float16 -> its two bytes."""
    with np.errstate(over="ignore"):
        return value.astype(np.float16)[..., None].view(np.uint8)


def inverse(d: Array) -> Array:
    """1 / d, 0 where d is 0; one more axis behind."""
    return np.divide(1, d, out=np.zeros_like(d), where=d != 0)[..., None]


def away(value: Array) -> Array:
    """Rounded, halves away from zero."""
    return np.trunc(np.float64(value) + np.copysign(0.5, value)).astype(int)


def largest(x: Array) -> Array:
    """The largest magnitude along the last axis."""
    return np.abs(x).max(axis=-1)


def extreme(x: Array) -> Array:
    """The first number of largest magnitude."""
    return np.take_along_axis(x, np.abs(x).argmax(axis=-1)[..., None], axis=-1)[..., 0]


def nibbles(q: Array) -> Array:
    """Two numbers of 4 bits a byte, those of the first half low."""
    count = q.shape[-1] // 2
    return (q[..., :count] & 15 | (q[..., count:] & 15) << 4).astype(np.uint8)


def fifth_bits(q: Array) -> Array:
    """Bit 4 of each number, 8 a byte."""
    return np.packbits(q >> 4 & 1, axis=-1, bitorder="little")


def row(*parts: Array) -> Array:
    """The parts of every block, one behind the other -> [rows, bytes]."""
    joined = np.concatenate(parts, axis=-1)
    return joined.reshape(len(joined), -1)


def q8_0(x: Array) -> Array:
    """float32 [rows, n] -> uint8 [rows, bytes], as all types below."""
    x = blocks(x, 32)
    d = largest(x) / F(127)
    return row(half(d), away(x * inverse(d)).astype(np.int8).view(np.uint8))


def _around_zero(x: Array, bits: int) -> tuple[Array, Array]:
    x = blocks(x, 32)
    d = extreme(x) / F(-(2 ** (bits - 1)))
    return d, np.minimum(x * inverse(d) + F(2 ** (bits - 1) + 0.5), 2**bits - 1).astype(int)


def _from_least(x: Array, bits: int) -> tuple[Array, Array, Array]:
    x = blocks(x, 32)
    least = x.min(axis=-1)
    d = (x.max(axis=-1) - least) / F(2**bits - 1)
    return d, least, ((x - least[..., None]) * inverse(d) + F(0.5)).astype(int)


def q4_0(x: Array) -> Array:
    """Around zero, of 4 bits."""
    d, q = _around_zero(x, 4)
    return row(half(d), nibbles(q))


def q5_0(x: Array) -> Array:
    """Around zero, of 5 bits."""
    d, q = _around_zero(x, 5)
    return row(half(d), fifth_bits(q), nibbles(q))


def q4_1(x: Array) -> Array:
    """From the least, of 4 bits."""
    d, least, q = _from_least(x, 4)
    return row(half(d), half(least), nibbles(q))


def q5_1(x: Array) -> Array:
    """From the least, of 5 bits."""
    d, least, q = _from_least(x, 5)
    return row(half(d), half(least), fifth_bits(q), nibbles(q))


def _nearest(x: Array, d: Array) -> Array:
    """The first of the 16 values that is nearest."""
    return np.abs(FOUR_BIT * d[..., None, None] - x[..., None]).argmin(axis=-1)


def mxfp4(x: Array) -> Array:
    """Four-bit floats with a power of two."""
    x = blocks(x, 32)
    _, exponent = np.frexp(largest(x))
    e = np.where(largest(x) > 0, exponent - 1 - 2 + 127, 0)
    return row(e.astype(np.uint8)[..., None], nibbles(_nearest(x, np.exp2(F(e) - 128))))


def nvfp4(x: Array) -> Array:
    """Four-bit floats, 16 of which share a float of 8 bits."""
    x = blocks(x, 16)
    codes = np.arange(0x7F)
    scales = np.where(codes < 8, codes / 2**9, (1 + codes % 8 / 8) * 2.0 ** (codes // 8 - 7)).astype(F)
    wanted = largest(x) / F(6)
    code = len(codes) - 1 - np.abs(wanted[..., None] - scales)[..., ::-1].argmin(axis=-1)  # halves up
    code = np.where((code == 8) & (wanted < scales[8]), 7, code)  # as ggml has it: never up to the first normal number,
    code = np.where(code >= 0x78, 0x7E, code)  # and 256 and more is the largest
    q = nibbles(_nearest(x, scales[code] / 2))
    return row(code.astype(np.uint8).reshape(len(x), -1, 4), q.reshape(len(x), -1, 32))


def _ternary(x: Array) -> tuple[Array, Array]:
    x = blocks(x, 256)
    d = largest(x)
    return d, away(x * inverse(d)) + 1


def tq2_0(x: Array) -> Array:
    """Three values, in 2 bits each."""
    d, q = _ternary(x)
    q = q.reshape(*q.shape[:2], 2, 4, 32)
    packed = (q << np.array([0, 2, 4, 6])[:, None]).sum(axis=-2).astype(np.uint8)
    return row(packed.reshape(*packed.shape[:2], 64), half(d))


def tq1_0(x: Array) -> Array:
    """Three values, five of them in a byte."""
    d, q = _ternary(x)
    parts = []
    for first, step, digits in ((0, 32, 5), (160, 16, 5), (240, 4, 4)):
        part = q[..., first : first + step * digits].reshape(*q.shape[:2], digits, step)
        value = (part * 3 ** np.arange(4, 4 - digits, -1)[:, None]).sum(axis=-2)
        parts.append((-(-value * 256 // 243)).astype(np.uint8))
    return row(*parts, half(d))


def f32(x: Array) -> Array:
    """As it is."""
    return x.view(np.uint8)


def f16(x: Array) -> Array:
    """Rounded to float16."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).view(np.uint8)


def bf16(x: Array) -> Array:
    """Of the two neighbours the nearer, the even one of two as near."""
    low = x.view(np.uint32) & 0xFFFF0000
    high = low + 0x10000
    below, above = (np.abs(np.float64(x) - np.float64(at.view(F))) for at in (low, high))
    up = (above < below) | (above == below) & (low >> 16 & 1 == 1)
    return (np.where(up, high, low) >> 16).astype(np.uint16).view(np.uint8)
