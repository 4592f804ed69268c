"""No file of infinities: numbers and importance beyond what a type holds are refused, what it holds is not."""

from __future__ import annotations

import gguf_maker as maker
import numpy as np
import pytest

from qcli.quantize import range_check
from quant import formats, quantizers

COLUMNS = 512
RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((16, COLUMNS)).astype(np.float32)
WILD = np.exp2(RNG.uniform(-126, 127, COLUMNS)).astype(np.float32)  # from 1e-38 to 1e38 in one row
# The largest power of ten that normal numbers may be multiplied by.
REACH = {
    "F32": 37, "BF16": 37, "MXFP4": 37, "F16": 4, "NVFP4": 3, "Q4_1": 4, "Q5_1": 4, "TQ1_0": 4, "TQ2_0": 4,
    "Q2_K": 5, "Q4_0": 5, "Q4_K": 6, "Q5_0": 5, "Q5_K": 6, "IQ4_NL": 6, "Q3_K": 6, "Q8_0": 6, "IQ1_S": 6, "IQ1_M": 6,
    "IQ2_XXS": 6, "IQ2_XS": 6, "IQ2_S": 6, "IQ3_XXS": 7, "IQ3_S": 7, "IQ4_XS": 7, "Q6_K": 7,
}  # fmt: skip


def held(kind: str, values: np.ndarray, importance: np.ndarray | None = None) -> bool:
    quantizer = quantizers.find(kind)
    if quantizer.needs_importance and importance is None:
        importance = np.ones(values.shape[1], np.float32)
    return range_check.holds(kind, values, importance, quantizer.quantize(values, importance))


@pytest.mark.parametrize("kind", quantizers.names())
def test_a_type_holds_numbers_up_to_its_reach(kind):
    assert [power for power in range(38) if held(kind, VALUES * np.float32(10.0**power))] == list(
        range(REACH[kind] + 1)
    )


@pytest.mark.parametrize("kind", quantizers.names())
def test_one_number_too_large_is_enough(kind):
    values = VALUES.copy()
    values[7, 300] = 3e38
    assert held(kind, values) == (kind in ("F32", "BF16", "MXFP4"))


def test_bf16_rounds_the_last_numbers_to_infinity():
    values = np.full((16, 32), np.finfo(np.float32).max, np.float32)
    assert not held("BF16", values)
    assert held("F32", values)


GUIDED = [kind for kind in quantizers.names() if quantizers.find(kind).uses_importance]


@pytest.mark.parametrize("kind", GUIDED)
@pytest.mark.parametrize("factor", [2.0**-140, 2.0**-60, 2.0**60, 2.0**126])
def test_only_relations_of_importance_count(kind, factor):
    importance = RNG.uniform(1, 2, COLUMNS).astype(np.float32)
    importance = np.ldexp(np.rint(np.ldexp(importance, 8)), -8)  # so that none is rounded when it is made smaller
    make = quantizers.find(kind).quantize
    scaled = np.ldexp(importance, int(np.log2(factor))).astype(np.float32)
    assert np.array_equal(make(VALUES, scaled), make(VALUES, importance))


@pytest.mark.parametrize("kind", GUIDED)
@pytest.mark.parametrize("importance", [WILD, np.zeros(COLUMNS, np.float32)], ids=["wild", "zero"])
def test_no_importance_makes_numbers_that_are_not_finite(kind, importance):
    converted = quantizers.find(kind).quantize(VALUES, importance)
    assert np.isfinite(formats.find(kind).dequantize(converted)).all()


def test_blocks_that_are_not_finite_are_seen_whatever_made_them():
    infinite = np.full((1, 1), np.inf, np.float16).view(np.uint8)
    blocks = np.concatenate([infinite, np.zeros((1, 32), np.uint8)], 1)  # Q8_0
    assert not range_check.holds("Q8_0", np.ones((1, 32), np.float32), np.ones(32, np.float32), blocks)


@pytest.mark.parametrize(("kind", "other"), [("F16", "BF16"), ("Q4_0", "BF16"), ("NVFP4", "BF16"), ("Q4_1", "BF16")])
def test_the_message_says_which_tensor_and_what_to_do(type_line, tmp_path, kind, other):
    numbers = np.full((4, 64), 1e6, np.float32)
    model = maker.File([], [maker.tensor("a.weight", (4, 64))], numbers.tobytes())
    source, out = maker.write(tmp_path / "in.gguf", model), tmp_path / "out.gguf"
    line = ["quantize", str(source), str(out), "Q8_0", "--tensor", f"a.weight={kind}"]
    code, _, err = type_line(*line)
    assert code == 1
    assert f'the tensor "a.weight" holds numbers too large for {kind}: 1e+06' in err
    assert not out.exists()
    hint = err.split("'")[1]
    assert hint == rf"a\.weight={other}"
    assert type_line("quantize", str(source), str(out), "Q8_0", "--tensor", hint)[0] == 0
