"""An expert cache for a trial run: a synthetic model's experts are found in it at given rates, the others read from a disk.

It is the engine's own `ExpertLoader` with another source of bytes, a prefetch policy that is switched by hand, and before every
token a random draw of what is in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qcli.forecast.synthetic_model import SyntheticModel
from qcli.host.pages import allocate_pages
from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.expert_loader import ExpertLoader
from qcli.streaming.reader import ReadRequest
from qcli.streaming.source import ExpertSource, ModelFiles
from quant.plan import Ids
from quant.weights import ExpertMatrices

_DISK_SECONDS = 0.5  # of reads, to measure the disk
_REQUESTS = 32  # experts being read at a time meanwhile
_SLOT_BYTES = 256 << 20  # of all layers' slots, which share memory beyond that: more than CPU caches hold


class PrefetchSwitch:
    """A PrefetchPolicy that is set from outside."""

    enabled = False

    def record(self, seconds: float) -> None:
        """See PrefetchPolicy."""


class OtherFile:
    """An ExpertSource for a model that may not be here yet: reads of the same sizes from another file."""

    def __init__(self, source: ExpertSource, path: Path) -> None:
        """source: of the model; path: a file larger than any expert."""
        self._source, self._path, self._size = source, path, path.stat().st_size

    @property
    def paths(self) -> list[Path]:
        """See ExpertSource."""
        return [self._path]

    def locate(self, experts: ExpertMatrices) -> tuple[Path, Ids]:
        """See ExpertSource."""
        _, offsets = self._source.locate(experts)
        return self._path, offsets % (self._size - experts.bytes)


class SimulatedCache:
    """Its `loader` is for an engine; the other methods tell what the disk gives and what would be read from it."""

    def __init__(self, model: SyntheticModel, disk: Path | None = None) -> None:
        """disk: a file to read instead of the model's own."""
        self.hit_rates: Mapping[str, float] = {}  # by the tensor name of a layer's gates
        self.prefetch = PrefetchSwitch()
        self._model = model
        self._random = np.random.default_rng()  # unseeded: a disk may cache what an earlier forecast read
        self._seconds_per_new_byte = 0.0
        source: ExpertSource = ModelFiles(model.file)
        self.loader = ExpertLoader(
            model.file,
            source=OtherFile(source, disk) if disk else source,
            prefetch=self.prefetch,
            before_token=self._draw_loaded,
        )

    def allocate(self, hit_rates: Mapping[str, float]) -> None:
        """Have a few slots in each layer, in memory that was written to before, as that of a full cache is."""
        self.hit_rates = hit_rates
        layers = list(self.loader.layers.values())
        slots = 2 * self.loader.experts_per_token
        most = slots * max(layer.slot_bytes for layer in layers)
        memory, at = allocate_pages(max(most, min(most * len(layers), _SLOT_BYTES))), 0
        began = perf_counter()
        memory[:] = 0
        self._seconds_per_new_byte = (perf_counter() - began) / len(memory)
        for layer in layers:
            at = 0 if at + most > len(memory) else at
            layer.allocate(slots, memory[at : at + most])
            at += most

    def disk_bytes_per_s(self) -> float:
        """Measure the disk with many experts being read at a time."""
        layers = list(self.loader.layers.values())
        free = list(allocate_pages(_REQUESTS * max(layer.slot_bytes for layer in layers)).reshape(_REQUESTS, -1))
        pending: deque[tuple[ReadRequest, NDArray[np.uint8]]] = deque()
        n_bytes, began = 0, perf_counter()
        while (in_time := perf_counter() - began < _DISK_SECONDS) or pending:
            if free and in_time:
                memory, layer = free.pop(), layers[self._random.integers(len(layers))]
                expert = int(self._random.integers(layer.expert_count))
                pending.append((self.loader.cache.reader.read(layer.spans(expert, memory)), memory))
            else:
                request, memory = pending.popleft()
                request.wait()
                n_bytes += request.n_bytes
                free.append(memory)
        return n_bytes / (perf_counter() - began)

    def bytes_per_token(self) -> float:
        """Expected bytes that a decoded token reads from the disk."""
        k = self.loader.experts_per_token
        return sum(k * layer.expert_bytes * (1 - self.hit_rates[name]) for name, layer in self.loader.layers.items())

    def bytes_per_prompt(self, tokens: int) -> float:
        """Expected bytes that a prompt reads when the cache is empty."""
        return sum(layer.expert_bytes * self._expected_experts(layer, tokens) for layer in self.loader.layers.values())

    def seconds_to_fill(self, tokens: int, slots: int) -> float:
        """Until the system has memory for a first prompt's experts: where a host has to find it first, seconds a gigabyte."""
        layers = self.loader.layers.values()
        n_bytes = sum(layer.slot_bytes * min(slots, self._expected_experts(layer, tokens)) for layer in layers)
        return n_bytes * self._seconds_per_new_byte

    def _expected_experts(self, layer: CachedLayer, tokens: int) -> float:
        """How many experts of a layer are chosen by any of so many tokens, if at random."""
        share = min(1.0, self.loader.experts_per_token / layer.expert_count)
        return layer.expert_count * (1 - (1 - share) ** tokens)

    def _draw_loaded(self) -> None:
        """Draw anew which experts are in memory, as if the last token had been long ago; free the slots."""
        for name, layer in self.loader.layers.items():
            loaded = self._random.random(layer.expert_count) < self.hit_rates[name]
            for expert in layer.slots.expert_in[layer.slots.expert_in >= 0].tolist():
                if layer.pending_load(expert):  # a wrong prefetch
                    loaded[expert] = False
                else:
                    layer.slots.release(expert)
            for matrix in layer.matrices:
                matrix.experts.addresses[:] = np.where(loaded, self._model.addresses_of(matrix.experts), 0)
