"""Faults of a model's file, each planted, found and named."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
from places import DATA

from qcli.catalog.entry import Entry
from qcli.doctor import model, model_file, weights_scan
from qcli.doctor.finding import FAIL, PASS, WARN
from qcli.gguf.file import GGUFFile
from quant.block import Scale, Weight, declared
from quant.formats import find

EXPERTS = "blk.1.ffn_down_exps.weight"


def silent(*_):
    pass


@pytest.fixture
def path(tmp_path):
    return shutil.copy(DATA / "qwen3next.gguf", tmp_path / "model.gguf")


def patched(path, name, row, values):
    """Overwrite the beginning of a tensor's row by bytes."""
    with GGUFFile.open(path) as file:
        tensor = file.tensors[name]
        at = tensor.offset + row * tensor.data.shape[1]
    with open(path, "r+b") as opened:
        opened.seek(at)
        opened.write(values)
    return tensor


def of_file(path, entry=None):
    with GGUFFile.open(path) as file:
        return {finding.name: finding for finding in model_file.check(file, entry, silent)}


def test_a_whole_file_is_read_once_and_all_of_it(path, monkeypatch):
    monkeypatch.setattr(model_file, "_PIECE", 1 << 15)
    told = []
    with GGUFFile.open(path) as file:
        found = model_file.read(file, lambda *how: told.append(how))
        blocks = sum(t.n_bytes // declared()[t.type].bytes for t in file.tensors.values())
        assert (found.scan.tensors, found.scan.blocks) == (len(file.tensors), blocks)
    assert found.sums == {path: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert told[-1][1] == 1
    assert [finding.status for finding in of_file(path).values()] == [PASS, PASS]


def test_a_flipped_bit_shows_in_the_checksum(path):
    entry = Entry("m", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert "as published" in of_file(path, entry)["checksum"].said
    patched(path, "output_norm.weight", 0, b"\x01")
    finding = of_file(path, entry)["checksum"]
    assert finding.status == FAIL
    assert "should be" in finding.said
    assert "download" in finding.hint


def test_caches_name_files_by_their_checksum(tmp_path):
    digits = "0123456789abcdef" * 4
    for name in (digits, f"sha256-{digits}"):
        (tmp_path / name).touch()
        link = tmp_path / f"{name[:9]}.gguf"
        link.symlink_to(tmp_path / name)
        assert model_file.expected_sum(link, None) == digits
    assert model_file.expected_sum(tmp_path / "own.gguf", None) == ""


def test_a_weight_that_is_no_number(path):
    rows = patched(path, EXPERTS, 0, b"").shape[1]
    patched(path, EXPERTS, 3 * rows + 2, b"\xc0\x7f")
    finding = of_file(path)["weights"]
    assert finding.status == FAIL
    assert finding.said == f"{EXPERTS}: 1 block with NaN or infinity, the first in expert 3, row 2"


@pytest.mark.parametrize(
    ("scale", "status", "said"),
    [
        ("nan", FAIL, "1 block with NaN or infinity"),
        (60_000, WARN, "1 block with a scale far too large"),
        (0.1, PASS, "usual"),
    ],
)
def test_a_quantized_block_with_a_wrong_scale(storyteller, tmp_path, scale, status, said):
    path = shutil.copy(storyteller, tmp_path / "model.gguf")
    with GGUFFile.open(path) as file:
        tensor = next(t for t in file.tensors.values() if t.type == "Q4_K" and len(t.shape) == 3)
    patched(path, tensor.name, 1, np.float16(scale).tobytes())
    finding = of_file(path)["weights"]
    assert finding.status == status
    assert said in finding.said
    assert ("expert 0, row 1" in finding.said) == (status != PASS)


def test_an_unfinished_download_holds_zeros(path):
    tensor = patched(path, EXPERTS, 0, b"")
    patched(path, EXPERTS, 0, bytes(tensor.n_bytes))
    found = of_file(path)
    assert found["weights"].status == PASS
    assert found["zeros"].status == WARN
    assert EXPERTS in found["zeros"].said


def test_a_disk_that_fails(path, monkeypatch):
    with GGUFFile.open(path) as file:
        path.unlink()
        finding = next(model.checks(DATA / "README.md", "x", None)[0].look(silent))
        assert (finding.status, finding.name) == (FAIL, "file")
        with pytest.raises(FileNotFoundError):
            list(model_file.check(file, None, silent))


@pytest.mark.parametrize("name", declared())
def test_scales_are_read_as_the_types_mean_them(name):
    """Blocks with huge or no numbers in every place of a scale; as the type's own definition has them, if it is finite."""
    block, rng = declared()[name], np.random.default_rng(0)
    for field, holds in block.fields.items():
        if not isinstance(holds, Scale | Weight):
            continue
        data = rng.integers(0, 256, (500, block.bytes), np.uint8)
        values, _ = weights_scan._values(block, field, holds, data)
        assert values.shape == (500, getattr(holds, "count", 1))
        if isinstance(holds, Scale) and holds.encoding in ("f16", "f16 in nibbles"):
            with np.errstate(all="ignore"):
                weights = find(name).dequantize(data)
            assert (np.isfinite(values).all(axis=1) | ~np.isfinite(weights).all(axis=1)).all()


@pytest.mark.parametrize(("name", "byte", "value"), [("MXFP4", 128, 1.0), ("MXFP4", 255, np.nan), ("NVFP4", 0x38, 0.5),
                                                     ("NVFP4", 1, 2.0**-10), ("NVFP4", 127, np.nan)])  # fmt: skip
def test_small_floats(name, byte, value):
    block = declared()[name]
    field, holds = next(iter(block.fields.items()))
    values, _ = weights_scan._values(block, field, holds, np.full((1, block.bytes), byte, np.uint8))
    np.testing.assert_array_equal(values, np.full_like(values, value))


def of_model(path, name):
    checks = {check.name: check for check in model.checks(path, "m", None)}
    return list(checks[name].look(silent))


def test_a_template_that_does_not_parse(storyteller, tmp_path):
    path = tmp_path / "broken.gguf"
    data = storyteller.read_bytes()
    assert data.count(b"{% for") or data.count(b"{%- for")
    path.write_bytes(data.replace(b" for ", b" fxr ", 1) if b"{% for" in data else data.replace(b"{%- for", b"{%- fxr"))
    with pytest.raises(Exception, match="chat template"):
        of_model(path, "chat template")
    assert of_model(storyteller, "chat template")[0].status == PASS


def test_a_vocabulary_that_loses_texts(storyteller, monkeypatch):
    assert of_model(storyteller, "vocabulary")[0].status == PASS
    monkeypatch.setattr(model.Tokenizer, "decode", lambda *_: "?")
    (finding,) = of_model(storyteller, "vocabulary")
    assert finding.status == WARN
    assert "do not come back" in finding.said


def test_layers_for_several_tokens_are_told(storyteller, path):
    assert "1 layer for predicting several tokens" in of_model(storyteller, "file")[0].said
    assert "no MTP layers" in of_model(path, "file")[0].said
