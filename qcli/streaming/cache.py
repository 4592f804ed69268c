"""The cache of a streamed model's experts: its layers, the reader that they share, and counts of what was found and read.

`ExpertLoader` makes one; plans add a layer to it for every layer of experts that they trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.reader import Reader
from qcli.streaming.source import ExpertSource
from quant.kernels.expert_loads import TOKEN
from quant.kernels.experts import GatedExperts
from quant.plan import Ids


@dataclass
class Traffic:
    """What tokens found in the cache, and what was read into it."""

    hits: int = 0  # experts chosen by decoded tokens that were in memory
    misses: int = 0  # and those that were not
    bytes_read: int = 0  # for decoded tokens and prompts
    wait_s: float = 0.0  # seconds that kernels waited for reads

    @property
    def hit_rate(self) -> float:
        """Hits among all experts chosen, 0 to 1."""
        chosen = self.hits + self.misses
        return self.hits / chosen if chosen else 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Add the time that the block takes to `wait_s`."""
        began = perf_counter()
        try:
            yield
        finally:
            self.wait_s += perf_counter() - began


class ExpertCache:
    """Cached layers in the order in which a token passes through them."""

    def __init__(self, source: ExpertSource) -> None:
        """Raises ModelFileError if a file of the source cannot be opened."""
        self._source = source
        self.reader = Reader(source.paths)
        self.traffic = Traffic()
        self.token: Ids = np.zeros(len(TOKEN.names), np.int64)  # table of TOKEN
        self.layers: dict[str, CachedLayer] = {}  # by the name of their experts

    def layer(self, experts: GatedExperts, k: int) -> CachedLayer:
        """The cached layer of these experts, of which a token chooses k; a new one at the end if there is none."""
        name = experts.name
        if name not in self.layers:
            self.layers[name] = CachedLayer(self._source, experts, self.reader, self.token, k)
        return self.layers[name]

    def next_layer(self, layer: CachedLayer) -> CachedLayer | None:
        """The layer that a token passes through after this one; None after the last."""
        layers = list(self.layers.values())
        place = layers.index(layer) + 1
        return layers[place] if place < len(layers) else None
