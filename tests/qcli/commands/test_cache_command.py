"""qcli cache: what is kept to save time, and how to be rid of it."""

from __future__ import annotations

import json
import os

import pytest

from qcli.host import folders

KERNELS, STATES, USAGE = f"kernels/{'1' * 16}", f"states/{'2' * 32}", "usage"
OURS = {
    f"{KERNELS}/norm.rms-12.o": 1000,
    f"{KERNELS}/tmp123": 500,
    f"{STATES}/9-{'3' * 32}.state": 3000,
    f"{STATES}/9-{'3' * 32}.0-{'4' * 32}.rows": 4000,
    f"{USAGE}/model-{'5' * 16}.npz": 2000,
}
OTHERS = ["kernels/linux.txt", "states/ohio/3.state", "usage/mine.npz", "thesis.txt"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for caches, with files of every kind, and some that somebody else put there."""
    monkeypatch.setattr(folders, "_spare", lambda: tmp_path / "spare")
    monkeypatch.setenv("QCLI_CACHE_DIR", str(tmp_path / "cache"))
    for name, n_bytes in (*OURS.items(), *((name, 7) for name in OTHERS)):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(n_bytes))
    return tmp_path / "cache"


def left(place) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


def test_it_shows_sizes_and_places(place, type_line):
    code, out, _ = type_line("cache")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "2 kB" in lines["kernels"]
    assert "1 compiled function " in lines["kernels"]
    assert "7 kB" in lines["states"]
    assert "1 state of 1 model; at most 10.0 GB" in lines["states"]
    assert "experts of 1 model" in lines["usage"]
    assert all(str(place / kind) in lines[kind] for kind in ("kernels", "states", "usage"))
    assert left(place) == {*OURS, *OTHERS}


def test_as_json(place, type_line):
    _, out, _ = type_line("cache", "--json")
    assert {one["kind"]: (one["bytes"], one["count"]) for one in json.loads(out)} == {
        "kernels": (1500, 1),
        "states": (7000, 1),
        "usage": (2000, 1),
    }
    assert json.loads(type_line("cache", "show", "states", "--json")[1])[0]["limit"] == 10**10


@pytest.mark.parametrize("kind", ["kernels", "states", "usage"])
def test_one_kind_is_cleared(place, type_line, kind):
    code, out, err = type_line("cache", "clear", kind)
    assert (code, out) == (0, "")
    assert f"{kind}: " in err
    assert left(place) == {name for name in OURS if not name.startswith(kind)} | {*OTHERS}


def test_all_is_cleared_but_what_is_not_ours(place, type_line):
    code, _, err = type_line("cache", "clear")
    assert code == 0
    assert "states: 7 kB deleted" in err
    assert left(place) == {*OTHERS}
    assert not (place / STATES).exists()
    assert type_line("cache", "clear")[0] == 0


def test_the_folder_in_place_of_a_read_only_home_counts(place, type_line, tmp_path):
    spare = tmp_path / "spare"
    spare.mkdir(mode=0o700)
    (spare / KERNELS).mkdir(parents=True)
    (spare / KERNELS / "norm.rms-12.o").write_bytes(bytes(1000))
    assert json.loads(type_line("cache", "show", "kernels", "--json")[1])[0]["bytes"] == 2500
    type_line("cache", "clear", "kernels")
    assert not left(spare)


def test_links_are_not_followed(place, type_line, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "letter.txt").write_text("mine")
    try:
        os.symlink(tmp_path / "elsewhere", place / "states" / ("7" * 32))
        os.symlink(tmp_path / "elsewhere" / "letter.txt", place / STATES / "link")
    except OSError:
        pytest.skip("no links here")
    type_line("cache", "clear")
    assert (tmp_path / "elsewhere" / "letter.txt").read_text() == "mine"


def test_nothing_is_kept_without_a_folder(type_line, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_spare", lambda: tmp_path / "spare")
    monkeypatch.setenv("QCLI_CACHE_DIR", str(tmp_path / "none"))
    assert type_line("cache")[0] == 0
    assert type_line("cache", "clear")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_deleted_is_one_line(place, type_line, monkeypatch):
    def fail(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", fail)
    code, _, err = type_line("cache", "clear", "usage")
    assert code == 1
    assert "cannot be deleted: Permission denied" in err
    assert "hint: 1 file left" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["cache", "states"], 'there is no "qcli cache states"'),
        (["cache", "empty"], 'there is no "qcli cache empty"'),
        (["cache", "clear", "heat"], 'the cache has no "heat"'),
    ],
)
def test_what_cannot_be_meant(refused, line, said):
    refused(line, 2, said)


def test_a_limit_that_is_no_size(place, type_line, monkeypatch):
    monkeypatch.setenv("QCLI_STATES_LIMIT", "lots")
    code, out, err = type_line("cache")
    assert (code, out) == (2, "")
    assert "QCLI_STATES_LIMIT" in err
