"""A tiny Qwen3-Next in memory, so that a test can change a key or a tensor and write it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import gguf_maker as maker
import numpy as np
from gguf import GGMLQuantizationType
from places import DATA

from qcli.gguf.file import GGUFFile

PLAIN = DATA / "qwen3next.gguf"
ARCH = "qwen3next"
_ROOM = 1 << 12  # bytes between header and data, for longer headers


@dataclass
class Tiny:
    """Keys by name; tensors by name: ggml's type, and bytes [..., rows, bytes per row] (or an array of a NumPy type)."""

    keys: dict[str, object]
    tensors: dict[str, tuple[str, np.ndarray]]
    columns: dict[str, int]

    @classmethod
    def read(cls, path: Path = PLAIN) -> Tiny:
        with GGUFFile.open(path) as file:
            keys = {key: value for key, value in file.metadata.items() if not key.startswith("tokenizer.")}
            tensors = {t.name: (t.type, t.data.reshape(*t.shape[:-1], -1).copy()) for t in file.tensors.values()}
            return cls(keys, tensors, {t.name: t.shape[-1] for t in file.tensors.values()})

    def __setitem__(self, key: str, value: object) -> None:
        """Set a key of the architecture."""
        self.keys[f"{ARCH}.{key}"] = value

    def put(self, name: str, kind: str, data: np.ndarray, columns: int) -> None:
        """Add or replace a tensor: data uint8 [..., bytes per row]."""
        self.tensors[name], self.columns[name] = (kind, data), columns

    def take(self, name: str) -> tuple[str, np.ndarray, int]:
        """Remove a tensor: its type, its bytes, its columns."""
        return *self.tensors.pop(name), self.columns.pop(name)

    def write(self, path: Path) -> Path:
        """As a GGUF file."""
        return self.writer()(path, self.keys)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, in NumPy order."""
        return (*self.tensors[name][1].shape[:-1], self.columns[name])

    def writer(self) -> Callable[..., Path]:
        """What writes these tensors, as they are now, with any keys: write(path, keys, shapes).

        shapes: of tensors that are to be cut off, or None for such as are to be left out. Over a file that it has written it
        writes the header alone, as data begins further behind than it must: many times as fast as `write`.
        """
        places, data = dict[str, tuple[int, int]](), bytearray()  # of each tensor its type, and where its data are
        for name, (kind, values) in self.tensors.items():
            data += bytes(-len(data) % 32)
            places[name] = GGMLQuantizationType[kind].value, len(data)
            data += values.tobytes()
        whole = {name: self.shape(name) for name in places}
        begins: dict[Path, int] = {}  # data of files that are there
        known = lru_cache(None, typed=True)(_key)  # True is not 1

        @cache
        def row(name: str, shape: tuple[int, ...]) -> bytes:
            """Of the table, without the offset."""
            return maker.tensor(name, shape, places[name][0])[: -len(maker.u64(0))]

        def header(keys: dict[str, object], shapes: dict[str, tuple[int, ...] | None], gap: int) -> bytes:
            kept = {name: shape for name, shape in (whole | shapes).items() if shape is not None}
            table = [row(name, shape) + maker.u64(gap + places[name][1]) for name, shape in kept.items()]
            entries = [_key(*item) if isinstance(item[1], np.ndarray) else known(*item) for item in keys.items()]
            return bytes(maker.File(entries, table))

        def write(path: Path, keys: dict[str, object], shapes: dict[str, tuple[int, ...] | None] | None = None) -> Path:
            size = len(header(keys, shapes or {}, 0))
            if size > begins.get(path, 0):
                begins[path] = size + _ROOM
                maker.write(path, bytes(begins[path]) + data)
            with path.open("r+b") as file:
                file.write(header(keys, shapes or {}, begins[path] - size))
            return path

        return write


def f32(values) -> np.ndarray:
    """Numbers as the bytes of an F32 tensor."""
    return np.ascontiguousarray(values, np.float32).view(np.uint8)


def _key(name: str, value: object) -> bytes:
    if isinstance(value, np.ndarray):
        return maker.array(name, maker.BOOL if value.dtype == bool else maker.I64, value.tolist())
    if isinstance(value, bool):
        return maker.key(name, maker.BOOL, value)
    if isinstance(value, int):
        return maker.key(name, maker.U32 if 0 <= value < 1 << 32 else maker.I64, value)
    return maker.key(name, maker.F64 if isinstance(value, float) else maker.STRING, value)
