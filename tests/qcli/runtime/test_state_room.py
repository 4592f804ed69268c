"""How much states may take, and which go first when there is no more room."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stateful_model import CTX, StatefulModel, comes_back, save

from qcli.errors import UsageError
from qcli.runtime import state_room
from qcli.runtime.state_store import StateStore

MODEL = {"caches": ((1, 8, "u1"),), "recurrent": ((4500,),), "vocab": None}  # 8 bytes a row; 18 kB a state
STATE = 19_000  # bytes of a state and a few rows, with their headers


@pytest.fixture
def root(tmp_path):
    return tmp_path / "states"


def opened(root: Path, most_bytes: int, name: str = "a") -> StateStore:
    return StateStore(root / (name * 32), most_bytes, StatefulModel(**MODEL).checkpoint([]))


def add(store: StateStore, *texts) -> None:
    for ids in texts:
        save(store, ids, StatefulModel(**MODEL))


def prefixes(text, every: int = 1) -> list:
    return [text[:n] for n in range(every, len(text) + 1, every)]


def ends(store: StateStore, text) -> list[int]:
    """Where a text has states that come back."""
    found = [n for n in range(1, len(text) + 1) if store.longest(text[:n]) == n]
    assert all(comes_back(store, text[:n], StatefulModel(**MODEL)) for n in found)
    return found


def kept_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def grow_older(root: Path) -> None:
    """Let an hour pass."""
    for path in root.rglob("*"):
        about = path.stat()
        os.utime(path, (about.st_atime - 3600, about.st_mtime - 3600))


def test_the_limit_is_a_size(monkeypatch):
    assert state_room.limit() == 10_000_000_000
    monkeypatch.setenv("QCLI_STATES_LIMIT", "2.5GB")
    assert state_room.limit() == 2_500_000_000
    monkeypatch.setenv("QCLI_STATES_LIMIT", "lots")
    with pytest.raises(UsageError, match='QCLI_STATES_LIMIT: "lots"'):
        state_room.limit()


def test_of_a_long_conversation_the_newest_are_kept_and_ever_fewer_older_ones(root):
    store, text = opened(root, 17 * STATE), list(range(CTX))
    add(store, *prefixes(text))
    found = ends(store, text)
    assert found[0] == 1  # what it begins with is thinned last
    assert found[-4:] == [61, 62, 63, 64]
    gaps = [b - a for a, b in pairwise(found[1:])]
    assert gaps == sorted(gaps, reverse=True)
    assert kept_bytes(root) <= 17 * STATE


def test_a_growing_conversation_is_thinned_before_another_loses_anything(root):
    other, text = [99, 98, 97], list(range(30))
    store = opened(root, 24 * STATE)
    add(store, *prefixes(other))
    grow_older(root)
    add(store, *prefixes(text))
    assert ends(store, other) == [1, 2, 3]
    assert len(ends(store, text)) <= 21


def test_another_conversation_is_thinned_before_it_goes(root):
    old, text = list(range(50, 74)), list(range(24))
    store = opened(root, 34 * STATE)
    add(store, *prefixes(old))
    grow_older(root)
    add(store, *prefixes(text))
    assert ends(store, old)[-4:] == [21, 22, 23, 24]
    assert ends(store, text)[-4:] == [21, 22, 23, 24]


def test_the_one_unused_for_longest_goes_first(root):
    store = opened(root, 4 * STATE)
    for first in (1, 2, 3):
        add(store, [first, 0])
        grow_older(root)
    comes_back(store, [1, 0], StatefulModel(**MODEL))
    grow_older(root)
    add(store, [4, 0], [5, 0])
    assert [first for first in range(1, 6) if store.longest([first, 0])] == [1, 3, 4, 5]


def test_the_limit_holds_for_all_models_together(root):
    first, second = opened(root, 4 * STATE, "a"), opened(root, 4 * STATE, "b")
    add(first, [1], [2], [3])
    grow_older(root)
    add(second, [1], [2], [3])
    assert kept_bytes(root) <= 4 * STATE
    assert [n for n in (1, 2, 3) if second.longest([n])] == [1, 2, 3]


def test_what_others_keep_there_is_no_business_of_states(root):
    (root / "thesis").mkdir(parents=True)
    (root / "thesis" / f"3-{'0' * 32}.state").write_bytes(bytes(9999))
    add(opened(root, 3 * STATE), [1], [2], [3])
    assert (root / "thesis" / f"3-{'0' * 32}.state").exists()


def test_shared_rows_stay_as_long_as_a_conversation_needs_them(root):
    store, start = opened(root, 7 * STATE), list(range(20))
    add(store, start)
    for last in range(100, 110):
        grow_older(root)
        add(store, [*start, last])
    assert ends(store, [*start, 109])[-1] == 21
    assert ends(store, [*start, 108])[-1] == 21


def test_branches_that_a_conversation_left_go_before_another_one(root):
    """As with thoughts that a template leaves out of the next turn: each answer ends a branch."""
    store, other = opened(root, 20 * STATE), [99, 98, 97]
    add(store, *prefixes(other))
    grow_older(root)
    text = list(range(20))
    for n in range(1, 20):
        add(store, text[:n], [*text[:n], 77, 77])
    assert ends(store, other) == [1, 2, 3]
    assert store.longest([*text[:19], 77, 77]) == 21


def test_a_conversation_larger_than_the_limit_is_told_once_and_costs_no_other(root):
    store = opened(root, 2 * STATE)
    add(store, [1])
    big = StatefulModel(**{**MODEL, "recurrent": ((19_999,),)})
    with pytest.warns(RuntimeWarning, match="it takes more than 38 kB; QCLI_STATES_LIMIT"):
        save(store, [3, 1], big)
    save(store, [3, 2], big)
    assert store.longest([1]) == 1


def test_rows_whose_parents_are_gone_go_first(root):
    store = opened(root, 3 * STATE)
    add(store, [1, 2], [1, 2, 3], [4])
    next((root / ("a" * 32)).glob("2-*.rows")).unlink()
    grow_older(root)
    add(store, [5], [6])
    assert [n for n in (4, 5, 6) if store.longest([n])] == [4, 5, 6]
    assert list(root.rglob("3-*")) == []


def test_another_process_may_delete_while_one_writes(root, monkeypatch):
    store, make_room = opened(root, 10**9), state_room.make_room
    add(store, [1])
    monkeypatch.setattr(
        state_room, "make_room", lambda *args: (shutil.rmtree(args[0]), args[0].mkdir(), make_room(*args))[2]
    )
    add(store, [1, 2])
    monkeypatch.undo()
    assert store.longest([1, 2]) == 0
    add(store, [1, 2])
    assert ends(store, [1, 2]) == [2]


def test_there_are_never_more_files_than_can_be_looked_through(root, monkeypatch):
    monkeypatch.setattr(state_room, "_MOST_FILES", 20)
    store = opened(root, 10**9)
    add(store, *([n] for n in range(30)))
    assert sum(1 for _ in root.rglob("*.*")) <= 20
    assert store.longest([29]) == 1
    text = list(range(40))
    add(store, *prefixes(text))  # rows of a conversation that goes on are not deleted
    assert ends(store, text)[-1] == 40


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=20), min_size=1, max_size=25),
    room=st.integers(3, 12),
    seed=st.integers(0, 5),
)
def test_what_was_saved_last_is_there_and_the_limit_holds(texts, room, seed):
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("error")
        root = Path(place) / "states"
        store = opened(root, room * 22_000)
        for i, text in enumerate(texts):
            for n in sorted({1 + (seed + i) % len(text), len(text)}):
                add(store, text[:n])
                assert comes_back(store, text[:n], StatefulModel(**MODEL))
                assert kept_bytes(root) <= room * 22_000
