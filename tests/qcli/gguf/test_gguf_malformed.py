"""Every way a file may lie: each is refused with a line that says what and where, and a hint."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from gguf_maker import (
    ARRAY,
    BOOL,
    I32,
    STRING,
    U16,
    U32,
    U64,
    File,
    array,
    key,
    small_model,
    string,
    tensor,
    u32,
    u64,
    write,
)

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.gguf.header import MAX_HEADER


def keys(*items: bytes) -> File:
    return File(items)


def rows(n_bytes: int, *tensors: bytes) -> File:
    return File(tensors=tensors, data=bytes(n_bytes))


HUGE = 1 << 63
MOST = (1 << 64) - 1
ROW = tensor("t", (4,))
BAD: dict[str, tuple[File | bytes, str]] = {
    # No GGUF at all
    "empty": (b"", "is empty"),
    "magic alone": (b"GGUF", "the version needs 4 bytes"),
    "zip": (b"PK\x03\x04" + bytes(60), "a zip archive or PyTorch checkpoint"),
    "pickle": (b"\x80\x02}q\x00", "a pickled PyTorch checkpoint"),
    "safetensors": (u64(40) + b'{"a":{"dtype":"F32"}}', "a safetensors file"),
    "old ggml": (b"tjgg" + u32(1), "an old GGML file"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip-compressed"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "html": (b"<!DOCTYPE html>", "a web page"),
    "zeros": (bytes(64), "an unfinished download"),
    "text": (b"hello", "is not a GGUF model file"),
    # The head
    "no version": (File(version=u32(0)), "GGUF version 0"),
    "version 1": (File(version=u32(1)), "GGUF version 1"),
    "version 4": (File(version=u32(4)), "GGUF version 4"),
    "big-endian": (File(version=struct.pack(">I", 3)), "big-endian"),
    "big-endian magic": (b"FUGG" + bytes(20), "big-endian"),
    "no counts": (b"GGUF" + u32(3), "the number of tensors needs 8 bytes"),
    "tensors without an end": (File(tensor_count=HUGE), "9,223,372,036,854,775,808 tensors"),
    "keys without an end": (File(key_count=HUGE), "9,223,372,036,854,775,808 metadata keys"),
    "one key too many": (File([key("a", U32, 1)], key_count=2, data=bytes(40)), "key 2 of 2"),
    "key name past the end": (keys(u64(1000) + b"abc" + bytes(20)), "key 1 of 1 needs 1,000 bytes"),
    "key name without an end": (keys(u64(MOST) + bytes(20)), "key 1 of 1 needs"),
    "key name empty": (keys(key("", U32, 1)), "not a printable name"),
    "key name long": (keys(key("k" * 1025, U32, 1)), "not a printable name of 1 to 1024 bytes"),
    "key name not UTF-8": (keys(key(b"\xff\xfe", U32, 1)), "not a printable name"),
    "key name with escape": (keys(key("\x1b[31m", U32, 1)), "not a printable name"),
    "key twice": (keys(key("a", U32, 1), key("a", U32, 2)), '"a" appears twice'),
    # Values
    "value type": (keys(string("a") + u32(13) + bytes(20)), "of type 13"),
    "text past the end": (keys(string("a") + u32(STRING) + u64(99)), 'the value of "a" needs 99 bytes'),
    "array type": (keys(string("a") + u32(ARRAY) + u32(77) + u64(1) + bytes(8)), "of type 77"),
    "array of arrays": (keys(string("a") + u32(ARRAY) + u32(ARRAY) + u64(1) + bytes(20)), "array of arrays"),
    "array without an end": (keys(array("a", I32, [1], HUGE)), "the file ends at"),
    "array overflow": (keys(array("a", U64, [1], (1 << 61) + 1)), "the file ends at"),
    "strings without an end": (keys(array("a", STRING, ["x"], HUGE)), "the file ends at"),
    "strings too many": (File([array("a", STRING, ["x"] * 9, 10)], alignment=1), "string 10 of 10"),
    "long string in array": (keys(array("a", STRING, ["x"] * 99, 100) + u64(500)), "string 100 of 100 (500"),
    "endless string in array": (keys(array("a", STRING, ["x"] * 99, 100) + u64(MOST)), "string 100 of 100"),
    "length of 41 bits": (keys(array("a", STRING, ["x"] * 99, 110) + u64(1 << 40 | 1)), "string 100 of 110"),
    "alignment 0": (keys(key("general.alignment", U32, 0)), "is 0, not a power of two"),
    "alignment 48": (keys(key("general.alignment", U32, 48)), "is 48, not a power of two"),
    "alignment 4": (keys(key("general.alignment", U32, 4)), "is 4, not a power of two"),
    "alignment text": (keys(key("general.alignment", STRING, "32")), "is 32, not a power of two"),
    "alignment yes": (keys(key("general.alignment", BOOL, True)), "is True, not a power of two"),
    "alignment huge": (File([key("general.alignment", U32, 1 << 31)], [ROW], bytes(16)), "the file ends"),
    # The table of tensors
    "tensor missing from table": (File(tensors=[ROW], tensor_count=2, data=bytes(64)), "tensor 2 of 2"),
    "tensor name empty": (rows(16, tensor("", (4,))), "not a printable name"),
    "tensor twice": (rows(64, ROW, tensor("t", (4,), offset=32)), '"t" appears twice'),
    "five dimensions": (rows(16, tensor("t", (1, 1, 1, 1, 4))), "has 5 dimensions"),
    "dimensions without an end": (rows(64, string("t") + u32(1 << 31)), "has 2,147,483,648 dimensions"),
    "huge dimension": (rows(16, tensor("t", (HUGE,))), "the file ends at"),
    "overflowing product": (rows(16, tensor("t", (1 << 32, 1 << 32))), "the file ends at"),
    "product of 2^64 + 4": (rows(16, tensor("t", (1 << 62, 4, 4))), "the file ends at"),
    "offset unaligned": (rows(64, tensor("t", (4,), offset=8)), "not a multiple of 32"),
    "offset without an end": (rows(64, tensor("t", (4,), offset=HUGE)), "the file ends at"),
    "offset wraps": (rows(64, tensor("t", (4,), offset=MOST - 31)), "the file ends at"),
    "data past the end": (rows(15, ROW), "the file ends at"),
    "data absent": (bytes(rows(0, ROW)), "the file ends at"),
    "overlap": (rows(64, tensor("t", (16,)), tensor("u", (4,), offset=32)), '"t" and "u" overlap'),
    "same place": (rows(64, ROW, tensor("u", (4,))), "overlap"),
    # Parts of a split model
    "part as text": (keys(key("split.no", STRING, "0"), key("split.count", U16, 2)), "part 0 (from 0) of 2"),
    "part 7 of 3": (keys(key("split.no", U16, 6), key("split.count", U16, 3)), "part 6 (from 0) of 3"),
    "parts without an end": (keys(key("split.count", U32, 1 << 31)), "of 2147483648"),
    "part misnamed": (keys(key("split.no", U16, 0), key("split.count", U16, 2)), "not named so"),
}
UNKNOWN = {"no version", "version 1", "version 4", "big-endian", "big-endian magic", "array of arrays"}


@pytest.mark.parametrize("name", BAD)
def test_malformed(tmp_path: Path, name: str):
    content, says = BAD[name]
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(write(tmp_path / "model.gguf", content))
    error = caught.value
    assert says in error.message
    assert "model.gguf" in error.message
    assert error.message.isprintable()
    assert error.hint
    assert isinstance(error, UnsupportedModelError) == (name in UNKNOWN)


def test_every_truncation_is_noticed(tmp_path: Path):
    path = write(tmp_path / "model.gguf", small_model())
    for length in range(path.stat().st_size - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(ModelFileError):
            GGUFFile.open(path)


def test_a_sparse_giant_is_refused_at_once(tmp_path: Path):
    path = tmp_path / "giant.gguf"
    with open(path, "wb") as file:
        file.write(bytes(keys(array("a", STRING, [], 1 << 33))))
        file.truncate(1 << 37)
    with pytest.raises(ModelFileError, match=f"longer than {MAX_HEADER >> 20} MiB"):
        GGUFFile.open(path)


def test_errors_carry_no_control_codes(tmp_path: Path):
    content = keys(key("general.alignment", STRING, "\x1b[2J\n"))
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(write(tmp_path / "model.gguf", content))
    assert caught.value.message.isprintable()
