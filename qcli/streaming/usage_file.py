"""A file in the cache folder that says how often each expert of a model was chosen, so that the next start loads those first.

`ExpertLoader` loads it at the start and saves it at the end; `qcli experts` shows it and `qcli plan` predicts hits from it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcli.errors import OutputError
from qcli.gguf.file import GGUFFile
from qcli.host import folders
from quant.renaming import PART, remove_parts, replace

Usage = Mapping[str, NDArray[np.float32]]  # counts with decay, float32 [experts], by the tensor name of a layer's gates


def path_for(file: GGUFFile) -> Path:
    """Where the usage of a model's experts is kept; models differ by the names, types and shapes of their tensors."""
    tensors = "\n".join(f"{tensor.name} {tensor.type} {tensor.shape}" for tensor in file.tensors.values())
    name = f"{file.path.stem}-{hashlib.sha256(tensors.encode()).hexdigest()[:16]}.npz"
    return folders.some_cache() / "usage" / name


def load(path: Path) -> Usage:
    """What was saved; empty if there is no such file or it is damaged."""
    try:
        with open(path, "rb") as file, np.load(file) as saved:
            return {name: saved[name] for name in saved.files if _is_usage(saved[name])}
    except Exception:  # a flipped bit is told in many ways by archives, their compression and NumPy
        return {}


def _is_usage(values: NDArray[Any]) -> bool:
    return values.dtype == np.float32 and values.ndim == 1 and bool((np.isfinite(values) & (values >= 0)).all())


def save(path: Path, usage: Usage) -> None:
    """Write a temporary file and rename it. Raises OutputError."""
    arrays: Any = dict(usage)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}-", suffix=PART, delete=False) as file:
            temporary = Path(file.name)
            np.savez_compressed(file, **arrays)
        replace(temporary, path)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                temporary.unlink()
        message = f"{path}: how often experts were used cannot be saved: {error.strerror or error}"
        raise OutputError(message, "the next start will not know which experts to load first") from None
