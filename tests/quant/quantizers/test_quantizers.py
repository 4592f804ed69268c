"""What every quantizer must do, and the bytes that ggml's makes of the golden numbers."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from places import DATA

from qcli.doctor.twins import quantize as twin
from quant import quantizers

GOLDEN = [DATA / name for name in ("quants.npz", "quants-edge.npz")]
NAMES = quantizers.names()
EXACT = [name for name in NAMES if not name.startswith(("IQ1", "IQ2", "IQ3"))]  # others: see test_grid_quantizers
PLAIN = [name for name in NAMES if hasattr(twin, name.lower())]
WEIGHED = [name for name in NAMES if quantizers.find(name).uses_importance]


def golden_cases():
    """(file, type, whether by importance) of every golden block of a type that is here."""
    for path in GOLDEN:
        with np.load(path) as file:
            for key in sorted(set(file) - {"x", "imatrix"}):
                name, weighed, _ = key.partition("+imatrix")
                if name in EXACT:
                    yield pytest.param(path, name, bool(weighed), id=f"{path.stem}-{key}")


def dequantized(name, data):
    return quants.dequantize(data, GGMLQuantizationType[name])


def numbers(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def importance_of(columns, seed=1):
    return np.exp(np.random.default_rng(seed).standard_normal(columns)).astype(np.float32)


def round_trip(name, x, importance=None):
    """Without importance, all columns weigh the same for types that need it."""
    if importance is None and quantizers.find(name).needs_importance:
        importance = np.ones(x.shape[1], np.float32)
    return dequantized(name, quantizers.find(name).quantize(x, importance))


def test_all_of_them_are_found():
    assert {"Q8_0", "Q4_0", "Q4_K"} <= set(NAMES)
    with pytest.raises(KeyError):
        quantizers.find("Q9_Z")


@pytest.mark.parametrize("name", NAMES)
def test_block_is_as_long_as_the_file_format_says(name):
    block, size = quants.GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    kind = quantizers.find(name)
    assert (kind.name, kind.block.columns, kind.block.bytes, kind.row_bytes(512)) == (
        name,
        block,
        size,
        512 // block * size,
    )


@pytest.mark.parametrize(("path", "name", "weighed"), list(golden_cases()))
def test_bytes_are_those_of_ggml(path, name, weighed):
    """So their error is no larger, either. The edge file: heavy tails, constants, ties, tiny and negligible numbers,
    parts of very different size, importance that is 0 for a fifth of all columns and for some blocks.
    """
    with np.load(path) as golden:
        x, importance, expected = golden["x"], golden["imatrix"], golden[name + "+imatrix" * weighed]
    np.testing.assert_array_equal(quantizers.find(name).quantize(x, importance if weighed else None), expected)


def test_every_type_has_golden_bytes():
    tested = {case.values[1] for case in golden_cases()}
    assert set(EXACT) - tested <= {"F32"}


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.95]), st.sampled_from([0, 1, 3, 5]))
def test_plain_types_are_their_twins(name, seed, zeros, digits):
    """Numbers of every size, some 0; with few binary digits there are ties."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((8, 512)) * np.exp(4 * rng.standard_normal((8, 1))) * (rng.random((8, 512)) >= zeros)
    if digits:
        step = np.exp2(np.ceil(np.log2(np.abs(x).max(axis=1, keepdims=True) + 1e-9)) - digits)
        x = np.round(x / step) * step
    x = x.astype(np.float32) + 0  # no -0, whose minimum is either zero
    np.testing.assert_array_equal(quantizers.find(name).quantize(x), getattr(twin, name.lower())(x))


def test_every_type_without_a_search_has_a_twin():
    searched = {"IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
    assert set(EXACT) - set(PLAIN) == searched


@pytest.mark.parametrize("name", NAMES)
def test_blocks_do_not_depend_on_where_they_lie(name):
    """Rows alone, in pieces by several threads, and written into a part of something larger."""
    kind = quantizers.find(name)
    x, importance = numbers(301, 1280), importance_of(1280)
    whole = kind.quantize(x, importance, threads=3)
    np.testing.assert_array_equal(kind.quantize(x[:1], importance), whole[:1])
    np.testing.assert_array_equal(kind.quantize(x[100:117], importance), whole[100:117])
    tensor = np.full((300, kind.row_bytes(1280)), 7, np.uint8)
    kind.quantize_into(tensor[2:300], x[2:300], importance, threads=2)
    np.testing.assert_array_equal(tensor[2:], whole[2:300])
    assert (tensor[:2] == 7).all()


@pytest.mark.parametrize("name", NAMES)
def test_zeros_stay_zeros(name):
    x = numbers(3, 512)
    x[1] = 0
    x[2, 256:] = 0
    for importance in (None, importance_of(512)):
        found = round_trip(name, x, importance)
        assert not found[1].any()
        assert not found[2, 256:].any()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_quantized_to_nothing(name):
    kind = quantizers.find(name)
    assert kind.quantize(np.zeros((0, 512), np.float32), importance_of(512)).shape == (0, kind.row_bytes(512))


@pytest.mark.parametrize("name", NAMES)
def test_a_power_of_two_only_moves_the_scale(name):
    x = numbers(4, 512)
    np.testing.assert_array_equal(round_trip(name, x * 32), round_trip(name, x) * 32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e4])
def test_huge_and_tiny_numbers_are_no_worse_than_zero(name, size):
    """Beyond what float16 scales can hold, a number may become 0, but not larger than it was."""
    x = numbers(4, 512) * np.float32(size)
    for importance in (None, importance_of(512)):
        found = round_trip(name, x, importance)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found - x) <= np.linalg.norm(x) * 1.001


