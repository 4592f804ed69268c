"""Importance: measured against plain NumPy, and read and written as llama.cpp does."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import gguf_maker as maker
import numpy as np
import pytest
import reference_models
from places import DATA
from tiny_model import Tiny, f32

from qcli.errors import ModelFileError, ModelNotFoundError, OutputError
from qcli.gguf.file import GGUFFile
from qcli.host.atomic_files import AtomicFiles
from qcli.quantize import imatrix_file
from qcli.quantize.imatrix import load, measure, starved
from qcli.quantize.imatrix_file import Entry, Imatrix
from qcli.quantize.tensor_types import allows_quantization
from quant import formats

TINY = DATA / "qwen3next.gguf"
IDS = [list(range(1, 33)), list(range(100, 132))]


def measured(path: Path, chunks=IDS, threads=1) -> Imatrix:
    with GGUFFile.open(path) as file:
        engine = load(file, len(chunks[0]), threads)
        try:
            return measure(engine, chunks, "some.txt")
        finally:
            engine.close()


@pytest.fixture(scope="module")
def tiny() -> Imatrix:
    return measured(TINY)


def test_every_matrix_inside_the_layers_is_measured(tiny):
    with GGUFFile.open(TINY) as file:
        wanted = {name for name, t in file.tensors.items() if allows_quantization(t) and name.startswith("blk.")}
        assert wanted <= set(tiny.entries)
        for name in wanted:
            tensor, entry = file.tensors[name], tiny.entries[name]
            experts = tensor.shape[0] if len(tensor.shape) > 2 else 1
            assert entry.sums.shape == (experts, tensor.shape[-1])
    assert (tiny.chunks, tiny.chunk_size, tiny.datasets) == (2, 32, ["some.txt"])


@pytest.mark.parametrize("threads", [1, 3])
def test_the_head_of_multi_token_prediction_is_measured(tmp_path, threads):
    """It sees every token of a chunk but the first, each beside the row of the one before."""
    path = reference_models.read("qwen3next-mtp").write(tmp_path / "model.gguf")
    found = measured(path, threads=threads).entries
    with GGUFFile.open(path) as file:
        wanted = [name for name, t in file.tensors.items() if allows_quantization(t) and name.startswith("blk.5.")]
        norms = [
            file.tensors[f"blk.5.nextn.{name}.weight"].data.reshape(-1).view(np.float32) for name in ("enorm", "hnorm")
        ]
    assert "blk.5.nextn.eh_proj.weight" in wanted
    assert set(wanted) <= set(found)
    for name in wanted:
        assert found[name].counts.sum() == (4 * 62 if "_exps" in name else 62), name
    # rows that are normed: the squares of each half, but for its weight, are as many as there are columns
    mean = (found["blk.5.nextn.eh_proj.weight"].sums[0].reshape(2, 64) / np.square(norms)).mean(axis=1) / 62
    np.testing.assert_allclose(mean, 1, rtol=1e-3)


def test_tokens_are_counted_and_each_goes_to_its_experts(tiny):
    for name, entry in tiny.entries.items():
        assert entry.counts.sum() == (4 * 64 if "_exps" in name else 64), name
    gate, up, down = (tiny.entries[f"blk.1.ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
    assert np.array_equal(gate.sums, up.sums)
    assert np.array_equal(gate.counts, down.counts)
    assert (gate.sums[gate.counts == 0] == 0).all()
    assert (gate.sums[gate.counts > 0] > 0).any(1).all()


def test_the_first_matrix_meets_the_normed_embeddings(tiny):
    """The input of layer 0 can be made by hand: norm of the embedding's rows, times the norm's weight."""
    with GGUFFile.open(TINY) as file:

        def plain(name):
            tensor = file.tensors[name]
            return formats.find(tensor.type).dequantize(tensor.data).reshape(tensor.shape).astype(np.float64)

        x = plain("token_embd.weight")[np.concatenate(IDS)]
        eps = file.get_float("qwen3next.attention.layer_norm_rms_epsilon")
        h = x / np.sqrt((x**2).mean(1, keepdims=True) + eps) * plain("blk.0.attn_norm.weight")
    for name in ("attn_qkv", "attn_gate", "ssm_ba"):
        np.testing.assert_allclose(tiny.entries[f"blk.0.{name}.weight"].sums[0], (h**2).sum(0), rtol=1e-5)


def test_threads_give_the_same_bits(tiny):
    other = measured(TINY, threads=3)
    for name, entry in tiny.entries.items():
        assert np.array_equal(entry.sums, other.entries[name].sums), name


def test_parts_of_a_file_keep_the_name_of_their_tensor(tmp_path):
    """Rows that are copied in another order, and a fused gate and up, are measured under the name in the file."""
    model = Tiny.read()
    for i in range(4):
        (kind, gate, columns), (_, up, _) = (model.take(f"blk.{i}.ffn_{part}_exps.weight") for part in ("gate", "up"))
        model.put(f"blk.{i}.ffn_gate_up_exps.weight", kind, np.concatenate([gate, up], axis=1), columns)
    found = measured(model.write(tmp_path / "fused.gguf"))
    plain = measured(TINY)
    fused, apart = (m.entries[f"blk.2.ffn_gate{part}_exps.weight"] for m, part in ((found, "_up"), (plain, "")))
    assert np.array_equal(fused.sums, apart.sums)
    assert "blk.0.ssm_ba.weight" in found.entries


def test_inputs_that_are_no_numbers_are_told(tmp_path):
    model = Tiny.read()
    model.put("blk.1.attn_norm.weight", "F32", f32(np.full(64, np.nan)), 64)
    with pytest.raises(ModelFileError, match=r"blk\.1\..*not finite"):
        measured(model.write(tmp_path / "nan.gguf"))


def some() -> Imatrix:
    dense = Entry(np.array([[2.0, 4, 0]], np.float32), np.array([2]))
    experts = Entry(np.array([[3.0, 6], [0, 0], [5, 0]], np.float32), np.array([3, 0, 500]))
    return Imatrix({"blk.0.w.weight": dense, "blk.0.ffn_up_exps.weight": experts}, ["a.txt", "b.txt"], 4, 512)


def test_means_on_paper():
    about = some()
    assert about.importance("blk.0.w.weight", 1, 3).tolist() == [[1, 2, 0]]
    means = about.importance("blk.0.ffn_up_exps.weight", 3, 2)
    assert np.round(means, 6).tolist() == [[1, 2], [1, 1], [np.float32(0.01), 0]]  # of whom nothing is known: ones
    assert about.importance("blk.9.w.weight", 1, 3) is None
    with pytest.raises(ValueError, match="4 x 2"):
        about.importance("blk.0.ffn_up_exps.weight", 4, 2)


def test_experts_that_met_little_are_named():
    (layer,) = starved(some())
    assert (layer.layer, layer.experts, layer.counts) == (0, 3, {0: 3, 1: 0})


def test_a_file_is_read_back(tmp_path):
    path = tmp_path / "im.gguf"
    imatrix_file.write(AtomicFiles([path], reads=()), some())
    found = imatrix_file.read(path)
    assert (found.datasets, found.chunks, found.chunk_size) == (["a.txt", "b.txt"], 4, 512)
    for name, entry in some().entries.items():
        assert np.array_equal(found.entries[name].sums, entry.sums)
        assert np.array_equal(found.entries[name].counts, entry.counts)
    with GGUFFile.open(path) as file:
        assert file.metadata["general.type"] == "imatrix"
        assert next(iter(file.tensors)) == "blk.0.ffn_up_exps.weight.in_sum2"
        assert file.tensors["blk.0.ffn_up_exps.weight.in_sum2"].shape == (3, 2)
        assert file.tensors["blk.0.ffn_up_exps.weight.counts"].shape == (3, 1)
    with pytest.raises(OutputError, match="already"):
        imatrix_file.write(AtomicFiles([path], reads=()), some())


def dat(name=b"blk.0.w.weight", calls=4, values=(1.0, 2.0), count=None, entries=1, tail=b"") -> bytes:
    size = len(values) if count is None else count
    head = struct.pack("<i", entries) + struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, size)
    return head + struct.pack(f"<{len(values)}f", *values) + tail


def test_the_older_format(tmp_path):
    """Its values are means times calls."""
    path = tmp_path / "imatrix.dat"
    path.write_bytes(dat(tail=struct.pack("<ii", 9, 5) + b"a.txt"))
    found = imatrix_file.read(path)
    assert found.importance("blk.0.w.weight", 1, 2).tolist() == [[0.25, 0.5]]
    assert found.importance("blk.0.w.weight", 2, 1).tolist() == [[0.25], [0.5]]  # experts are not told apart
    assert (found.chunks, found.datasets) == (9, ["a.txt"])
    path.write_bytes(dat())
    assert imatrix_file.read(path).datasets == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\1\0", dat(entries=0), dat(entries=2), dat(entries=-1), dat(count=1 << 29), dat(count=-1), dat()[:-1],
        dat(values=(np.nan, 1)), dat(values=(-1.0, 1)), dat(tail=struct.pack("<ii", 9, 500)), b"\xff" * 64,
    ],
)  # fmt: skip
def test_older_files_that_lie(tmp_path, content):
    path = tmp_path / "imatrix.dat"
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        imatrix_file.read(path)


def gguf(path: Path, tensors: dict[str, tuple[tuple[int, ...], bytes]], kind=0) -> Path:
    rows, data = [], b""
    for name, (shape, values) in tensors.items():
        data += b"\0" * (-len(data) % 32)
        rows.append(maker.tensor(name, shape, kind, len(data)))
        data += values
    return maker.write(path, maker.File([], rows, data + bytes(32)))


ONES = struct.pack("<4f", 1, 1, 1, 1)


@pytest.mark.parametrize(
    "tensors",
    [
        {"w.in_sum2": ((4,), ONES)},
        {"w.counts": ((4,), ONES)},
        {"w.in_sum2": ((4,), ONES), "w.counts": ((3, 1), ONES[:12])},
        {"w.in_sum2": ((4,), ONES[:12] + struct.pack("<f", np.inf)), "w.counts": ((1,), ONES[:4])},
        {"w.in_sum2": ((4,), ONES), "w.counts": ((1,), struct.pack("<f", -1))},
    ],
)
def test_files_that_lie(tmp_path, tensors):
    with pytest.raises(ModelFileError):
        imatrix_file.read(gguf(tmp_path / "x.gguf", tensors))


def test_files_of_other_types_or_none(tmp_path):
    halves = {"w.in_sum2": ((4,), ONES[:8]), "w.counts": ((1,), ONES[:2])}
    with pytest.raises(ModelFileError, match="F16"):
        imatrix_file.read(gguf(tmp_path / "x.gguf", halves, kind=1))
    with pytest.raises(ModelNotFoundError):
        imatrix_file.read(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match="is not a file"):
        imatrix_file.read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")
def test_what_has_no_end_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ModelFileError, match="is not a file"):
            imatrix_file.read(path)
    (large := tmp_path / "large").touch()
    os.truncate(large, 1 << 34)  # takes no room
    with pytest.raises(ModelFileError, match=r"is not an importance matrix: it has 17\.2 GB"):
        imatrix_file.read(large)


def test_a_line(type_line, tmp_path):
    path = tmp_path / "im.gguf"
    text = str(DATA / "fables.txt")
    line = ["imatrix", "storyteller", text, "-o", str(path), "--ctx", "64", "--chunks", "3"]
    code, out, err = type_line(*line)
    assert code == 0, err
    assert "of 144 experts were chosen by fewer than 64 tokens" in out
    assert "layer 0: experts (tokens)" in out
    assert str(path) in err
    assert type_line(*line)[0] == 1
    code, out, err = type_line(*line, "--force", "--json", "--quiet")
    told = json.loads(out)
    assert (code, err, told["chunks"], told["weights"]) == (0, "", 3, len(imatrix_file.read(path).entries))


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["imatrix"], 2, "are needed"),
        (["imatrix", str(TINY), "x.txt"], 2, "are needed"),
        (["imatrix", "storyteller", "no-such.txt", "-o", "im.gguf"], 1, "no such file"),
        (["imatrix", "storyteller", ".", "-o", "im.gguf"], 1, "is not a file"),
        (["imatrix", "no-such-model", "x.txt", "-o", "im.gguf"], 1, "no-such-model"),
        (
            ["imatrix", "storyteller", str(DATA / "conversations.json"), "-o", "im.gguf", "--ctx", "2048"],
            2,
            "a chunk takes 2048",
        ),
        (["imatrix", "storyteller", str(DATA / "fables.txt"), "-o", "no/im.gguf"], 1, "no folder"),
        (["imatrix", "storyteller", str(DATA / "fables.txt"), "-o", "im.gguf", "--ctx", "4096"], 1, "2048"),
    ],
)
def test_what_cannot_be_done(refused, line, code, said):
    refused(line, code, said)


def test_ctrl_c_leaves_nothing(type_line, tmp_path, monkeypatch):
    path = tmp_path / "im.gguf"

    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qcli.runtime.engine.Engine.prefill", press)
    text = str(DATA / "fables.txt")
    assert type_line("imatrix", "storyteller", text, "-o", str(path))[0] == 130
    assert list(tmp_path.iterdir()) == []
