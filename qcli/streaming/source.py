"""Where the bytes of experts are read from: the model's own files, unless a forecast gives another place."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from qcli.gguf.file import GGUFFile
from quant.plan import Ids
from quant.weights import ExpertMatrices


class ExpertSource(Protocol):
    """Names the files to be opened, and where in them the matrices of experts lie."""

    @property
    def paths(self) -> list[Path]:
        """All files that `locate` may name."""

    def locate(self, experts: ExpertMatrices) -> tuple[Path, Ids]:
        """The file of one matrix of every expert, and the byte at which each begins, int64 [experts]."""


class ModelFiles:
    """Experts are read from the files that the model was opened from."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file

    @property
    def paths(self) -> list[Path]:
        """The parts of a split model, or its one file."""
        return list({tensor.path for tensor in self._file.tensors.values()})

    def locate(self, experts: ExpertMatrices) -> tuple[Path, Ids]:
        """See ExpertSource; `experts.addresses` must still point into the mapped file."""
        tensor = self._file.tensor(experts.name)
        return tensor.path, experts.addresses - tensor.data.ctypes.data + tensor.offset
