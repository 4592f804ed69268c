"""A tiny Qwen3-Next in memory, so that a test can change a key or a tensor and write it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf_maker as maker
import numpy as np
from gguf import GGMLQuantizationType
from places import DATA

from qcli.gguf.file import GGUFFile

PLAIN = DATA / "qwen3next.gguf"
ARCH = "qwen3next"


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

    def writer(self) -> Callable[[Path, dict[str, object]], Path]:
        """What writes these tensors with any keys, several times as fast as `write`."""
        rows, data = [], bytearray()
        for name, (kind, values) in self.tensors.items():
            data += bytes(-len(data) % 32)
            shape = (*values.shape[:-1], self.columns[name])
            rows.append(maker.tensor(name, shape, GGMLQuantizationType[kind].value, len(data)))
            data += values.tobytes()
        return lambda path, keys: maker.write(path, maker.File([_key(*item) for item in keys.items()], rows, data))


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