@pytest.mark.parametrize("name", NAMES)
def test_numbers_that_are_none_end_in_some_block(name):
    x = numbers(16, 512)
    x[0], x[1, 3], x[2, 300], x[3, 40] = np.nan, np.inf, -np.inf, np.nan
    found = quantizers.find(name).quantize(x, importance_of(512))
    np.testing.assert_array_equal(found[4:], quantizers.find(name).quantize(x[4:], importance_of(512)))


@pytest.mark.parametrize("name", WEIGHED)
def test_what_is_important_is_nearer(name):
    x, importance = numbers(8, 512), np.ones(512, np.float32)
    importance[::2] = 100
    plain, weighed = round_trip(name, x) - x, round_trip(name, x, importance) - x
    assert np.linalg.norm(weighed[:, ::2]) < 0.98 * np.linalg.norm(plain[:, ::2])
    assert np.linalg.norm(weighed[:, 1::2]) > np.linalg.norm(plain[:, 1::2])


def test_shapes_that_do_not_fit_are_refused():
    q4_k, x = quantizers.find("Q4_K"), np.zeros((2, 512), np.float32)
    with pytest.raises(ValueError, match="multiple of 256 columns, not 128"):
        q4_k.quantize(np.zeros((2, 128), np.float32))
    with pytest.raises(ValueError, match="importance of"):
        q4_k.quantize(x, np.ones(256, np.float32))
    for out in (np.zeros((2, 280), np.uint8), np.zeros((2, 288), np.int8), np.zeros((2, 576), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match=r"makes bytes \[2, 288\]"):
            q4_k.quantize_into(out, x)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 1000])
def test_numbers_that_are_none_are_found(count):
    x = numbers(1, count)[0] * np.float32(5e37)
    assert quantizers.is_finite(x)
    for place in {0, count // 2, count - 1} if count else ():
        for value in (np.nan, np.inf, -np.inf):
            bad = x.copy()
            bad[place] = value
            assert not quantizers.is_finite(bad)


def test_q8_0_on_paper():
    x = np.zeros((1, 32), np.float32)
    x[0, :5] = [127, -127, 2.5, -2.5, 0.49]
    block = quantizers.find("Q8_0").quantize(x)[0]
    assert block[:2].tobytes() == np.float16(1).tobytes()
    assert block[2:7].view(np.int8).tolist() == [127, -127, 3, -3, 0]


def test_q4_0_on_paper():
    x = np.zeros((1, 32), np.float32)
    x[0, :4], x[0, 16] = [-8, 7, 1, -0.5], 2
    block = quantizers.find("Q4_0").quantize(x)[0]
    assert block[:2].tobytes() == np.float16(1).tobytes()  # the largest magnitude, -8, is q = 0
    assert block[2:7].tolist() == [10 << 4 | 0, 8 << 4 | 15, 8 << 4 | 9, 8 << 4 | 8, 0x88]


def test_q4_k_on_paper():
    """Numbers that it can hold are held: scales and minima in whole steps, every level used."""
    levels = np.tile(np.arange(16), 16)
    scale, minimum = np.repeat([63, 10, 20, 30, 40, 50, 60, 1], 32), np.repeat([63, 0, 30, 3, 5, 50, 60, 0], 32)
    x = (scale * levels - 8 * minimum).astype(np.float32)[None]
    np.testing.assert_array_equal(round_trip("Q4_K", x), x)


def test_q6_k_on_paper():
    """Scales from -128 to 127, each with all levels that 16 columns have room for."""
    levels = np.concatenate([[-32, 31], np.arange(-7, 7)])
    x = np.outer([-128, 127, 1, 100, *range(10, 22)], levels).astype(np.float32).reshape(1, 256)
    np.testing.assert_allclose(round_trip("Q6_K", x), x, atol=1)
    np.testing.assert_array_equal(round_trip("Q6_K", x)[0, :16], x[0, :16])


@pytest.mark.parametrize(
    ("name", "first", "block"),
    [
        ("Q4_1", [2, 17, 3.5], [0, 0x3C, 0, 0x40, 0 | 0 << 4, 15, 2]),  # d 1, m 2, halves up
        ("Q5_1", [2, 33, 3.5], [0, 0x3C, 0, 0x40, 0b010, 0, 0, 0, 0, 15, 2]),
        ("Q5_0", [-16, 15, 1], [0, 0x3C, 0b11111110, 255, 255, 255, 0, 15, 1]),
        ("MXFP4", [6, -6, 1.25, -0.25, 0.26], [127, 7, 15, 2, 0, 1]),  # 4 = 2^2 is e 127; a tie is the smaller
        ("NVFP4", [6, -3, 1, -0.5], [0x38, 0, 0, 0, 7, 13, 2, 9]),  # scale 1
        ("TQ2_0", [2, -2, 1, 0.99], [2, 0, 2, 1]),
        ("BF16", [1, 1 + 2**-8, 1 + 3 * 2**-8], [0x80, 0x3F, 0x80, 0x3F, 0x82, 0x3F]),  # ties to even
        ("F16", [1, 1 + 2**-11, 1 + 3 * 2**-11, 1e6], [0, 0x3C, 0, 0x3C, 2, 0x3C, 0, 0x7C]),
    ],
)
def test_first_bytes_on_paper(name, first, block):
    kind = quantizers.find(name)
    fill = 2 if name in ("Q4_1", "Q5_1") else 0
    x = np.full((1, 256), fill, np.float32)
    x[0, : len(first)] = first
    found = kind.quantize(x)[0, : len(block)].copy()
    if name.startswith("TQ"):
        found &= 3  # columns 32, 64 and 96 in the same bytes
    elif kind.block.columns in (16, 32, 64):
        head = kind.block.bytes - kind.block.columns // 2
        found[head:] &= 15
    assert found.tolist() == block
