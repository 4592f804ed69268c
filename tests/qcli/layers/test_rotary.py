"""How a file's heads turn: its base and dimensions, frequency factors, and scaling positions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_models
from tiny_model import Tiny, f32

from qcli.doctor.twins import rope as twin
from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.runtime.engine import Engine
from quant.kernels.rope import frequencies, yarn

WIDTH = 16  # of the tiny Llama's heads
ARCH = "llama"


@pytest.fixture
def tiny(tmp_path):
    """A tiny Llama, to change."""
    return Tiny.read(reference_models.read("llama").write(tmp_path / "given.gguf"))


@pytest.fixture
def rope_of(tmp_path):
    def read(tiny, **keys):
        tiny.keys |= {f"{ARCH}.rope.{key}": value for key, value in keys.items()}
        with GGUFFile.open(tiny.write(tmp_path / "model.gguf")) as file:
            return read_rope(Hyperparameters(file), interleaved=True)

    return read


def scaling(kind, **keys):
    return {f"scaling.{key}": value for key, value in {"type": kind, **keys}.items()}


def test_plain(tiny, rope_of):
    rope = rope_of(tiny)
    np.testing.assert_allclose(rope.frequencies, twin.angles([1], WIDTH, 10_000.0)[0], rtol=1e-6)
    assert (rope.attention_factor, rope.interleaved) == (1.0, True)


def test_a_part_of_a_head(tiny, rope_of):
    assert len(rope_of(tiny, dimension_count=8).frequencies) == 4


def test_linear(tiny, rope_of):
    plain = rope_of(tiny).frequencies
    assert np.array_equal(rope_of(tiny, scale_linear=2.0).frequencies, plain / 2)
    assert np.array_equal(rope_of(tiny, **scaling("linear", factor=4.0)).frequencies, plain / 4)
    assert rope_of(tiny, **scaling("none")).frequencies.tolist() == plain.tolist()


def test_yarn(tiny, rope_of):
    keys = scaling("yarn", factor=4.0, original_context_length=128)
    rope = rope_of(tiny, **keys)
    np.testing.assert_allclose(rope.frequencies, twin.yarn(WIDTH, 10_000.0, 4, 128), rtol=1e-6)
    assert rope.attention_factor == pytest.approx(0.1 * math.log(4) + 1)
    more = rope_of(tiny, **scaling("yarn", yarn_beta_fast=8.0, yarn_beta_slow=2.0, attn_factor=0.5))
    np.testing.assert_allclose(more.frequencies, twin.yarn(WIDTH, 10_000.0, 4, 128, 8, 2), rtol=1e-6)
    assert more.attention_factor == pytest.approx(0.5 * rope.attention_factor)


def test_yarn_by_hand():
    """Four pairs of base 16, turning 1, 1/2, 1/4 and 1/8 a position: over 16 pi positions 8, 4, 2 and 1 times."""
    unscaled = frequencies(8, 16.0)
    assert unscaled.tolist() == [1, 0.5, 0.25, 0.125]
    found = yarn(unscaled, 16.0, 2, 50, beta_fast=4, beta_slow=1, truncate=False)  # 50 is nearly 16 pi
    np.testing.assert_allclose(found, [1, 0.5, (0.25 + 0.125) / 2, 0.125 / 2], rtol=5e-3)
    assert yarn(unscaled, 16.0, 1, 50).tolist() == unscaled.tolist()


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("factor", [1, 4, 40])
@pytest.mark.parametrize("base", [100.0, 1e4, 5e6])
def test_yarn_against_its_twin(base, factor, truncate):
    found = yarn(frequencies(64, base), base, factor, 4096, truncate=truncate)
    np.testing.assert_allclose(found, twin.yarn(64, base, factor, 4096, truncate=truncate), rtol=1e-5)


def test_frequency_factors(tiny, rope_of):
    """Llama 3.1 and later: a frequency is divided by its factor."""
    plain, factors = rope_of(tiny).frequencies, np.linspace(1, 8, WIDTH // 2).astype(np.float32)
    tiny.put("rope_freqs.weight", "F32", f32(factors), WIDTH // 2)
    np.testing.assert_allclose(rope_of(tiny).frequencies, plain / factors, rtol=1e-6)


def test_factors_for_a_long_context_and_for_a_short_one(tiny, tmp_path):
    """LongRoPE: those for a short one count up to the context that the model was trained with first."""
    tiny.keys |= {f"{ARCH}.rope.{key}": value for key, value in scaling("longrope", attn_factor=1.5).items()}
    tiny.keys[f"{ARCH}.rope.scaling.original_context_length"] = 64
    for name, factor in ("long", 4.0), ("short", 2.0):
        tiny.put(f"rope_factors_{name}.weight", "F32", f32(np.full(WIDTH // 2, factor)), WIDTH // 2)
    with GGUFFile.open(tiny.write(tmp_path / "model.gguf")) as file:
        hparams, plain = Hyperparameters(file), frequencies(WIDTH, 10_000.0)
        for ctx, factor in (0, 4), (65, 4), (64, 2):
            rope = read_rope(hparams, interleaved=True, ctx=ctx)
            np.testing.assert_allclose(rope.frequencies, plain / factor, rtol=1e-6)
            assert rope.attention_factor == 1.5
    tiny.take("rope_factors_long.weight")
    with (
        GGUFFile.open(tiny.write(tmp_path / "model.gguf")) as file,
        pytest.raises(ModelFileError, match="factors_long"),
    ):
        read_rope(Hyperparameters(file))


def test_factors_of_one_change_no_bit(tiny, tmp_path):
    ids = reference_models.read("llama").ids
    before = logits_of(tiny.write(tmp_path / "before.gguf"), ids)
    tiny.put("rope_freqs.weight", "F32", f32(np.ones(WIDTH // 2)), WIDTH // 2)
    assert np.array_equal(logits_of(tiny.write(tmp_path / "after.gguf"), ids), before)


def logits_of(path, ids):
    engine = Engine.load(GGUFFile.open(path), threads=1, ctx=128)
    logits = engine.logits(ids)
    engine.close()
    return logits


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_factors_that_divide_by_nothing(tiny, rope_of, factor):
    tiny.put("rope_freqs.weight", "F32", f32(np.full(WIDTH // 2, factor)), WIDTH // 2)
    with pytest.raises(ModelFileError, match="rope_freqs"):
        rope_of(tiny)


@pytest.mark.parametrize(
    "keys",
    [
        {"dimension_count": 18},
        {"dimension_count": 7},
        {"freq_base": 0.5},
        scaling("linear", factor=-1.0),
        scaling("yarn", factor=1e9),
        scaling("yarn", original_context_length=-5),
        scaling("yarn", yarn_beta_fast=0.0),
    ],
)
def test_what_cannot_be(tiny, rope_of, keys):
    with pytest.raises(ModelFileError, match=r"rope|rotary"):
        rope_of(tiny, **keys)


def test_a_base_of_one_is_scaled_alike(tiny, rope_of):
    keys = scaling("yarn", factor=4.0, original_context_length=128)
    assert rope_of(tiny, freq_base=1.0, **keys).frequencies.tolist() == [0.25] * (WIDTH // 2)


def test_an_unknown_type_of_scaling(tiny, rope_of):
    with pytest.raises(UnsupportedModelError, match="dynamic"):
        rope_of(tiny, **scaling("dynamic"))
