"""What stands for a model where states are kept: caches and states that follow from the ids alone, as a model's do."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from qcli.runtime.checkpoint import Checkpoint
from qcli.runtime.state_store import StateStore

CTX = 64
CACHES = ((2, 3, np.float16), (1, 5, np.uint8), (3, 1, np.float32))  # heads, row, type
RECURRENT = ((2, 3), (5,))
VOCAB = 7


def _numbers(ids: Sequence[int], shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    seed = zlib.crc32(np.array(ids, np.int32))
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


class StatefulModel:
    """Its caches are as after `ids`; other rows hold what was there before."""

    def __init__(self, caches: Iterable = CACHES, recurrent: Iterable = RECURRENT, vocab: int | None = VOCAB) -> None:
        self.caches = [np.full((heads, CTX, row), 77, dtype) for heads, row, dtype in caches]
        self._recurrent, self._vocab = list(recurrent), vocab

    def rows(self, a: int, b: int) -> list[np.ndarray]:
        return [cache[:, a:b] for cache in self.caches]

    def checkpoint(self, ids: Sequence[int]) -> Checkpoint:
        """What is true after these ids."""
        recurrent = tuple(_numbers(ids, shape) for shape in self._recurrent)
        return Checkpoint(tuple(ids), recurrent, None if self._vocab is None else _numbers(ids, (self._vocab,)))

    def compute(self, ids: Sequence[int]) -> Checkpoint:
        """Fill the rows of these ids."""
        for i in range(len(ids)):
            for cache in self.caches:
                cache[:, i] = _numbers(ids[: i + 1], cache[:, i].shape, cache.dtype)
        return self.checkpoint(ids)

    def is_after(self, checkpoint: Checkpoint, ids: Sequence[int]) -> bool:
        """Whether a checkpoint and all rows are what they are after these ids."""
        true = StatefulModel(recurrent=self._recurrent, vocab=self._vocab)
        true.caches = [np.zeros_like(cache) for cache in self.caches]
        expected, n = true.compute(ids), len(ids)
        pairs = [*zip(checkpoint.recurrent, expected.recurrent, strict=True)]
        pairs += zip(self.rows(0, n), true.rows(0, n), strict=True)
        if expected.logits is not None:
            pairs.append((checkpoint.logits, expected.logits))
        return checkpoint.ids == tuple(ids) and all(np.array_equal(found, wanted) for found, wanted in pairs)


def save(store: StateStore, ids: Sequence[int], model: StatefulModel | None = None) -> None:
    """Have a model compute ids and their state saved, to the end."""
    model = model or StatefulModel()
    store.save(model.compute(ids), model.rows)
    store.wait()


def comes_back(store: StateStore, ids: Sequence[int], model: StatefulModel | None = None) -> bool:
    """Whether a state is there and right, read into a model that knows nothing."""
    model = model or StatefulModel()
    found = store.read(ids, model.rows, ())
    return found is not None and model.is_after(found, ids)
