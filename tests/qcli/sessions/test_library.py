"""The conversations that are kept: found by name and number, named, opened by one at a time, deleted."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from qcli.errors import OutputError, QcliError, UsageError
from qcli.host import folders
from qcli.sessions.library import Library
from qcli.sessions.log import Message

not_root = pytest.mark.skipif(
    os.name == "nt" or getattr(os, "getuid", lambda: 1)() == 0, reason="nothing is read-only for root, or on Windows"
)


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "sessions")


def begin(library, text="Hi", name="", changed=None):
    """A conversation of one turn."""
    log = library.create({"model": "storyteller"}, name)
    log.append(Message(1, None, "user", text), Message(2, 1, "assistant", "Ho"))
    if changed is not None:
        log.changed = changed
        log.set_name(name)
    log.close()
    return log


@pytest.fixture
def three(library):
    """Conversations of three days, the one in the midst without a name."""
    for day, name in enumerate(["first", "", "third"], 1):
        begin(library, f"day {day}", name, changed=86_400.0 * day)
    return library


def test_the_newest_comes_first(three):
    listed = three.list()
    assert [(s.number, s.name, s.title) for s in listed] == [
        (1, "third", "day 3"),
        (2, "", "day 2"),
        (3, "first", "day 1"),
    ]
    assert {(s.model, s.messages, s.size == s.path.stat().st_size) for s in listed} == {("storyteller", 2, True)}
    assert three.last() == listed[0]


@pytest.mark.parametrize(("wanted", "title"), [("third", "day 3"), ("FIRST", "day 1"), ("2", "day 2"), ("-", "day 2")])
def test_found(three, wanted, title):
    assert three.find(wanted).title == title
    assert three.find(three.find(wanted).id).title == title


@pytest.mark.parametrize("wanted", ["4", "0", "00", "thrd", "nothing", "", "-1", "9" * 400, "../x", "\x1b[31m", "²"])
def test_not_found(three, wanted):
    with pytest.raises(UsageError) as caught:
        three.find(wanted)
    assert len(caught.value.message) < 120
    assert ("did you mean third?" in caught.value.hint) == (wanted == "thrd")


def test_where_there_is_none(library):
    assert library.list() == []
    for ask in (library.last, lambda: library.find("1"), lambda: library.find("-")):
        with pytest.raises(UsageError, match="no saved conversation yet"):
            ask()
    begin(library)
    with pytest.raises(UsageError, match="no conversation before the last"):
        library.find("-")
    assert library.find("1") == library.last()


def test_a_conversation_appears_with_its_first_message(library):
    with library.create({}, "later") as log:
        assert library.list() == []
        log.append(Message(1, None, "user", "Hi"))
        assert [s.name for s in library.list()] == ["later"]
        if os.name != "nt":
            assert stat.S_IMODE(library.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "name", ["", " ", "7", "-", "-rf", "a/b", "a\\b", "..\\", "a\nb", "\x1b[31m", "\u202eabc", "x" * 61, "\udcff", "\0"]
)
def test_what_is_no_name(three, name):
    with pytest.raises(UsageError, match="cannot be the name"):
        three.rename(three.last(), name)
    assert three.last().name == "third"


@pytest.mark.parametrize("name", ["x", "a b", "über", "日本語", "🦊", "v1.2", "x" * 60, "third", "Third ", ".."])
def test_what_is_a_name(three, name):
    three.rename(three.last(), name)
    assert three.find(name.strip()).number == three.last().number == 1
    assert three.last().name == name.strip()


def test_names_are_given_once(three):
    for name in ("first", "FIRST", " first"):
        with pytest.raises(UsageError, match="already"):
            three.rename(three.last(), name)
        with pytest.raises(UsageError, match="already"):
            three.create({}, name)
    three.rename(three.find("first"), "cafe\u0301")
    with pytest.raises(UsageError, match="already"):
        three.create({}, "caf\xe9")
    assert three.find("caf\xe9").title == "day 1"


def test_a_copy_of_a_file_does_not_make_a_name_mean_either(three):
    path = three.find("first").path
    path.with_name("copy.jsonl").write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="2 conversations") as caught:
        three.find("first")
    assert caught.value.hint == "numbers 3 and 4"


def test_only_one_has_it_open(three):
    summary = three.last()
    with three.open(summary):
        for use in (three.open, three.remove, lambda summary: three.rename(summary, "new")):
            with pytest.raises(UsageError, match="third: another qcli has it open"):
                use(summary)
        assert len(three.read(summary).messages) == 2
    three.remove(summary)
    assert [s.name for s in three.list()] == ["", "first"]
    for use in (three.open, three.read, three.remove):
        with pytest.raises(QcliError, match="No such file"):
            use(summary)


def test_what_else_is_in_the_folder(three):
    (three.folder / "folder.jsonl").mkdir()
    (three.folder / "empty.jsonl").touch()
    (three.folder / "text.txt").write_text("Hi")
    if os.name != "nt":
        os.mkfifo(three.folder / "pipe.jsonl")
        (three.folder / "dangling.jsonl").symlink_to("nowhere")
        with pytest.warns(UserWarning, match="dangling.jsonl: cannot be read"):
            three.list()
        (three.folder / "dangling.jsonl").unlink()
    assert len(three.list()) == 3


@pytest.mark.parametrize("data", [bytes(range(256)) * 99, b'{"version":1,"created":1', b"{}\n"])
def test_a_file_of_which_nothing_can_be_read_is_told_and_left(three, data):
    path = three.folder / "noise.jsonl"
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="noise.jsonl: is damaged: no conversation in it can be read"):
        assert len(three.list()) == 3
    assert path.read_bytes() == data


def test_damage_is_told_once_and_does_not_hide_a_conversation(three):
    path = three.last().path
    path.write_bytes(path.read_bytes().replace(b'"Ho"', b'"H\xff"') + b"x" * 10_000)
    assert (three.last().title, three.last().messages) == ("day 3", 0)  # without a mark near its end, all of it is read
    for use in (three.read, lambda summary: three.open(summary).close()):
        with pytest.warns(UserWarning, match="third: 1 damaged line of it left out"):
            use(three.last())


def test_a_newer_version_is_listed_and_not_opened(three):
    path = three.last().path
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    for use in (three.read, three.open):
        with pytest.raises(QcliError, match="newer version of qcli"):
            use(three.last())
    with pytest.raises(QcliError, match="newer version of qcli"):  # its lock is gone, too
        three.open(three.last())


@not_root
def test_a_folder_and_files_that_are_read_only(three):
    summary = three.last()
    summary.path.chmod(0o400)
    three.folder.chmod(0o500)
    try:
        assert len(three.list()) == 3
        assert three.read(summary).title == "day 3"
        for use in (three.open, three.remove, begin):
            with pytest.raises(OutputError, match="Permission denied"):
                use(three if use is begin else summary)
    finally:
        three.folder.chmod(0o700)


def test_a_folder_that_cannot_be_listed(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be written"):
            begin(Library(folder))
    with pytest.raises(QcliError, match="file: cannot be read"):
        Library(tmp_path / "file").list()


def test_where_there_is_no_home(monkeypatch):
    def fail():
        raise FileNotFoundError

    monkeypatch.setattr(folders, "data", fail)
    assert Library().list() == []
    with pytest.raises(OutputError, match="no home"):
        Library().create({})


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="folders as XDG names them")
def test_the_users_own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Library().folder == tmp_path / "qcli" / "sessions"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Library().folder == Path(tmp_path / ".local" / "share" / "qcli" / "sessions")


def test_a_list_reads_the_ends_of_files_alone(three, monkeypatch):
    path = three.last().path
    path.write_bytes(b"{}\n" * 100_000 + path.read_bytes())
    read = []
    monkeypatch.setattr("qcli.sessions.reader.read", lambda file: read.append(file))
    assert three.last().title == "day 3"
    assert read == []


def test_what_was_changed_when_the_clock_was_wrong_is_not_the_newest_for_ever(library):
    begin(library, "in 2099", changed=4_070_908_800.0)
    begin(library, "now")
    assert [summary.title for summary in library.list()] == ["now", "in 2099"]
