"""A model from the hub to a cache or a folder: whole and checked, or not there."""

from __future__ import annotations

import errno
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir
from huggingface_hub.utils import WeakFileLock
from stand_in_hub import COMMIT, Fault, sha256

from qcli.errors import ModelNotFoundError, OutputError, QcliError
from qcli.hub import api, transfer
from qcli.hub.address import Address
from qcli.hub.pull import CHECKING, FETCHING, WAITING, Pull
from qcli.hub.repo_files import RepoFile, variants
from qcli.local_models.hub import cached_model

REPO, NAME = "some/Model-GGUF", "Model-Q4_K_M.gguf"


def pull(**options):
    listing = api.list_files(REPO)
    return Pull(listing, variants(listing.files)[0].files, **options).run()


def files(folder: Path) -> set[str]:
    """All but the locks."""
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def data(hub) -> bytes:
    return hub.repos[REPO][NAME]


@pytest.fixture
def split(hub, data) -> list[str]:
    """A model in three parts, in a folder of its own."""
    names = [f"Q8_0/Big-Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    hub.repos[REPO] = {name: data[: 300_000 + i] for i, name in enumerate(names)}
    return names


def test_it_is_where_the_hub_library_looks_for_it(hub, tmp_path, data):
    pulled = pull()
    assert pulled.path.read_bytes() == data
    assert (pulled.fetched, pulled.unverified) == (len(data), ())
    found = scan_cache_dir(tmp_path / "cache")
    assert (found.warnings, len(found.incomplete_files), found.size_on_disk) == ([], 0, len(data))
    (revision,) = next(iter(found.repos)).revisions
    assert (revision.commit_hash, set(revision.refs)) == (COMMIT, {"main"})
    there = hf_hub_download(REPO, NAME, cache_dir=tmp_path / "cache", local_files_only=True)
    assert Path(there) == pulled.path == cached_model(Address(REPO))


def test_what_is_here_is_not_fetched_again(hub):
    pull()
    hub.asked.clear()
    assert pull().fetched == 0
    assert len(hub.asked) == 1  # the list of files


def test_a_new_commit_of_the_same_content_is_only_linked(hub):
    pull()
    hub.lists = lambda told: told | {"sha": "d" * 40}
    pulled = pull()
    assert (pulled.fetched, pulled.path.parent.name) == (0, "d" * 40)


def test_where_links_are_not_allowed_it_is_moved(hub, tmp_path, monkeypatch, data):
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    path = pull().path
    assert not path.is_symlink()
    assert path.read_bytes() == data
    assert pull().fetched == 0
    assert scan_cache_dir(tmp_path / "cache").warnings == []


def test_what_comes_wrong_is_not_kept(hub, tmp_path):
    hub.fault = lambda asked: Fault(wrong=True) if asked.site == "store" else None
    with pytest.raises(QcliError, match="its SHA-256 is") as told:
        pull()
    assert "nothing of it is kept" in told.value.hint
    assert files(tmp_path / "cache") == set()
    hub.fault = lambda asked: None
    assert pull().fetched > 0


def test_parts_are_seen_when_all_are_there(hub, tmp_path, split):
    broken = [split[1]]
    hub.fault = lambda asked: (
        Fault(status=404) if asked.site == "store" and asked.path.split("?")[0].endswith(broken[0]) else None
    )
    with pytest.raises(QcliError):
        pull()
    assert not list((tmp_path / "cache").glob("*/snapshots/*/*/*"))
    assert cached_model(Address(REPO)) is None
    broken[0] = "nothing"
    hub.asked.clear()
    assert pull().path.name.endswith("00001-of-00003.gguf")
    assert not any(split[0] in asked.path for asked in hub.requests("store"))


def test_progress_is_that_of_all_parts(hub, split):
    told = []
    pull(told=lambda *progress: told.append(progress))
    total = sum(map(len, hub.repos[REPO].values()))
    assert {rest[-1] for stage, *rest in told if stage == FETCHING} == {total}
    assert {stage for stage, *_ in told} <= {"asking", FETCHING, CHECKING}


def test_into_a_folder(hub, tmp_path, split):
    folder = tmp_path / "mine"
    folder.mkdir()
    assert pull(folder=folder).path == folder / "Big-Q8_0-00001-of-00003.gguf"
    assert files(tmp_path) == {f"mine/{Path(name).name}" for name in split}
    assert list(folder.glob(".*")) == []
    assert pull(folder=folder).fetched == 0


@pytest.mark.parametrize("size", [7, None])
def test_no_other_file_is_written_over(hub, tmp_path, data, size):
    other = data[::-1][:size]
    (tmp_path / NAME).write_bytes(other)
    with pytest.raises(OutputError, match="is another file"):
        pull(folder=tmp_path)
    assert (tmp_path / NAME).read_bytes() == other
    assert hub.sent == 0


def test_nor_one_that_came_meanwhile(hub, tmp_path):
    def told(*_):
        (tmp_path / NAME).write_bytes(b"mine")

    with pytest.raises(OutputError, match="already exists"):
        pull(folder=tmp_path, told=told)
    assert (tmp_path / NAME).read_bytes() == b"mine"


def test_a_folder_that_is_not_there_is_not_made(hub, tmp_path):
    with pytest.raises(OutputError, match="no such folder"):
        pull(folder=tmp_path / "nowhere")


def test_a_disk_that_is_too_small(hub, tmp_path, monkeypatch, split):
    monkeypatch.setattr("shutil.disk_usage", lambda _: namedtuple("usage", "free")(900_000))
    with pytest.raises(OutputError, match="900 kB free, and 900 kB are to be fetched"):
        pull()
    assert hub.sent == 0


def test_a_disk_that_is_full_in_the_midst(hub, tmp_path, monkeypatch, data):
    room = [30]

    class Full:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, piece):
            room[0] -= 1
            if room[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(piece)

    opened = open
    monkeypatch.setattr(transfer, "open", lambda *a, **b: Full(opened(*a, **b)), raising=False)
    with pytest.raises(OutputError, match="the disk is full") as told:
        pull()
    assert "it goes on from here" in told.value.hint
    monkeypatch.setattr(transfer, "open", opened, raising=False)
    left, short = len(data) - 30 * (1 << 15), -len(data) % (1 << 15)  # the last block may be among the 30
    assert pull().fetched in (left, left + short)


def test_another_content_at_the_source_is_begun_anew_and_told(hub, tmp_path, data):
    hub.fault = lambda asked: Fault(status=404) if asked.site == "store" and asked.range[0] > 500_000 else None
    with pytest.raises(QcliError):
        pull()
    assert len(files(tmp_path / "cache")) == 3
    hub.fault = lambda asked: None
    hub.repos[REPO][NAME] = data + b"more"
    remarks: list[str] = []
    assert pull(remark=remarks.append).path.read_bytes() == data + b"more"
    assert "begun anew" in remarks[0]
    assert len(files(tmp_path / "cache" / "models--some--Model-GGUF" / "blobs")) == 1


def test_a_mirror_without_checksums(hub, data):
    hub.stores_elsewhere = False
    pulled = pull()
    assert pulled.path.read_bytes() == data
    assert pulled.unverified == (NAME,)


def test_a_mirror_whose_file_is_no_model(hub, tmp_path, data):
    hub.stores_elsewhere = False
    hub.repos[REPO][NAME] = data[:100_000]
    with pytest.raises(QcliError, match="what came is not the file that it should be"):
        pull()
    assert files(tmp_path / "cache") == set()


def test_a_mirror_whose_file_is_known(hub, data):
    hub.stores_elsewhere = False
    assert pull(sha256=sha256(data)).unverified == ()
    hub.repos[REPO][NAME] = data + b"x"
    with pytest.raises(QcliError, match="its SHA-256 is"):
        pull(sha256=sha256(data))


def test_two_at_once_fetch_it_once(hub, tmp_path, monkeypatch, data):
    """The other one may be huggingface_hub: the lock is its own."""
    monkeypatch.setattr("qcli.hub.places._NOTICE", 0.01)
    lock = tmp_path / "cache" / ".locks" / "models--some--Model-GGUF" / f"{sha256(data)}.lock"
    lock.parent.mkdir(parents=True)
    waits, results = threading.Event(), []

    def told(stage, *_):
        if stage == WAITING:
            waits.set()

    with WeakFileLock(lock):
        thread = threading.Thread(target=lambda: results.append(pull(told=told)))
        thread.start()
        assert waits.wait(5)
        blob = tmp_path / "cache" / "models--some--Model-GGUF" / "blobs" / sha256(data)
        blob.parent.mkdir(parents=True)
        blob.write_bytes(data)
    thread.join(5)
    assert results[0].fetched == hub.sent == 0


def test_the_lock_of_one_that_was_killed_holds_nobody_up(hub, tmp_path, data):
    lock = tmp_path / "cache" / ".locks" / "models--some--Model-GGUF" / f"{sha256(data)}.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("99999")
    assert pull(told=lambda stage, *_: pytest.fail(stage) if stage == WAITING else None).fetched


@pytest.mark.parametrize("name", ["../../evil.gguf", "/etc/evil.gguf", "a/../b.gguf", "con.gguf", "a\\b.gguf"])
def test_names_of_a_server_are_no_paths(hub, tmp_path, name):
    listing = api.Listing(REPO, COMMIT, (RepoFile(name, 3, None),))
    with pytest.raises(QcliError, match="is no name for a file"):
        Pull(listing, listing.files).run()
    assert not tmp_path.joinpath("cache").exists()


LISTS = {
    "too many": (lambda told: told | {"siblings": [{"rfilename": "a"}] * 100_000}, "lists 100,000 files"),
    "without an end": (lambda told: told | {"siblings": ["x" * (17 << 20)]}, "has no end"),
    "another kind": (lambda told: ["x"], "does not answer as huggingface.co would"),
    "no commit": (lambda told: told | {"sha": "../.."}, "does not answer as huggingface.co would"),
    "another size": (
        lambda told: told | {"siblings": [{"rfilename": NAME, "size": 99}]},
        "lists 99 bytes, and then tells",
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_that_lies_is_told_of_in_a_line(hub, kind):
    hub.lists, said = LISTS[kind]
    with pytest.raises(QcliError, match=said) as told:
        pull()
    assert told.value.hint
    assert "\n" not in told.value.message


ANSWERS = {
    "a login": ({"status": 401}, ModelNotFoundError, "asks for a login"),
    "a form": (
        {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}},
        ModelNotFoundError,
        "log in before you download",
    ),
    "nothing": ({"status": 404}, ModelNotFoundError, "is not there"),
    "a page": ({"status": 200, "body": b"<html>"}, QcliError, "does not answer as huggingface.co would"),
    "half": ({"status": 200, "body": b"{}", "headers": {"Content-Length": "99"}}, QcliError, "was cut"),
    "never ready": ({"status": 503}, QcliError, "answers 503"),
    "a bomb": ({"status": 200, "body": b"[" * 200_000}, QcliError, "does not answer as huggingface.co would"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_the_hub_answers_in_place_of_a_list(hub, kind):
    fault, problem, said = ANSWERS[kind]
    hub.fault = lambda asked: Fault(**fault)
    with pytest.raises(problem, match=said):
        api.list_files(REPO)


@pytest.mark.parametrize("told", ["", "0", "-3", "9" * 30])
def test_lengths_that_cannot_be(hub, told):
    hub.fault = lambda asked: Fault(headers={"X-Linked-Size": told})
    with pytest.raises(QcliError, match=r"bytes|how long"):
        api.source_of(REPO, NAME)
