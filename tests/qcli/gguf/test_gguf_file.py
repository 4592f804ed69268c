"""The GGUF reader: values one can check by hand, gguf's own reader and writer, split files, odd paths."""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf_maker import F32, I32, U16, U32, File, key, small_model, tensor, u32, write
from places import ROOT

from qcli.errors import ModelFileError, ModelNotFoundError, QcliError
from qcli.gguf.file import GGUFFile
from qcli.gguf.strings import StringArray
from qcli.gguf.types import BLOCKS_BY_NUMBER

EMBEDDED = ROOT / "qcli" / "assets" / "storyteller-Q4_K_M.gguf"


Write = Callable[[File | bytes], Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    return lambda content: write(tmp_path / "model.gguf", content)


@pytest.fixture
def small(written) -> GGUFFile:
    return GGUFFile.open(written(small_model()))


def test_scalars_of_every_type(small):
    found = {name.removeprefix("tiny."): value for name, value in small.metadata.items()}
    assert (found["u8"], found["i8"], found["i16"], found["i32"]) == (200, -3, -300, -70_000)
    assert (found["u64"], found["i64"], found["expert_used_count"]) == (1 << 40, -(1 << 40), 1)
    assert (found["f32"], found["f64"], found["flag"]) == (0.5, 1e-9, True)
    assert found["general.name"] == "Tiny"
    assert [type(found[k]) for k in ("u8", "f32", "flag", "general.name")] == [int, float, bool, str]


def test_arrays_are_read_only(small):
    ints, flags = small.metadata["tiny.ints"], small.metadata["tiny.flags"]
    assert ints.tolist() == [3, -1, 4]
    assert ints.dtype == np.int32
    assert flags.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="read-only"):
        ints[0] = 1


def test_strings(small):
    tokens = small.metadata["tokenizer.ggml.tokens"]
    expected = [f"t{i}" for i in range(100)] + ["", "é", "x" * 300]
    assert isinstance(tokens, StringArray)
    assert len(tokens) == 103
    assert tokens.tolist() == list(tokens) == expected
    assert (tokens[0], tokens[101], tokens[-1]) == ("t0", "é", "x" * 300)
    assert tokens[98:102] == ["t98", "t99", "", "é"]
    assert tokens.lengths[99:].tolist() == [3, 0, 2, 300]
    assert len(small.metadata["tiny.nothing"]) == 0
    assert small.metadata["tiny.nothing"].tolist() == []
    with pytest.raises(IndexError):
        tokens[103]


def test_tensors_are_views_in_numpy_order(small):
    up = small.tensor("blk.0.ffn_up_exps.weight")
    assert (up.type, up.shape, up.n_bytes, up.data.shape) == ("Q8_0", (2, 3, 32), 204, (6, 34))
    assert up.data[1, :3].tolist() == [(128 + 34 + i) % 251 for i in range(3)]
    assert list(small.tensors) == ["token_embd.weight", "blk.0.ffn_up_exps.weight", "blk.0.attn_q.weight"]
    assert not up.data.flags.writeable
    assert small.path.read_bytes()[up.offset : up.offset + up.n_bytes] == up.data.tobytes()


def test_views_outlive_the_file(written):
    with GGUFFile.open(written(small_model())) as file:
        data = file.tensor("token_embd.weight").data
        tokens = file.metadata["tokenizer.ggml.tokens"]
    assert data[0, :4].tolist() == [0, 1, 2, 3]
    assert isinstance(tokens, StringArray)
    assert tokens[5] == "t5"
    assert not file.tensors


def test_version_2_and_alignment_64(written):
    keys = [key("general.alignment", U32, 64)]
    rows = [tensor("a", (3,)), tensor("b", (2,), offset=64)]
    path = written(File(keys, rows, struct.pack("<3f52x2f", 1, 2, 3, 4, 5), version=u32(2), alignment=64))
    file = GGUFFile.open(path)
    assert file.version == 2
    assert file.tensor("b").offset % 64 == 0
    assert file.tensor("b").data.view(np.float32).tolist() == [[4, 5]]


def test_a_vocabulary_only_file_needs_no_padding(written):
    file = GGUFFile.open(written(File([key("a", U32, 1)], alignment=1)))
    assert dict(file.metadata) == {"a": 1}


def test_typed_lookups(small):
    assert small.get_int("tiny.context_length") == 128
    assert small.get_float("tiny.f32") == 0.5
    assert small.get_float("tiny.u8") == 200.0
    assert small.get_bool("tiny.flag") is True
    assert small.get_str("general.name") == "Tiny"
    assert small.get_ints("tiny.ints") == [3, -1, 4]
    assert small.get_ints("tiny.flags") == [1, 0, 1]
    assert small.get_ints("tiny.u8") == [200]
    assert (small.get_int("no", 7), small.get_ints("no", [1]), small.get_str("no", "x")) == (7, [1], "x")


@pytest.mark.parametrize(
    ("lookup", "name", "says"),
    [
        ("get_int", "tiny.f32", "0.5, not a whole number"),
        ("get_int", "tiny.flag", "True, not a whole number"),
        ("get_int", "tiny.ints", "an array of 3, not a whole number"),
        ("get_float", "general.name", "'Tiny', not a finite number"),
        ("get_bool", "tiny.u8", "200, not true or false"),
        ("get_str", "tiny.u8", "200, not a text"),
        ("get_ints", "tiny.floats", "an array of 2, not whole numbers"),
        ("get_ints", "tokenizer.ggml.tokens", "an array of 103, not whole numbers"),
        ("get_int", "tiny.absent", "missing"),
        ("tensor", "blk.9.attn_q.weight", 'the tensor "blk.9.attn_q.weight" is missing'),
    ],
)
def test_lookups_name_the_key_and_the_file(small, lookup, name, says):
    with pytest.raises(ModelFileError) as caught:
        getattr(small, lookup)(name)
    assert says in caught.value.message
    assert name in caught.value.message
    assert "model.gguf" in caught.value.message
    assert caught.value.hint


