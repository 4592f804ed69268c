"""The same ids read in other pieces differ in the last bits: what comes back is one of them, never a mixture."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qcli.runtime.checkpoint import Checkpoint
from qcli.runtime.history import common_length, extend
from qcli.runtime.state_store import StateStore

CHUNK, LONGEST = 4, 12
TEXTS = ([1] * LONGEST, [1] * 5 + [2] * 7)
WAYS = st.tuples(
    st.sampled_from(TEXTS),
    st.lists(st.integers(1, LONGEST), min_size=1, max_size=4, unique=True).map(sorted),  # where a piece ends
    st.booleans(),  # whether every state is saved, or that of the last alone
)


class HistoryModel:
    """A model whose bits are the history of its text."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.history: list[int] = []
        self.cache = np.zeros((1, LONGEST, 1), np.uint32)

    def rows(self, a: int, b: int) -> list[np.ndarray]:
        return [self.cache[:, a:b]]

    def read(self, ids: list[int], ends: list[int]) -> None:
        """Add pieces of a text."""
        for end in ends:
            piece = ids[len(self.ids) : end]
            self.ids += piece
            extend(self.history, piece, CHUNK, step=len(piece) == 1)
        self.cache[0, : len(self.ids), 0] = self.history

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            tuple(self.ids), (np.array(self.history[-1:], np.float64).astype(np.float32),), None, tuple(self.history)
        )


@settings(max_examples=80, deadline=None)
@given(saved=st.lists(WAYS, min_size=1, max_size=6), wanted=WAYS, held=WAYS)
def test_a_text_that_comes_back_is_one_that_was_computed(saved, wanted, held):
    with tempfile.TemporaryDirectory() as place:
        store = StateStore(Path(place) / "states" / ("a" * 32), 10**9, Checkpoint((), (np.zeros(1, np.float32),), None))
        computed = [save(store, *way) for way in saved]
        model = HistoryModel()
        model.read(held[0], held[1])
        ids = wanted[0][: store.longest(wanted[0])]
        there = common_length(model.ids, ids)
        if ids:
            found = store.read(ids, model.rows, model.history[:there])
            assert found is not None
            mine = model.cache[0, : len(ids), 0].tolist()
            rounded = {text[len(ids) - 1] for text in computed if text[: len(ids)] == mine}
            assert found.recurrent[0][0] in {np.float32(last) for last in rounded}
            assert common_length(found.history, mine) in range(len(ids) + 1)
            assert found.history[-1] == mine[-1]


def save(store: StateStore, text: list[int], ends: list[int], every: bool) -> list[int]:
    """Compute a text piece by piece and have its states saved; its history."""
    model = HistoryModel()
    for end in ends:
        model.read(text, [end])
        if every or end == ends[-1]:
            store.save(model.checkpoint(), model.rows)
            store.wait()
    return model.history
