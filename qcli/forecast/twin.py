"""A model of a file's shape whose weights are random blocks that many tensors share: as slow as the real one, and small.

Kernels do the same work for any weights, and read memory as long as what they read is no longer in the caches when it comes
again. Small models do not share, so that they fit into the caches as well as the real ones do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcli.bench.random_blocks import random_blocks
from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.types import BLOCKS
from qcli.host.memory import available
from qcli.host.pages import pages
from qcli.models import Model
from qcli.streaming.dense import is_expert
from quant import formats
from quant.kernels.experts import GatedExperts
from quant.kernels.experts_streamed import ExpertProvider
from quant.plan import Activation, Batch, Ids, Plan, StageCallback
from quant.weights import ExpertMatrices, Matrix

_POOL = 256 << 20  # bytes of a type that are not shared; several times what caches hold
_PATTERN = 4 << 20  # random bytes, which a pool repeats
_LINE = 64
_STD = 0.02  # of the weights, about


class Pool:
    """Blocks of one type, handed out in turn; when all are, from the first again."""

    def __init__(self, kind: str, size: int) -> None:
        """size: bytes."""
        block = BLOCKS[kind].bytes
        self._grain = math.lcm(block, _LINE)
        rounded = self._rounded(size)
        self._memory = pages(rounded, huge=False)[:rounded]
        pattern = random_blocks(np.random.default_rng(0), kind, min(_PATTERN, size) // block, _STD).reshape(-1)
        for first in range(0, len(self._memory), len(pattern)):
            piece = self._memory[first : first + len(pattern)]
            piece[:] = pattern[: len(piece)]
        self._at = 0

    @property
    def n_bytes(self) -> int:
        return len(self._memory)

    def take(self, size: int) -> NDArray[np.uint8]:
        """So many bytes, read-only."""
        first = int(self._places(1, size)[0])
        data = self._memory[first : first + size]
        data.flags.writeable = False
        return data

    def addresses(self, count: int, size: int) -> NDArray[np.int64]:
        """Where `count` times so many bytes begin, int64 [count]."""
        return self._memory.ctypes.data + self._places(count, size)

    def _places(self, count: int, size: int) -> NDArray[np.int64]:
        step = self._rounded(size)
        around = len(self._memory) // step
        places = (-(-self._at // step) + np.arange(count, dtype=np.int64)) % around * step
        self._at = int(places[-1]) + step
        return places

    def _rounded(self, size: int) -> int:
        return -(-size // self._grain) * self._grain


class Twin:
    """What `file` describes, without reading its weights; call `settle` with every model that is loaded from it."""

    def __init__(self, file: GGUFFile) -> None:
        kinds = {tensor.type for tensor in file.tensors.values() if tensor.type in formats.names()}
        self._pools = {kind: Pool(kind, _pool_size(kind, file.tensors.values())) for kind in kinds}
        self.n_bytes = sum(pool.n_bytes for pool in self._pools.values())
        self.file = copy(file)
        self.file.tensors = MappingProxyType({name: self._stand_in(tensor) for name, tensor in file.tensors.items()})
        self._homes: dict[str, tuple[NDArray[np.int64], ...]] = {}

    def settle(self, layer: GatedExperts) -> None:
        """Give every expert of a layer a place in memory."""
        for part, home in zip((layer.gate, layer.up, layer.down), self.homes(layer), strict=True):
            part.addresses[:] = home

    def homes(self, layer: GatedExperts) -> tuple[NDArray[np.int64], ...]:
        """Of gate, up and down, int64 [experts] each."""
        name = layer.gate.name
        if name not in self._homes:
            self._homes[name] = tuple(self._home(part) for part in (layer.gate, layer.up, layer.down))
        return self._homes[name]

    def _home(self, part: ExpertMatrices) -> NDArray[np.int64]:
        return self._pools[part.format.name].addresses(part.count, part.bytes)

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if tensor.type not in self._pools or is_expert(tensor):  # experts move when their layer is known
            return tensor
        if tensor.type == "F32" and len(tensor.shape) == 1:  # below zero, because a decay above would be no decay
            data = np.full(tensor.shape, -0.5, np.float32).view(np.uint8)
        else:
            data = self._pools[tensor.type].take(tensor.n_bytes)
        return replace(tensor, data=data.reshape(tensor.data.shape))


def _pool_size(kind: str, tensors: Iterable[Tensor]) -> int:
    """All that a small model has of a type; of a large one, as much as its largest dense tensor takes, or `_POOL`."""
    own = [tensor for tensor in tensors if tensor.type == kind]
    largest = max(tensor.n_bytes // tensor.shape[0] if is_expert(tensor) else tensor.n_bytes for tensor in own)
    return max(largest, min(sum(tensor.n_bytes for tensor in own), _POOL, available() // 16))


class Layers(ExpertProvider):
    """An ExpertProvider that notes the layers of experts, and brings none."""

    def __init__(self) -> None:
        self.found: list[GatedExperts] = []

    def note_router(self, layer: GatedExperts, router: Matrix, h: Activation) -> None:
        """See ExpertProvider."""

    def of_token(self, layer: GatedExperts, chosen: Ids, here: Ids, late: Ids) -> tuple[StageCallback, StageCallback]:
        """See ExpertProvider."""
        self.found.append(layer)
        return _nothing, _nothing

    def of_tokens(self, layer: GatedExperts, chosen: Ids, slots: Ids, starts: Ids, counters: Ids) -> StageCallback:
        """See ExpertProvider."""
        return _nothing


def _nothing() -> Any:
    return iter(())


def layers_of(model: Model, batch: Batch) -> list[GatedExperts]:
    """Every layer of experts that a token meets."""
    noted = Layers()
    plan = Plan(1, 1, batch, noted)
    model.trunk(plan, np.zeros(1, np.int64))
    return noted.found