def test_not_a_number_is_not_finite(written):
    file = GGUFFile.open(written(File([key("a", F32, float("nan"))])))
    with pytest.raises(ModelFileError, match="finite"):
        file.get_float("a")


def test_every_type_of_the_reference_table():
    reference = {int(t): (t.name, *gguf.GGML_QUANT_SIZES[t]) for t in gguf.GGMLQuantizationType}
    ours = {number: (block.name, block.columns, block.bytes) for number, block in BLOCKS_BY_NUMBER.items()}
    assert {number: ours[number] for number in reference.keys() & ours.keys()} == {
        number: reference[number] for number in reference.keys() & ours.keys()
    }
    assert len(reference.keys() & ours.keys()) > 30


def test_the_embedded_model_as_the_reference_reader_sees_it():
    ours, theirs = GGUFFile.open(EMBEDDED), gguf.GGUFReader(EMBEDDED)
    assert list(ours.tensors) == [t.name for t in theirs.tensors]
    for t in theirs.tensors:
        mine = ours.tensor(t.name)
        assert (mine.type, mine.offset, mine.n_bytes) == (t.tensor_type.name, t.data_offset, t.n_bytes)
        assert mine.shape == tuple(t.shape.tolist()[::-1])
    for name, value in ours.metadata.items():
        contents = theirs.fields[name].contents()
        assert contents == (value.tolist() if isinstance(value, np.ndarray | StringArray) else value)


def test_what_the_reference_writer_writes(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "tiny")
    writer.add_custom_alignment(128)
    writer.add_array("texts", ["a", "bc"])
    values = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("x", values)
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("y", gguf.quants.quantize(values, q8_0), raw_dtype=q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile.open(tmp_path / "w.gguf")
    assert np.array_equal(file.tensor("x").data.view(np.float32), values)
    assert file.tensor("y").shape == (2, 32)
    assert file.metadata["texts"].tolist() == ["a", "bc"]


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no such file"):
        GGUFFile.open(tmp_path / "absent.gguf")
    (tmp_path / "inside.gguf").write_bytes(b"")
    with pytest.raises(ModelFileError, match="is a folder") as caught:
        GGUFFile.open(tmp_path)
    assert "inside.gguf" in caught.value.hint
    for bad in ("a\0b", "x" * 5000):
        with pytest.raises(QcliError):
            GGUFFile.open(bad)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes and permissions")
def test_pipes_and_forbidden_files(tmp_path, written):
    os.mkfifo(tmp_path / "pipe")
    result: list[BaseException] = []

    def attempt() -> None:
        try:
            GGUFFile.open(tmp_path / "pipe")
        except QcliError as error:
            result.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert "not a regular file" in str(result[0])
    path = written(small_model())
    path.chmod(0)
    if not os.access(path, os.R_OK):  # root may read everything
        with pytest.raises(ModelFileError, match="Permission denied"):
            GGUFFile.open(path)


def parts(tmp_path: Path, count: int = 3, total: int = 3) -> list[Path]:
    """A split model of one tensor a part."""
    paths = []
    for i in range(count):
        keys = [key("split.no", U16, i), key("split.count", U16, count)]
        keys.append(key("split.tensors.count", I32, total))
        path = tmp_path / f"m-{i + 1:05d}-of-{count:05d}.gguf"
        path.write_bytes(bytes(File(keys, [tensor(f"t{i}", (4,))], struct.pack("<4f", i, 0, 0, 0))))
        paths.append(path)
    return paths


def test_split_files_open_as_one(tmp_path):
    paths = parts(tmp_path)
    file = GGUFFile.open(paths[0])
    assert list(file.tensors) == ["t0", "t1", "t2"]
    assert [t.path for t in file.tensors.values()] == paths
    assert [t.data.view(np.float32)[0, 0] for t in file.tensors.values()] == [0, 1, 2]


def test_split_files_another_part_names_the_first(tmp_path):
    paths = parts(tmp_path)
    with pytest.raises(ModelFileError, match="is part 2 of 3") as caught:
        GGUFFile.open(paths[1])
    assert str(paths[0]) in caught.value.hint


def test_split_files_a_missing_part_is_named(tmp_path):
    paths = parts(tmp_path)
    paths[2].unlink()
    with pytest.raises(ModelNotFoundError, match=r"m-00003-of-00003\.gguf: this part"):
        GGUFFile.open(paths[0])


def test_split_files_that_do_not_belong_together(tmp_path):
    paths = parts(tmp_path)
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(ModelFileError, match="does not say that it is part 2"):
        GGUFFile.open(paths[0])
    with pytest.raises(ModelFileError, match="as many tensors"):
        GGUFFile.open(parts(tmp_path, total=4)[0])


def test_split_files_with_the_same_tensor(tmp_path):
    paths = parts(tmp_path, 2, 2)
    paths[1].write_bytes(paths[1].read_bytes().replace(b"t1", b"t0"))
    with pytest.raises(ModelFileError, match='"t0" appears twice'):
        GGUFFile.open(paths[0])


def test_a_file_that_was_closed_is_not_called_damaged(tmp_path: Path) -> None:
    with GGUFFile.open(write(tmp_path / "m.gguf", small_model())) as file:
        view = file.tensor("token_embd.weight").data
    for use in (lambda: file.tensor("token_embd.weight"), lambda: file.get_str("general.name", "?")):
        with pytest.raises(QcliError, match="was closed here") as caught:
            use()
        assert not isinstance(caught.value, ModelFileError)
    assert view.size == 4 * 32
