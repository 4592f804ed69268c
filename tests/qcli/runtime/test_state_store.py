"""States on disk: what was saved comes back to the bit, shared by all texts that begin alike."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from stateful_model import StatefulModel, comes_back, save

from qcli.errors import UsageError
from qcli.gguf.file import GGUFFile
from qcli.layers.state import State
from qcli.runtime import state_file
from qcli.runtime.state_store import StateStore, store_for

IDS = list(range(100, 140))
posix = pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "states" / ("a" * 32)


def opened(folder, model: StatefulModel | None = None, most_bytes: int = 10**9) -> StateStore:
    return StateStore(folder, most_bytes, (model or StatefulModel()).checkpoint([]))


@pytest.fixture
def store(folder):
    return opened(folder)


def sizes(folder, ending: str) -> list[int]:
    return sorted(path.stat().st_size for path in folder.glob(f"*.{ending}"))


@pytest.mark.parametrize(
    "kind",
    [{}, {"recurrent": ()}, {"caches": ()}, {"caches": (), "recurrent": ()}, {"vocab": None}],
    ids=["hybrid", "attention", "recurrent", "nothing", "no logits"],
)
def test_what_was_saved_comes_back_in_another_process(folder, kind):
    save(opened(folder, StatefulModel(**kind)), IDS, StatefulModel(**kind))
    again = opened(folder, StatefulModel(**kind))
    assert again.longest(IDS) == len(IDS)
    assert comes_back(again, IDS, StatefulModel(**kind))


def test_a_checkpoint_may_have_no_logits(store):
    model = StatefulModel(vocab=None)
    save(store, IDS, model)
    assert store.read(IDS, model.rows, ()).logits is None


def test_the_longest_is_a_prefix(store):
    for n in (10, 20, 30):
        save(store, IDS[:n])
    assert [store.longest(IDS[:n]) for n in (0, 9, 10, 29, 30, 40)] == [0, 0, 10, 20, 30, 30]
    assert store.longest([*IDS[:25], 7, 7, 7, 7, 7]) == 20
    assert store.longest([7, *IDS]) == 0
    assert store.read(IDS[:15], StatefulModel().rows, ()) is None  # a prefix, but no state was saved there


def test_texts_that_begin_alike_share_rows(store, folder):
    save(store, IDS[:20])
    one = sizes(folder, "rows")
    for last in (1, 2, 3):
        save(store, [*IDS[:20], last])
        assert comes_back(store, [*IDS[:20], last])
    a_row = sum(cache[:, 0].nbytes for cache in StatefulModel().caches)
    assert sizes(folder, "rows")[-1:] == one
    assert all(size < 400 + a_row for size in sizes(folder, "rows")[:-1])


def test_saving_again_writes_nothing(store, folder):
    save(store, IDS)
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    save(opened(folder), IDS)
    assert {path: path.stat().st_ino for path in folder.iterdir()} == before


HISTORY = list(range(100, 100 + len(IDS)))


@pytest.mark.parametrize(("there", "first"), [(0, 0), (5, 0), (10, 10), (15, 10), (29, 10), (30, 30), (40, 30)])
def test_rows_of_whole_nodes_that_are_there_are_left_alone(store, there, first):
    true = StatefulModel()
    for end in (10, 30):
        store.save(replace(true.compute(IDS[:end]), history=tuple(HISTORY[:end])), true.rows)
    store.wait()
    model = StatefulModel()
    found = store.read(IDS[:30], model.rows, HISTORY[:there])
    assert [found.history[i] for i in (9, 29)] == [HISTORY[9], HISTORY[29]]
    assert len(set(found.history)) == 30
    for mine, wanted in zip(model.caches, true.caches, strict=True):
        assert np.array_equal(mine[:, first:30], wanted[:, first:30])
        assert (mine[:, :first] == 77).all()
        assert (mine[:, 30:] == 77).all()


def test_the_same_text_computed_in_two_ways_is_kept_twice(store, folder):
    one, two = StatefulModel(), StatefulModel()
    one.compute(IDS[:20])
    two.compute(IDS[:20])
    for cache in two.caches:
        cache[:, :20] += 1  # the last bits
    for model, history in ((one, HISTORY), (two, HISTORY[::-1])):
        for end in (10, 20):
            store.save(replace(model.checkpoint(IDS[:end]), history=tuple(history[:end])), model.rows)
    store.wait()
    found = store.read(IDS[:20], (model := StatefulModel()).rows, ())
    true = one if found.history[19] == HISTORY[19] else two
    assert all(np.array_equal(a[:, :20], b[:, :20]) for a, b in zip(model.caches, true.caches, strict=True))
    assert len(list(folder.glob("*.rows"))) == 4


def test_a_state_on_its_way_to_the_disk_counts(store, monkeypatch):
    go, write = threading.Event(), state_file.write
    monkeypatch.setattr(state_file, "write", lambda *args: (go.wait(), write(*args)))
    model = StatefulModel()
    store.save(model.compute(IDS), model.rows)
    assert store.longest([*IDS, 1]) == len(IDS)
    go.set()
    assert comes_back(store, IDS)


def test_many_may_wait_and_are_written_in_their_order(store):
    model = StatefulModel()
    model.compute(IDS)
    for n in range(1, 20):
        store.save(model.checkpoint(IDS[:n]), model.rows)
    store.close()
    assert all(comes_back(store, IDS[:n]) for n in range(1, 20))


def test_of_large_states_only_the_first_and_the_newest_wait(store, monkeypatch):
    monkeypatch.setattr("qcli.runtime.state_store._MOST_WAITING", 1)
    go, write = threading.Event(), state_file.write
    monkeypatch.setattr(state_file, "write", lambda *args: (go.wait(), write(*args)))
    model = StatefulModel()
    model.compute(IDS)
    for n in (5, 10, 15, 20):
        store.save(model.checkpoint(IDS[:n]), model.rows)
    go.set()
    store.wait()
    assert [n for n in range(40) if store.longest(IDS[:n]) == n] == [0, 5, 20]


def test_after_close_nothing_is_written(store, folder):
    store.close()
    save(store, IDS)
    store.close()
    assert not folder.exists()


def test_nothing_is_kept_of_no_ids(store, folder):
    save(store, [])
    assert not folder.exists()
    assert store.read([], StatefulModel().rows, ()) is None


@posix
def test_only_the_user_can_read_them(store, folder):
    save(store, IDS)
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_what_others_save_or_delete_is_seen(store, folder):
    other = opened(folder)
    save(other, IDS)
    assert comes_back(store, IDS)
    shutil.rmtree(folder)
    assert store.longest(IDS) == 0
    assert not comes_back(store, IDS)
    save(store, [*IDS, 1])
    assert comes_back(other, [*IDS, 1])


def test_two_may_write_one_node_at_once(folder):
    stores = [opened(folder) for _ in range(4)]
    models = [StatefulModel() for _ in stores]
    for store, model in zip(stores, models, strict=True):
        store.save(model.compute(IDS), model.rows)
    for store in stores:
        store.close()
    assert all(comes_back(store, IDS) for store in stores)
    assert len(list(folder.iterdir())) == 2


def test_a_model_of_other_shapes_never_gets_them(store, folder):
    save(store, IDS)
    wide = StatefulModel(recurrent=((2, 4), (5,)))
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert opened(folder, wide).read(IDS, wide.rows, ()) is None
    save(store, IDS)
    q8 = StatefulModel(caches=((2, 6, np.uint8), (1, 5, np.uint8), (3, 1, np.float32)))  # the same number of bytes
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert opened(folder, q8).read(IDS, q8.rows, ()) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of POSIX")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent(store, monkeypatch):
    go, write = threading.Event(), state_file.write
    monkeypatch.setattr(state_file, "write", lambda *args: (go.wait(), write(*args)))
    model = StatefulModel()
    store.save(model.compute(IDS), model.rows)
    if not (child := os.fork()):
        store.wait()
        os._exit(0)
    go.set()
    assert os.waitpid(child, 0)[1] == 0


def test_the_store_of_a_model(tmp_path, monkeypatch, storyteller):
    monkeypatch.setenv("QCLI_CACHE_DIR", str(tmp_path))
    plain, half = State(64), State(64, "q8_0")
    with GGUFFile.open(storyteller) as file:
        store = store_for(file, plain, 16)
        assert store.folder.parent == tmp_path / "states"
        assert store.folder != store_for(file, half, 16).folder
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setenv("QCLI_STATES_LIMIT", "0")
        assert store_for(file, plain, 16) is None
        monkeypatch.setenv("QCLI_STATES_LIMIT", "much")
        with pytest.raises(UsageError, match="QCLI_STATES_LIMIT"):
            store_for(file, plain, 16)
        monkeypatch.delenv("QCLI_STATES_LIMIT")
        monkeypatch.setattr("qcli.host.folders.some_cache", lambda: (_ for _ in ()).throw(PermissionError()))
        assert store_for(file, plain, 16) is None
