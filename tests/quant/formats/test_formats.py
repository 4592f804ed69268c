"""One table that every block format passes."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from kernel_helpers import float_matrix, new_plan, random_rows, replay, source
from places import DATA

from qcli.bench.random_blocks import write_scales
from qcli.doctor.twins.activation import quantize, seen
from qcli.doctor.twins.matmul import matmul as twin
from qcli.doctor.twins.matmul import size, weights
from quant import formats
from quant.kernels.embed import embed
from quant.kernels.matmul import matmul
from quant.plan import Activation, aligned
from quant.weights import Matrix

GOLDEN = DATA / "quants.npz"
FORMATS = formats.names()
QUANTIZED = [name for name in FORMATS if formats.find(name).activation == "q8"]
LARGEST_ERROR = {  # of the golden bytes, relative
    "Q4_0": 0.04, "Q4_1": 0.04, "Q5_0": 0.022, "Q5_1": 0.02, "Q8_0": 0.003,
    "Q2_K": 0.12, "Q3_K": 0.065, "Q4_K": 0.035, "Q5_K": 0.018, "Q6_K": 0.01, "TQ1_0": 0.35, "TQ2_0": 0.35,
    "IQ1_S": 0.35, "IQ1_M": 0.3, "IQ2_XXS": 0.4, "IQ2_XS": 0.2, "IQ2_S": 0.17, "IQ3_XXS": 0.22, "IQ3_S": 0.2,
    "IQ4_NL": 0.04, "IQ4_XS": 0.04, "MXFP4": 0.05, "NVFP4": 0.055,
}  # fmt: skip


def official(name, data):
    """The definition, by the package that writes such files."""
    return quants.dequantize(data, GGMLQuantizationType[name])


def same_bits(a, b):
    return a.dtype == b.dtype and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def product(w, x, tokens=None, threads=1):
    """x w^T by the kernels: one token's, or a tile's."""
    plan = new_plan(len(x), threads)
    y = Activation(len(x), w.rows)
    matmul(plan, source(plan, x), [(w, y)])
    replay(plan, tokens)
    return y.values


def table_rows(w, ids):
    """Rows of an embedding table by the kernels."""
    plan, out = new_plan(len(ids)), Activation(len(ids), w.columns)
    places = aligned(len(ids), np.int64)
    places[:] = ids
    embed(plan, places, w, out)
    replay(plan)
    return out.values


def test_all_of_them_are_found():
    assert {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"} <= set(FORMATS)
    with pytest.raises(KeyError):
        formats.find("Q9_Z")


@pytest.mark.parametrize("name", FORMATS)
def test_block_is_as_long_as_the_file_format_says(name):
    kind = formats.find(name)
    block, size = quants.GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    assert (kind.name, kind.block.columns, kind.block.bytes) == (name, block, size)
    assert kind.row_bytes(512) == 512 // block * size


HALF, QUARTER = np.float16(0.5).tobytes(), np.float16(0.25).tobytes()
# Sub-block 0: scale 1, minimum 5; sub-block 1: scale 2, minimum 6; 7: scale 7 | 3 << 4, minimum 8.
SIX_BITS = bytes([1, 2, 3, 0xC4, 5, 6, 7, 8, 0x21, 0x43, 0x65, 0x87])
BY_HAND = [  # a block, and values by column
    ("BF16", bytes([0x80, 0x3F]), {0: 1}),
    ("BF16", bytes([0x00, 0xC0]), {0: -2}),
    ("F16", QUARTER, {0: 0.25}),
    ("Q8_0", HALF + bytes([0, 1, 255, 127, 128] + 27 * [2]), {0: 0, 1: 0.5, 2: -0.5, 3: 63.5, 4: -64, 5: 1}),
    # columns i (low) and i + 16 (high)
    ("Q4_0", HALF + bytes([0x80, 0x9F] + 14 * [0x88]), {0: -4, 1: 3.5, 2: 0, 16: 0, 17: 0.5, 18: 0}),
    ("Q4_1", HALF + QUARTER + bytes([0x80, 0x9F] + 14 * [0]), {0: 0.25, 1: 7.75, 2: 0.25, 16: 4.25, 17: 4.75}),
    # h: columns 0, 9 and 31
    ("Q5_0", HALF + bytes([1, 2, 0, 128, 0x21] + 15 * [0]), {0: 0.5, 1: -8, 9: 0, 16: -7, 31: 0}),
    ("Q5_1", HALF + QUARTER + bytes([1, 2, 0, 128, 0x21] + 15 * [0]), {0: 8.75, 1: 0.25, 9: 8.25, 16: 1.25, 31: 8.25}),
    ("IQ4_NL", HALF + bytes([0x80, 0x7F] + 14 * [0xF8]), {0: -63.5, 1: 56.5, 2: 0.5, 16: 0.5, 17: -5, 18: 56.5}),
    # 2^(127 - 128); the same columns, 4 bits: sign, exponent, mantissa
    ("MXFP4", bytes([127, 0x80, 0x7F] + 14 * [0x92]), {0: 0, 1: -6, 2: 1, 16: 0, 17: 6, 18: -0.5}),
    ("MXFP4", bytes([0] + 16 * [0x71]), {0: 2**-128, 16: 12 * 2**-128}),
    ("MXFP4", bytes([255] + 16 * [0x91]), {0: 2**127, 16: -(2**127)}),
    # scales 0: 3 | 2 << 4, 1: 5, 7: 15 | 3 << 4, each less 32; columns i (low) and i + 16 (high) of each 32
    (
        "IQ4_XS",
        HALF + bytes([0b10, 0b11 << 6, 0x53, 0, 0, 0xF0, 0x80, 0x7F] + 14 * [0x88] + [0x0F] + 110 * [0] + [0xF0]),
        {0: 1.5 * -127, 1: 1.5 * 113, 2: 1.5, 16: 1.5, 17: 1.5 * -10, 32: -13.5 * 113, 255: 15.5 * 113},
    ),
    # 207: the fraction of 256 that begins with the digits 2, 1, 0, 2, 1 of three; where digits go as bytes end
    (
        "TQ1_0",
        bytes(([207] + 31 * [0]) + ([207] + 15 * [0]) + [207, 0, 0, 0]) + HALF,
        {0: 0.5, 1: -0.5, 32: 0, 64: -0.5, 96: 0.5, 160: 0.5, 192: -0.5, 224: 0, 240: 0.5, 248: -0.5, 252: 0.5},
    ),
    ("TQ2_0", bytes([0b11_10_01_00] + 31 * [0] + [2] + 31 * [0]) + HALF, {0: -0.5, 32: 0, 64: 0.5, 96: 1, 128: 0.5}),
    # sixteen (minimum << 4 | scale), then bits of columns i, i + 32, i + 64 and i + 96, lowest first
    (
        "Q2_K",
        bytes([0x23, 0x41, 0x01, 0, 0x02, 0, 0x03, 0, 0xF1, 0, 0, 0, 0, 0, 0, 0])
        + bytes([0b11_10_01_00] + 15 * [0] + [2] + 15 * [0] + [3] + 31 * [0])
        + HALF
        + QUARTER,
        {0: -0.5, 1: -0.5, 16: 1 - 1, 32: 0.5, 64: 2, 96: 4.5, 128: 1.5 - 3.75, 129: -3.75},
    ),
    # high bits of columns 0 and 32; scale 0: 1 | 2 << 4, 2: 15 | 1 << 4, 4: 5 | 3 << 4, 8: 2, each less 32
    (
        "Q3_K",
        bytes([0b11] + 31 * [0] + [0b11_10_11_01] + 63 * [0])
        + bytes([0x21, 0, 15, 0, 5, 0, 0, 0, 0b00_00_11_10, 0, 0b00_00_10_01, 0])
        + HALF,
        {0: 0.5 * (5 - 4), 1: 0.5 * -4, 32: 0.5 * -1 * (7 - 4), 64: 0.5 * 21 * (2 - 4), 96: 0, 128: 0.5 * -30 * -4},
    ),
    # sub-blocks by 1/2, 3.75, 2^-10, 0: half of 1, 7.5, the smallest there is, and what is not a number
    (
        "NVFP4",
        bytes([0x38, 0x4F, 0x01, 0x7F]) + bytes(4 * ([0x21] + 7 * [0xF7])),
        {0: 0.5, 8: 1, 1: 6, 15: -6, 16: 3.75, 24: 7.5, 32: 2**-10, 40: 2**-9, 48: 0, 63: 0},
    ),
    (
        "Q4_K",
        HALF + QUARTER + SIX_BITS + bytes([0x21] + 127 * [0]),
        {0: 0.5 - 1.25, 1: -1.25, 32: 2 - 1.5, 33: -1.5, 255: -2},
    ),
    (
        "Q5_K",
        HALF + QUARTER + SIX_BITS + bytes([1 | 1 << 7] + 31 * [0]) + bytes([0x21] + 95 * [0] + [0xF0] + 31 * [0]),
        {0: 0.5 * 17 - 1.25, 1: -1.25, 32: 2 - 1.5, 224: 0.5 * 55 * 31 - 2},
    ),
    (
        "Q6_K",
        bytes([0x21] + 127 * [0]) + bytes([0b11_10_01_00] + 63 * [0]) + bytes(8 * [1, 254]) + HALF,
        {0: 0.5 * (1 - 32), 32: 0.5 * (16 - 32), 64: 0.5 * (2 + 32 - 32), 96: 0.5 * (48 - 32), 16: 0.5 * -2 * -32},
    ),
    # point 1 is 3 1 1 1, point 256 is 7 5 9 5; scales 1, 2 and 15
    (
        "IQ3_S",
        HALF + bytes([1, 0] + 62 * [0] + [0b10] + 7 * [0] + [0b10001] + 31 * [0] + [0x21, 0, 0, 0xF0]),
        {0: -1.5 * 3, 1: 1.5, 4: -1.5 * 7, 5: 1.5 * 5, 6: 1.5 * 9, 32: 2.5, 255: 15.5},
    ),
    # point 1 is 20 4 4 4; an odd number of signs makes the eighth negative
    (
        "IQ3_XXS",
        HALF + bytes([1] + 63 * [0]) + (1 | 3 << 7 | 3 << 28).to_bytes(4, "little") + bytes(28),
        {0: -17.5, 1: 3.5, 7: -3.5, 8: -3.5, 9: -3.5, 15: 3.5, 32: 0.5},
    ),
    # point 1 is 43 and seven times 8, point 256 is 25 25 25 25 25 8 25 8
    (
        "IQ2_S",
        HALF + bytes([1, 0] + 30 * [0] + [1] + 31 * [0] + [0b0100] + 7 * [0] + [0x21] + 7 * [0]),
        {0: -43 * 0.1875, 1: 1.5, 8: 25 * 0.1875, 13: 1.5, 16: 2.5, 32: 0.5},
    ),
    # point 256 is 43 25 8 8 8 8 8 25
    (
        "IQ2_XS",
        HALF + bytes([1, 1 << 1, 0, 1 | 3 << 1] + 60 * [0] + [0x21] + 7 * [0]),
        {0: -43 * 0.1875, 1: 1.5, 7: -1.5, 8: -43 * 0.1875, 9: -25 * 0.1875, 15: 25 * 0.1875, 16: 2.5, 32: 0.5},
    ),
    (
        "IQ2_XXS",
        HALF + bytes([1, 0, 0, 0]) + (1 | 3 << 7 | 3 << 28).to_bytes(4, "little") + bytes(56),
        {0: -43 * 0.4375, 1: 3.5, 7: -3.5, 8: -3.5, 9: -3.5, 10: 3.5, 32: 0.5},
    ),
    # point 1 is 1 and seven times -1, point 256 is -1 0 1 0 1 -1 0 -1; scales 2 and 0, the first 1/8 taken off
    (
        "IQ1_S",
        HALF + bytes([1, 0] + 30 * [0]) + (1 << 3 | 2 << 12 | 1 << 15).to_bytes(2, "little") + bytes(14),
        {0: 2.5 * 0.875, 1: 2.5 * -1.125, 8: 2.5 * -1.125, 9: 2.5 * -0.125, 10: 2.5 * 0.875, 32: 0.5 * -0.875},
    ),
    # the same points; d is 0x3800; scales 2, 1 and 0, 1/8 taken off the first eight columns
    (
        "IQ1_M",
        bytes([1, 0] + 30 * [0] + [0x18] + 15 * [0] + [2 | 1 << 3, 0, 0, 0, 0, 0x80, 0, 0x30]),
        {0: 2.5 * 0.875, 1: 2.5 * -1.125, 8: 2.5 * -0.875, 10: 2.5 * 1.125, 16: 1.5 * -0.875, 32: 0.5 * -0.875},
    ),
]


@pytest.mark.parametrize(("name", "block", "values"), BY_HAND)
def test_blocks_written_by_hand(name, block, values):
    found = formats.find(name).dequantize(np.frombuffer(block, np.uint8)[None])[0]
    assert found[list(values)].tolist() == list(values.values())


@pytest.mark.parametrize("name", FORMATS)
def test_dequantize_of_random_bytes_is_the_official_one(name):
    kind, rng = formats.find(name), np.random.default_rng(1)
    data = rng.integers(0, 256, (400, kind.row_bytes(512)), np.uint8)
    with np.errstate(all="ignore"):
        finite = np.isfinite(official(name, data))
    data = data.reshape(-1, kind.block.bytes)[finite.reshape(-1, kind.block.columns).all(axis=1)]
    expected = official(name, data)
    assert len(data) > 700
    assert same_bits(kind.dequantize(data), expected)


@pytest.mark.parametrize("name", QUANTIZED)
def test_dequantize_of_golden_bytes(name):
    with np.load(GOLDEN) as golden:
        x, data = golden["x"], golden[name if name in golden else f"{name}+imatrix"]
    found = formats.find(name).dequantize(data)
    assert same_bits(found, official(name, data))
    assert np.linalg.norm(found - x) <= LARGEST_ERROR[name] * np.linalg.norm(x)


def test_activations_are_seen_as_their_twin_says():
    """A Q4_K matrix that is exactly the identity gives them back."""
    block = np.zeros((256, 144), np.uint8)
    block[:, :2] = np.array([1], np.float16).view(np.uint8)
    block[:, 4:8] = 1
    block[:, 12:16] = 1
    for row in range(256):
        sub, column = divmod(row, 32)
        block[row, 16 + sub // 2 * 32 + column] = 1 << 4 * (sub % 2)
    identity = Matrix(block, formats.find("Q4_K"), 256)
    assert np.array_equal(weights(identity), np.eye(256))
    x = np.random.default_rng(2).standard_normal((3, 256)).astype(np.float32)
    x[1, :64] = 0
    x[2, 32:64] *= 1e-6
    q, d = quantize(x)
    expected = (q * d).reshape(3, 256).astype(np.float32)
    np.testing.assert_allclose(product(identity, x), expected, rtol=3e-7)
    np.testing.assert_allclose(product(identity, x[:1]), expected[:1], rtol=3e-7)
    assert np.abs(seen(x, "q8") - x).max() <= np.abs(x).max() / 127 / 2 * 1.001


def columns_of(name):
    block = formats.find(name).block.columns
    return {1: (16, 48, 96, 512), 32: (32, 64, 96, 512, 1376), 64: (64, 192, 512, 1344), 256: (256, 512, 1280)}[block]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_dot_and_tile_are_exact_for_the_activations_they_see(name, tokens):
    rng = np.random.default_rng(3)
    for columns in columns_of(name):
        w = random_rows(rng, name, 19, columns)
        x = rng.standard_normal((tokens, columns)).astype(np.float32)
        assert np.abs((product(w, x) - twin(x, w)) / size(x, w)).max() < 1e-6


@pytest.mark.parametrize("name", FORMATS)
def test_dot_and_tile_are_near_the_true_product(name):
    rng = np.random.default_rng(4)
    w, x = random_rows(rng, name, 40, 512), rng.standard_normal((9, 512)).astype(np.float32)
    true = x @ weights(w).T
    for found in (product(w, x), np.vstack([product(w, row[None]) for row in x])):
        assert np.linalg.norm(found - true) < 0.012 * np.linalg.norm(true)


@pytest.mark.parametrize("name", QUANTIZED)
def test_the_extremes_of_every_byte_are_exact(name):
    """All bytes the same, activations all at one end: where an int16 sum in between would overflow."""
    for byte in (0x00, 0x7F, 0x80, 0xFF):
        w = random_rows(np.random.default_rng(5), name, 16, 256)
        raw = w.data.reshape(-1, w.format.block.bytes)
        raw[:] = byte
        write_scales(np.random.default_rng(5), name, raw, spread=1)
        for sign in (1, -1):
            x = np.full((3, 256), sign, np.float32)
            assert np.abs(product(w, x) - twin(x, w)).max() <= 1e-6 * x.shape[1]


@pytest.mark.parametrize("name", [name for name in QUANTIZED if formats.find(name).bits])
def test_unpacked_weights_have_the_bits_that_their_format_tells(name):
    """Sums of pairs would not fit into int16 otherwise."""
    kind = formats.find(name)
    data = np.random.default_rng(8).integers(0, 256, (16, kind.row_bytes(256)), np.uint8)
    tile, scales, scratch = (aligned(size, np.uint8) for size in (16 * 256, 2 * 64 * 16, formats.TILE_SCRATCH))
    kind.unpack_tile(*(data.ctypes.data, data.shape[1], 256), *(x.ctypes.data for x in (tile, scales, scales, scratch)))
    assert tile.max() < 1 << kind.bits


@pytest.mark.parametrize("name", FORMATS)
def test_unpacked_rows_are_the_dequantized_ones(name):
    w = random_rows(np.random.default_rng(6), name, 33, columns_of(name)[-1])
    ids = [0, 32, 7, 7, 1]
    expected = w.format.dequantize(w.data)[ids]
    found = table_rows(w, ids)
    if w.format.activation == "f32":
        assert same_bits(found, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-7 * np.abs(expected).max())
    np.testing.assert_array_equal(table_rows(w, ids[:1]), found[:1])


@pytest.mark.parametrize("name", FORMATS)
def test_a_matrix_checks_its_own_shape(name):
    w = random_rows(np.random.default_rng(7), name, 4, 256)
    assert (w.rows, w.row_bytes) == (4, w.format.row_bytes(256))
    assert np.array_equal(w.part(1, 3).data, w.data[1:3])
    with pytest.raises(ValueError, match="rows of 512 columns"):
        Matrix(w.data, w.format, 512)
    with pytest.raises(ValueError, match="bytes are not"):
        Matrix(w.data[:, ::2], w.format, 256)


def test_rows_that_kernels_cannot_step_through_are_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        float_matrix("F32", np.ones((2, 24)))
