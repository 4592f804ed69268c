"""A file beside the kernels that remembers which experts of a model were asked for, so that the next start reads those first."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from qcli.errors import OutputError
from qcli.gguf.file import GGUFFile
from qcli.host import folders

Heat = Mapping[str, NDArray[np.float32]]  # float32 [experts] by the name of a layer's gate


def path_for(file: GGUFFile) -> Path:
    """Where the heat of a model is kept; models are told apart by what their tensors are called, and how long they are."""
    tensors = "\n".join(f"{tensor.name} {tensor.type} {tensor.shape}" for tensor in file.tensors.values())
    name = f"{file.path.stem}-{hashlib.sha256(tensors.encode()).hexdigest()[:16]}.npz"
    return folders.cache() / "heat" / name


def load(path: Path) -> Heat:
    """What was saved; nothing if there is no such file, or it is damaged."""
    try:
        with open(path, "rb") as file, np.load(file) as saved:
            return {name: saved[name] for name in saved.files if _is_heat(saved[name])}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return {}


def _is_heat(values: NDArray[Any]) -> bool:
    return values.dtype == np.float32 and values.ndim == 1 and bool((np.isfinite(values) & (values >= 0)).all())


def save(path: Path, heat: Heat) -> None:
    """Written beside, then renamed. Raises OutputError."""
    arrays: Any = dict(heat)
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            beside = Path(file.name)
            np.savez_compressed(file, **arrays)
        os.replace(beside, path)
    except OSError as error:
        if beside:
            with suppress(OSError):
                beside.unlink()
        message = f"{path}: which experts were asked for cannot be kept: {error.strerror or error}"
        raise OutputError(message, "the next start will read them as they are asked for") from None
