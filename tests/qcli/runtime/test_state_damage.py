"""Whatever happens to files of states, to their disk and to the process: a miss and at most one remark, never a wrong state."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stateful_model import StatefulModel, comes_back, save

from qcli.runtime import state_file, state_tree
from qcli.runtime.state_store import StateStore

IDS = list(range(100, 130))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "states" / ("a" * 32)


@pytest.fixture
def store(folder):
    """With two nodes, after 10 and 30 ids."""
    store = opened(folder)
    model = StatefulModel()
    model.compute(IDS)
    for n in (10, 30):
        store.save(model.checkpoint(IDS[:n]), model.rows)
    store.wait()
    return store


def opened(folder, most_bytes: int = 10**9) -> StateStore:
    return StateStore(folder, most_bytes, StatefulModel().checkpoint([]))


def one(folder, n: int, ending: str) -> Path:
    (path,) = folder.glob(f"{n}-*.{ending}")
    return path


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE = {
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "first byte": lambda data: flipped(data, 0),
    "a count": lambda data: data.replace(b'"arrays"', b'"arrayz"'),
    "a shape": lambda data: data.replace(b"]]", b"9]"),
    "data": lambda data: flipped(data, len(data) - 20),
    "checksum": lambda data: flipped(data, len(data) - 1),
    "version": lambda data: data.replace(b'"version": 2', b'"version": 1'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize(
    ("n", "ending", "left"), [(30, "state", 10), (30, "rows", 10), (10, "state", 30), (10, "rows", 0)]
)
def test_a_damaged_file_is_a_miss_told_once(store, folder, damage, n, ending, left):
    path = one(folder, n, ending)
    path.write_bytes(damage(path.read_bytes()))
    asked = n if left < n else 30
    if left == 30:  # only the state of a node that the other does not need
        assert comes_back(store, IDS)
        return
    with pytest.warns(RuntimeWarning, match="is damaged") as told:
        assert not comes_back(store, IDS[: 30 if left == 0 else asked])
    assert len(told) == 1
    assert not path.exists()
    assert store.longest(IDS) == left
    assert left == 0 or comes_back(store, IDS[:left])
    save(store, IDS)
    assert comes_back(store, IDS)


def test_damage_is_told_once_however_much_there_is(store, folder):
    for path in folder.iterdir():
        path.write_bytes(b"nonsense")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert not comes_back(store, IDS)
    assert not comes_back(store, IDS[:10])
    assert store.longest(IDS) == 0


def test_a_file_under_the_name_of_another_is_a_miss(store, folder):
    save(store, [*IDS[:10], *range(20)])
    key = state_tree.keys(state_tree.as_array(IDS), [30])[30]
    for ending in ("rows", "state"):
        (other,) = (path for path in folder.glob(f"30-*.{ending}") if not path.name.startswith(key))
        shutil.copyfile(other, next(folder.glob(f"{key}*.{ending}")))
        with pytest.warns(RuntimeWarning, match="is damaged"):
            assert not comes_back(opened(folder), IDS)
        save(opened(folder), IDS)


def test_what_cannot_be_read_is_a_miss_and_stays(store, folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(state_file, "read", fail)
        with pytest.warns(RuntimeWarning, match="cannot be read: Input/output error"):
            assert not comes_back(store, IDS)
    assert store.longest(IDS) == 10
    assert comes_back(opened(folder), IDS)


def test_names_that_mean_nothing_are_passed_over(store, folder):
    key, empty = state_tree.keys(state_tree.as_array(IDS), [30])[30], state_tree.EMPTY
    (folder / f"{key.replace('30-', '31-')}.{key.replace('30-', '99-')}.rows").write_bytes(b"")  # its parent is longer
    (folder / f"{'9' * 500}-{'0' * 32}.{empty}.rows"[:250]).write_bytes(b"")
    (folder / f"{'9' * 9}-{'0' * 32}.{empty}.rows").write_bytes(b"")
    (folder / f"{'9' * 9}-{'0' * 32}.state").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    (folder / f"20-{'1' * 32}.state").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / f"{state_tree.keys(state_tree.as_array(IDS), [20])[20]}.{empty}.rows")
    assert store.longest(IDS) == 30
    assert comes_back(store, IDS)
    save(opened(folder, 3000), [1, 2, 3])
    assert (folder / "notes.txt").read_text() == "mine"


def no_space(monkeypatch) -> None:
    """Let the disk be full in the midst of a file."""
    pieces = state_file._pieces

    def few(arrays):
        yield from pieces(arrays[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state_file, "_pieces", few)


def test_a_full_disk_is_told_once_and_leaves_nothing_half_written(store, folder, monkeypatch):
    before = set(folder.iterdir())
    with monkeypatch.context() as patch:
        no_space(patch)
        with pytest.warns(RuntimeWarning, match="No space left on device.*QCLI_CACHE_DIR"):
            save(store, [*IDS, 1])
        save(store, [*IDS, 2])
    assert set(folder.iterdir()) == before
    assert store.longest([*IDS, 1]) == 30
    save(store, [*IDS, 1])
    assert comes_back(store, [*IDS, 1])


def test_some_of_the_disk_is_left_to_others(store, folder, monkeypatch):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=150_000_000))
    with pytest.warns(RuntimeWarning, match="has only 150 MB free"):
        save(store, [*IDS, 1])
    assert comes_back(store, IDS)


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path):
    (tmp_path / "states").write_text("a file")
    store = opened(tmp_path / "states" / ("a" * 32))
    with pytest.warns(RuntimeWarning, match="cannot be kept there"):
        save(store, [*IDS, 1])
    save(store, [*IDS, 1])
    assert store.longest([*IDS, 1]) == 0
    assert not comes_back(store, [*IDS, 1])


def test_whatever_fails_while_writing_is_a_remark_in_the_thread_that_saves(store):
    def gone(a, b):
        raise ValueError("closed")

    model = StatefulModel()
    with warnings.catch_warnings(record=True) as told:
        store.save(model.checkpoint([*IDS, 1]), gone)
        store._thread and store._thread.join()
    assert told == []
    with pytest.warns(RuntimeWarning, match="closed"):
        store.close()


def test_a_thread_that_cannot_be_started_is_a_remark(store, monkeypatch):
    def fail(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", fail)
        with pytest.warns(RuntimeWarning, match="can't start new thread"):
            save(store, [*IDS, 1])
    assert store.longest([*IDS, 1]) == 30
    save(store, [*IDS, 1])
    assert comes_back(store, [*IDS, 1])


def test_what_a_killed_process_left_goes_after_a_while(store, folder):
    for name, age in (("old.part", 3600), ("young.part", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    save(store, [*IDS, 1])
    assert [path.name for path in folder.glob("*.part")] == ["young.part"]


TEXTS = ([1] * 14, [1] * 4 + [2] * 10, [1] * 8 + [3] * 6, [4] * 14)
PREFIXES = st.builds(lambda text, n: text[:n], st.sampled_from(TEXTS), st.integers(1, 14))
FILE, WHERE = st.integers(0, 99), st.integers(0, 10_000)
ACTIONS = st.one_of(
    st.tuples(st.just("save"), PREFIXES),
    st.tuples(st.just("reopen")),
    st.tuples(st.sampled_from(["damage", "cut", "delete", "swap"]), FILE, WHERE),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=st.lists(ACTIONS, max_size=25), asked=st.lists(PREFIXES, min_size=1, max_size=6))
def test_what_comes_back_is_right_whatever_was_done_to_the_files(actions, asked):
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(place) / "states" / ("a" * 32)
        store, saved, whole = opened(folder), set(), True
        for action, *about in actions:
            if action == "save":
                save(store, about[0])
                saved.add(tuple(about[0]))
            elif action == "reopen":
                store = opened(folder)
            elif files := sorted(folder.glob("*")):
                whole = False
                harm(action, files, *about)
        for ids in asked:
            twin = max((n for n in range(1, len(ids) + 1) if tuple(ids[:n]) in saved), default=0)
            assert store.longest(ids) == twin if whole else store.longest(ids) <= twin
            while n := store.longest(ids):
                model = StatefulModel()
                found = store.read(ids[:n], model.rows, ())
                assert found is not None or not whole
                assert found is None or model.is_after(found, ids[:n])
                if found:
                    break


def harm(action: str, files: list[Path], which: int, where: int) -> None:
    path, other = files[which % len(files)], files[where % len(files)]
    data = path.read_bytes()
    if action == "damage" and data:
        path.write_bytes(flipped(data, where % len(data)))
    elif action == "cut":
        path.write_bytes(data[: where % (len(data) + 1)])
    elif action == "delete":
        path.unlink()
    elif action == "swap":
        other.write_bytes(data)
