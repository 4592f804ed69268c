"""Tensors that no weights can be made of: refused when they are asked for, and passed over when nobody does."""

from __future__ import annotations

import json
import mmap
import struct

import pytest
from brief_forecast import be_brief
from gguf_maker import File, tensor, write
from places import DATA

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.gguf.header import read_header
from qcli.gguf.summary import summarize
from qcli.quantize import job

TINY = DATA / "qwen3next.gguf"
ODD = {
    "unknown type": (tensor("t", (32,), 99, 32), "is of type 99"),
    "withdrawn type": (tensor("t", (32,), 4, 32), "is of type 4"),
    "half a block": (tensor("t", (2, 16), 8, 32), "no multiple of Q8_0's 32"),
    "empty": (tensor("t", (0, 4), 0, 32), "is empty: its shape is (0, 4)"),
    "empty rows": (tensor("t", (4, 0), 8, 32), "is empty: its shape is (4, 0)"),
    "large": (tensor("t", ((1 << 64) - 1,) * 4, 99, 32), "is of type 99"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_tensor_is_refused_only_when_it_is_asked_for(tmp_path, name):
    row, says = ODD[name]
    rows = [tensor("a", (8,)), row, tensor("b", (8,), offset=64)]
    path = write(tmp_path / "m.gguf", File(tensors=rows, data=struct.pack("<24f", *range(24))))
    with GGUFFile.open(path) as file:
        assert file.tensor("a").data.view("<f4").tolist() == [list(range(8))]
        assert file.tensor("b").data.view("<f4").tolist() == [list(range(16, 24))]
        assert "t" in file.tensors  # it is there: nothing else may take its place
        with pytest.raises(UnsupportedModelError) as caught:
            file.tensor("t")
    assert says in caught.value.message
    assert '"t"' in caught.value.message
    assert caught.value.hint


def test_an_odd_tensor_outside_of_the_file_is_damage(tmp_path):
    path = write(tmp_path / "m.gguf", File(tensors=[tensor("t", (32,), 99, 1 << 40)], data=bytes(32)))
    with pytest.raises(ModelFileError, match="the file ends at"):
        GGUFFile.open(path)


def with_an_odd_tensor(path):
    """The tiny model with one more tensor, of an unknown type, of which no layer has need."""
    with GGUFFile.open(TINY) as file, open(TINY, "rb") as raw:
        header = read_header(mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ), TINY)
        at, rows, data = 0, [], []
        numbers = {"F32": 0, "F16": 1, "BF16": 30}
        for row in header.tensors:
            rows.append(tensor(row.name, row.shape, numbers[row.type], at))
            data.append(file.tensors[row.name].data.tobytes().ljust(-(-row.n_bytes // 32) * 32, b"\0"))
            at += len(data[-1])
        rows.append(tensor("blk.9.extra.weight", (3, 5), 99, at))
        keys = [bytes(entry) for entry in header.entries.values()]
    return write(path, File(keys, rows, b"".join(data) + bytes(32)))


def test_a_model_with_an_odd_tensor_runs_and_is_shown(type_line, tmp_path, monkeypatch):
    be_brief(monkeypatch)
    path = str(with_an_odd_tensor(tmp_path / "m.gguf"))
    line = ["run", "a", "--raw", "--temperature", "0", "-n", "4", "-q", "-m"]
    code, out, err = type_line(*line, path)
    assert (code, out) == type_line(*line, str(TINY))[:2], err
    code, out, err = type_line("show", path, "--json", "--tensors")
    assert code == 0, err
    assert json.loads(out)["tensors"][-1]["type"] == "type 99"
    assert type_line("show", path, "--tensors")[0] == 0
    assert type_line("plan", path)[0] == 0


def test_a_model_with_an_odd_tensor_is_not_quantized(tmp_path):
    path = with_an_odd_tensor(tmp_path / "m.gguf")
    with GGUFFile.open(path) as file, pytest.raises(UnsupportedModelError, match=r"blk\.9\.extra\.weight"):
        job.make_job(file, tmp_path / "out.gguf", "Q8_0")


def test_arrays_of_odd_tensors_hold_nothing(tmp_path):
    path = write(tmp_path / "m.gguf", File(tensors=[tensor("t", (32,), 99)], data=bytes(32)))
    with GGUFFile.open(path) as file:
        assert file.tensors["t"].data.nbytes == file.tensors["t"].n_bytes == 0


@pytest.mark.parametrize("shape", [(0, 4, 32), (2, 0, 32), (2, 4, 0)])
def test_a_model_whose_experts_are_none_is_summarized(tmp_path, shape):
    rows = [tensor("a", (8,)), tensor("blk.0.ffn_up_exps.weight", shape, 0, 32)]
    with GGUFFile.open(write(tmp_path / "m.gguf", File(tensors=rows, data=bytes(32)))) as file:
        summary = summarize(file, "model")
    assert (summary.experts and summary.experts.count) == (shape[0] or None)
