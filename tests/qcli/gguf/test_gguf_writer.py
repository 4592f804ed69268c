"""Files that are written, read back; whole or not there."""

from __future__ import annotations

import os
import resource
import struct

import gguf_maker as maker
import numpy as np
import pytest

from qcli.errors import OutputError
from qcli.gguf.file import GGUFFile
from qcli.gguf.names import part_paths
from qcli.gguf.writer import (
    GGUFWriter,
    NewTensor,
    f32,
    file_bytes,
    i32,
    split,
    split_keys,
    text,
    texts,
    u16,
    u32,
    write_small,
)
from qcli.host.atomic_files import AtomicFiles

ROWS = [NewTensor("a", "F32", (2, 3)), NewTensor("b", "Q8_0", (2, 32)), NewTensor("c", "F32", (1,))]


def pieces(rows):
    return [np.arange(row.n_bytes, dtype=np.uint8) + i for i, row in enumerate(rows)]


def write(path, keys, rows, alignment=32, overwrite=False):
    with AtomicFiles([path], overwrite, reads=()) as output:
        writer = GGUFWriter(output, path, keys, rows, alignment)
        for data in pieces(rows):
            writer.write(data[:5])
            writer.write(data[5:])
        writer.finish()
    return path


def test_a_file_by_hand(tmp_path):
    path = tmp_path / "one.gguf"
    write_small(AtomicFiles([path], reads=()), u32("k", 7), {"t": np.array([1.5, -2], np.float32)})
    table = maker.File([maker.key("k", maker.U32, 7)], [maker.tensor("t", (2,))], struct.pack("<2f", 1.5, -2))
    assert path.read_bytes() == bytes(table).ljust(len(path.read_bytes()), b"\0")


def test_every_kind_of_key_is_read_back(tmp_path):
    keys = (
        u16("a", 65535)
        | u32("b", 1 << 31)
        | i32("c", -4)
        | f32("d", 0.25)
        | text("e", "é")
        | texts("f", ["x", "", "yz"])
    )
    with GGUFFile.open(write(tmp_path / "keys.gguf", keys, ROWS)) as file:
        assert {k: v for k, v in file.metadata.items() if k != "f"} == {
            "a": 65535, "b": 1 << 31, "c": -4, "d": 0.25, "e": "é",
        }  # fmt: skip
        assert list(file.metadata["f"]) == ["x", "", "yz"]


@pytest.mark.parametrize("alignment", [8, 32, 64])
def test_tensors_are_read_back_wherever_they_lie(tmp_path, alignment):
    keys = u32("general.alignment", alignment)
    path = write(tmp_path / "t.gguf", keys, ROWS, alignment)
    assert path.stat().st_size == file_bytes(keys, ROWS, alignment)
    with GGUFFile.open(path) as file:
        for row, data in zip(ROWS, pieces(ROWS), strict=True):
            tensor = file.tensors[row.name]
            assert (tensor.type, tensor.shape) == (row.type, row.shape)
            assert tensor.data.reshape(-1).tolist() == data.tolist()


def test_the_keys_of_another_file_pass_through(tmp_path):
    with GGUFFile.open(maker.write(tmp_path / "from.gguf", maker.small_model())) as file:
        entries = {key: bytes(entry) for key, entry in file.entries.items()}
        assert list(entries) == list(file.metadata)
        assert b"".join(entries.values()) == b"".join(maker.small_model().keys)
        copied = write(tmp_path / "to.gguf", entries, ROWS)
    assert b"".join(maker.small_model().keys) in copied.read_bytes()


def test_parts_are_read_as_one(tmp_path):
    groups = split(ROWS, 70)
    assert [[row.name for row in group] for group in groups] == [["a"], ["b"], ["c"]]
    paths = part_paths(tmp_path / "model.gguf", len(groups))
    assert paths[2].name == "model-00003-of-00003.gguf"
    with AtomicFiles(paths, reads=()) as output:
        for i, (path, rows) in enumerate(zip(paths, groups, strict=True)):
            writer = GGUFWriter(output, path, split_keys(i, 3, 3), rows)
            for row in rows:
                writer.write(np.full(row.n_bytes, i, np.uint8))
            writer.finish()
    with GGUFFile.open(paths[0]) as file:
        assert [(name, int(t.data.max())) for name, t in file.tensors.items()] == [("a", 0), ("b", 1), ("c", 2)]


def test_one_part_has_the_name_that_was_given(tmp_path):
    assert part_paths(tmp_path / "model.gguf", 1) == [tmp_path / "model.gguf"]


def test_too_much_or_too_little_of_a_tensor_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="lacks"), AtomicFiles([tmp_path / "x"], reads=()) as output:
        GGUFWriter(output, tmp_path / "x", {}, ROWS).write(np.zeros(25, np.uint8))
    with pytest.raises(ValueError, match="missing"), AtomicFiles([tmp_path / "x"], reads=()) as output:
        GGUFWriter(output, tmp_path / "x", {}, ROWS).finish()
    assert list(tmp_path.iterdir()) == []


def test_rows_that_no_block_fits_are_refused():
    with pytest.raises(ValueError, match="33"):
        _ = NewTensor("t", "Q8_0", (2, 33)).n_bytes


@pytest.mark.parametrize("problem", [KeyboardInterrupt, OutputError])
def test_nothing_is_left_of_what_was_not_finished(tmp_path, problem):
    kept = tmp_path / "kept"
    kept.write_text("before")

    def half() -> None:
        with AtomicFiles([kept, tmp_path / "new"], overwrite=True, reads=()) as output:
            for path in output.paths:
                output.open(path).write(b"half")
            raise problem("now")

    with pytest.raises(problem):
        half()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert kept.read_text() == "before"


def test_a_full_disk_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written: File too large"):
            write(tmp_path / "x", {}, [NewTensor("t", "F32", (1 << 19,))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept_unless_told(tmp_path):
    path = write(tmp_path / "x.gguf", {}, ROWS)
    with pytest.raises(OutputError, match="already"):
        AtomicFiles([path], reads=())
    assert write(path, u32("k", 1), ROWS, overwrite=True).read_bytes()[16] == 1


def test_what_comes_to_be_meanwhile_is_kept_too(tmp_path):
    path = tmp_path / "x"

    def write_late() -> None:
        with AtomicFiles([path], reads=()) as output:
            output.open(path).write(b"mine")
            path.write_text("theirs")

    with pytest.raises(OutputError, match="already"):
        write_late()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "theirs")]


@pytest.mark.parametrize("target", ["folder", "no/such/x", "pipe"])
def test_what_cannot_be_a_file_is_refused_before_anything_is_done(tmp_path, target):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError):
        AtomicFiles([tmp_path / target], overwrite=True, reads=())


def test_more_than_the_disk_has_is_refused(tmp_path):
    with pytest.raises(OutputError, match="free, and"):
        AtomicFiles([tmp_path / "x"], reads=()).require_space(1 << 60)
