"""Model files of which only the names, types and shapes of tensors are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.header import Header


def named(metadata: dict, shapes: dict[str, tuple[int, ...]]) -> GGUFFile:
    """A file of which only names and shapes are known; vectors in F32, matrices in F16."""
    tensors = {}
    for name, shape in shapes.items():
        kind = "F32" if len(shape) == 1 or "ffn_gate_inp" in name else "F16"
        tensors[name] = Tensor(name, kind, shape, np.empty((0, 0), np.uint8), Path("made"), 0, 0)
    return GGUFFile(Path("made"), Header(3, metadata, []), tensors)
