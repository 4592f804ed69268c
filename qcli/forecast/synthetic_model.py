"""A model of a file's shape whose weights are random blocks that many tensors share: as slow as the real one, and small.

Kernels do the same work for any weights, and read memory as long as what they read has left the CPU's caches before it is read
again. Tensors of a small model do not share blocks, so that they fit into the caches as well as the real ones do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from qcli.bench.random_blocks import random_blocks
from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.types import BLOCKS
from qcli.host.memory import available_memory
from qcli.host.pages import allocate_pages
from qcli.layers.rotary import FACTORS
from qcli.models import Model
from qcli.streaming.dense import is_expert
from qcli.streaming.layer_collector import LayerCollector
from quant import formats
from quant.batch import Batch
from quant.kernels.experts import GatedExperts
from quant.plan import Ids, Plan
from quant.weights import ExpertMatrices

_POOL = 256 << 20  # bytes of a type from which tensors share blocks; several times what CPU caches have
_PATTERN = 4 << 20  # random bytes, which a pool repeats
_CACHE_LINE = 64  # bytes
_STD = 0.02  # of the weights, about


class BlockPool:
    """Random blocks of one type, handed out in turn; after the last comes the first again."""

    def __init__(self, kind: str, n_bytes: int) -> None:
        """kind: the name of a tensor type."""
        block = BLOCKS[kind].bytes
        self._grain = math.lcm(block, _CACHE_LINE)
        rounded = self._rounded(n_bytes)
        self._memory = allocate_pages(rounded, huge=False)[:rounded]
        pattern = random_blocks(np.random.default_rng(0), kind, min(_PATTERN, n_bytes) // block, _STD).reshape(-1)
        for first in range(0, len(self._memory), len(pattern)):
            piece = self._memory[first : first + len(pattern)]
            piece[:] = pattern[: len(piece)]
        self._next = 0  # byte

    @property
    def n_bytes(self) -> int:
        """Bytes of its memory."""
        return len(self._memory)

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        """The next bytes, uint8 [n_bytes], read-only."""
        first = int(self._offsets(1, n_bytes)[0])
        data = self._memory[first : first + n_bytes]
        data.flags.writeable = False
        return data

    def take_addresses(self, count: int, n_bytes: int) -> NDArray[np.int64]:
        """Addresses of the next `count` pieces of so many bytes, int64 [count]."""
        return self._memory.ctypes.data + self._offsets(count, n_bytes)

    def _offsets(self, count: int, n_bytes: int) -> NDArray[np.int64]:
        step = self._rounded(n_bytes)
        pieces = len(self._memory) // step
        offsets = (-(-self._next // step) + np.arange(count, dtype=np.int64)) % pieces * step
        self._next = int(offsets[-1]) + step
        return offsets

    def _rounded(self, n_bytes: int) -> int:
        return -(-n_bytes // self._grain) * self._grain


class SyntheticModel:
    """A `file` to load models from, without the weights of the original; experts are in memory after `set_addresses`."""

    def __init__(self, file: GGUFFile, before: SyntheticModel | None = None) -> None:
        """before: a model that is no longer used, whose pools are taken over where they are large enough."""
        kinds = {tensor.type for tensor in file.tensors.values() if tensor.type in formats.names()}
        sizes = {kind: _pool_bytes(kind, file.tensors.values()) for kind in kinds}
        old = before._pools if before else {}
        self._pools: dict[str, BlockPool] = {
            kind: old[kind] if kind in old and old[kind].n_bytes >= n_bytes else BlockPool(kind, n_bytes)
            for kind, n_bytes in sizes.items()
        }
        self._addresses: dict[str, Ids] = {}  # int64 [experts], by the name of a tensor of experts
        self.n_bytes = sum(pool.n_bytes for pool in self._pools.values())
        self.file = copy(file)
        self.file.tensors = MappingProxyType({name: self._synthetic(tensor) for name, tensor in file.tensors.items()})

    def set_addresses(self, layer: GatedExperts) -> None:
        """Let kernels find every expert of a layer in the pools."""
        for matrix in layer.matrices:
            matrix.addresses[:] = self.addresses_of(matrix)

    def addresses_of(self, experts: ExpertMatrices) -> Ids:
        """Addresses in a pool for one matrix of every expert, int64 [experts], the same at every call."""
        if experts.name not in self._addresses:
            pool = self._pools[experts.format.name]
            self._addresses[experts.name] = pool.take_addresses(experts.count, experts.bytes)
        return self._addresses[experts.name]

    def _synthetic(self, tensor: Tensor) -> Tensor:
        if tensor.type not in self._pools or is_expert(tensor):  # experts get addresses when their layer is known
            return tensor
        # a vector is below zero, because a decay above would be no decay
        if tensor.type == "F32" and max(tensor.shape) == math.prod(tensor.shape):
            value = 1.0 if tensor.name == FACTORS else -0.5
            data = np.full(tensor.shape, value, np.float32).view(np.uint8)
        else:
            data = self._pools[tensor.type].take(tensor.n_bytes)
        return replace(tensor, data=data.reshape(tensor.data.shape))


def _pool_bytes(kind: str, tensors: Iterable[Tensor]) -> int:
    """All that a small model has of a type; of a large one, its largest dense tensor or one expert, or `_POOL`."""
    own = [tensor for tensor in tensors if tensor.type == kind]
    largest = max(tensor.n_bytes // tensor.shape[0] if is_expert(tensor) else tensor.n_bytes for tensor in own)
    return max(largest, min(sum(tensor.n_bytes for tensor in own), _POOL, available_memory() // 16))


def expert_layers(model: Model, batch: Batch) -> list[GatedExperts]:
    """The routed experts of every layer that has some, in order; batch: see quant.plan.Plan."""
    collector = LayerCollector()
    plan = Plan(1, 1, batch, collector)
    model.trunk(plan, np.zeros(1, np.int64))
    return collector.layers
