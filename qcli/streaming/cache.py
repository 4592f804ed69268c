"""What a streamed model has of its experts: layers with slots, a reader that brings more, and what that took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from qcli.gguf.file import GGUFFile
from qcli.streaming.layer import Layer
from qcli.streaming.reader import Reader
from quant.kernels.experts import GatedExperts


@dataclass
class Traffic:
    """What was asked for, and what that took."""

    hits: int = 0  # experts that a token found in memory
    misses: int = 0
    bytes_read: int = 0
    wait_s: float = 0.0  # for reads, by everybody

    @property
    def hit_rate(self) -> float:
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time that this takes."""
        began = perf_counter()
        try:
            yield
        finally:
            self.wait_s += perf_counter() - began


class Stock:
    """Layers in the order in which a token meets them."""

    def __init__(self, file: GGUFFile, paths: list[Path] | None = None) -> None:
        """paths: what is read, if not the files of the model. Raises ModelFileError if they cannot be read again."""
        self._file = file
        self.reader = Reader(paths or list({tensor.path for tensor in file.tensors.values()}))
        self.traffic = Traffic()
        self.layers: dict[str, Layer] = {}  # by the name of their gate

    def layer(self, experts: GatedExperts) -> Layer:
        """Where these experts are kept; new at the end if they were not known."""
        name = experts.gate.name
        if name not in self.layers:
            self.layers[name] = self._added(experts)
        return self.layers[name]

    def following(self, held: Layer) -> Layer | None:
        """The layer that a token meets next."""
        layers = list(self.layers.values())
        place = layers.index(held) + 1
        return layers[place] if place < len(layers) else None

    def _added(self, experts: GatedExperts) -> Layer:
        return Layer(self._file, experts)
