"""A model's header as another of its files would have it: types by the name, and sizes as they are published."""

from __future__ import annotations

import pytest
import reference_models
from places import DATA

from qcli.bench.shapes import find_shape
from qcli.forecast.known_shape import header_of_shape
from qcli.forecast.retyped import Types, bytes_under, mix_of, own_types, retyped, weights_in
from qcli.forecast.retyped import types_under as types_or_none
from qcli.forecast.synthetic_model import SyntheticModel
from qcli.gguf.file import GGUFFile
from qcli.quantize.mixes import MIXES
from qcli.runtime.build import model_of

GB = 10**9
PUBLISHED = [
    ("qwen3-next-80b-a3b", "Q4_K_M", 48_410_988_384),
    *(("qwen3-next-80b-a3b", quant, size * GB) for quant, size in [("Q5_0", 55), ("Q6_K", 65.5), ("Q8_0", 84.8)]),
    ("qwen3-30b-a3b", "Q4_K_M", 18.5 * GB),
]


def types_under(file: GGUFFile, quant: str, n_bytes: float | None) -> Types:
    types = types_or_none(file, quant, None if n_bytes is None else int(n_bytes))
    assert types is not None
    return types


@pytest.fixture
def file():
    with GGUFFile.open(DATA / "qwen3next.gguf") as opened:
        yield opened


@pytest.mark.parametrize(("shape", "quant", "size"), PUBLISHED)
def test_sizes_are_those_of_published_files(shape, quant, size):
    header = header_of_shape(find_shape(shape))
    types = types_under(header, quant, None)
    assert bytes_under(header, types) == pytest.approx(size, rel=0.005)
    parts = bytes_under(header, types, experts=True), bytes_under(header, types, experts=False)
    assert sum(parts) == bytes_under(header, types)
    assert parts[0] > 10 * parts[1]


@pytest.mark.parametrize(
    ("quant", "name"),
    [
        *(("UD-Q4_K_XL", "Q4_K_M"), ("i1-IQ4_XS", "IQ4_XS"), ("q4_k_l", "Q4_K_M"), ("Q2_K_XL", "Q2_K")),
        *(("UD-Q8_K_XL", "Q8_0"), ("IQ4_XS-4.67bpw", "IQ4_XS"), ("fp16", "F16"), ("MXFP4", "MXFP4_MOE")),
        *((other, None) for other in ("IQ2_KS", "Q4_0_4_4", "Q4_K_R4", "FP8", "Q9", "")),
    ],
)
def test_what_a_name_stands_for(quant, name):
    assert mix_of(quant) is (MIXES[name] if name else None)
    assert mix_of("NVFP4").default == "NVFP4"


def test_a_name_that_tells_nothing_is_told_by_the_size():
    header = header_of_shape(find_shape("qwen3-next-80b-a3b"))
    types = types_under(header, "", 159 * GB)
    assert types["blk.0.ffn_up_exps.weight"] == "BF16"
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types_or_none(header, "", None) is None
    assert types_or_none(header, "IQ2_KS", GB) is None


def test_experts_that_were_trained_in_their_type_keep_it(file):
    types = types_under(file, "MXFP4_MOE", None)
    trained = retyped(file, types)
    least = bytes_under(file, types_under(trained, "Q8_0", 1))
    assert least == bytes_under(file, types)
    assert types_under(trained, "BF16", 1)["blk.0.ffn_up_exps.weight"] == "MXFP4"
    assert types_under(trained, "BF16", 10 * weights_in(file))["blk.0.ffn_up_exps.weight"] == "BF16"


def test_a_model_is_built_of_it_and_its_own_file_stays_as_it_is(file):
    before = own_types(file)
    other = retyped(file, types_under(file, "Q6_K", None))
    assert own_types(file) == before
    tensor = other.tensors["blk.0.ffn_up_exps.weight"]
    assert tensor.type != file.tensors[tensor.name].type
    assert tensor.data.nbytes == tensor.n_bytes
    model, _ = model_of(SyntheticModel(other).file, 64, "f16")
    assert model.vocab_size == file.tensors["token_embd.weight"].shape[0]


@pytest.mark.parametrize("name", reference_models.NAMES)
def test_every_architecture_is_built_in_other_types(name, tmp_path):
    with GGUFFile.open(reference_models.read(name).write(tmp_path / "model.gguf")) as file:
        for quant in ("Q8_0", "Q4_K_M"):
            model, state = model_of(SyntheticModel(retyped(file, types_under(file, quant, None))).file, 64, "f16")
            assert model.vocab_size > 0
            assert state.ctx == 64
