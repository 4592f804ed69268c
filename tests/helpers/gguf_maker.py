"""Writes GGUF by hand, byte for byte, so that a test can write it wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_FORMATS = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "?",
    U64: "Q",
    I64: "q",
    F64: "d",
}


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


def u64(n: int) -> bytes:
    return struct.pack("<Q", n)


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return u64(len(raw)) + raw


def raw_value(kind: int, value: object) -> bytes:
    if kind == STRING:
        assert isinstance(value, str | bytes)
        return string(value)
    return struct.pack("<" + _FORMATS[kind], value)


def key(name: str | bytes, kind: int, value: object) -> bytes:
    """One key and its value."""
    return string(name) + u32(kind) + raw_value(kind, value)


def array(name: str, kind: int, values: Sequence[object], count: int | None = None) -> bytes:
    """One key and an array; `count` as claimed."""
    head = u32(kind) + u64(len(values) if count is None else count)
    return string(name) + u32(ARRAY) + head + b"".join(raw_value(kind, v) for v in values)


def tensor(name: str | bytes, shape: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    """One row of the table; shape in NumPy order, the file has it reversed."""
    return string(name) + u32(len(shape)) + b"".join(u64(n) for n in reversed(shape)) + u32(kind) + u64(offset)


@dataclass
class File:
    """The parts of a file, each of which a test may replace."""

    keys: Sequence[bytes] = ()
    tensors: Sequence[bytes] = ()
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: bytes = u32(3)
    key_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def __bytes__(self) -> bytes:
        key_count = len(self.keys) if self.key_count is None else self.key_count
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        head = self.magic + self.version + u64(tensor_count) + u64(key_count)
        head += b"".join(self.keys) + b"".join(self.tensors)
        return head + b"\0" * (-len(head) % self.alignment) + self.data


def write(path: Path, content: File | bytes) -> Path:
    path.unlink(missing_ok=True)  # a file that is written over is sent to the disk at once by some file systems
    path.write_bytes(bytes(content))
    return path


def small_model() -> File:
    """A valid file with every type of value, and three tensors in F32, Q8_0 and Q4_K."""
    keys = [
        key("general.architecture", STRING, "tiny"),
        key("general.name", STRING, "Tiny"),
        key("general.alignment", U32, 32),
        key("tiny.context_length", U32, 128),
        key("tiny.expert_used_count", U16, 1),
        key("tiny.u8", U8, 200),
        key("tiny.i8", I8, -3),
        key("tiny.i16", I16, -300),
        key("tiny.i32", I32, -70_000),
        key("tiny.u64", U64, 1 << 40),
        key("tiny.i64", I64, -(1 << 40)),
        key("tiny.f32", F32, 0.5),
        key("tiny.f64", F64, 1e-9),
        key("tiny.flag", BOOL, True),
        array("tiny.ints", I32, [3, -1, 4]),
        array("tiny.floats", F32, [0.25, 0.75]),
        array("tiny.flags", BOOL, [True, False, True]),
        array("tokenizer.ggml.tokens", STRING, [f"t{i}" for i in range(100)] + ["", "é", "x" * 300]),
        array("tiny.nothing", STRING, []),
    ]
    tensors = [
        tensor("token_embd.weight", (4, 8), 0, 0),
        tensor("blk.0.ffn_up_exps.weight", (2, 3, 32), 8, 128),
        tensor("blk.0.attn_q.weight", (2, 256), 12, 352),
    ]
    return File(keys, tensors, bytes(i % 251 for i in range(352 + 288)))
