"""A conversation's file: what was written is there whole or not at all, whatever happens in the writing."""

from __future__ import annotations

import errno
import os
import stat
import sys
from functools import partial
from itertools import count

import pytest

from qcli.errors import OutputError, UsageError
from qcli.sessions import reader
from qcli.sessions.log import Message, SessionLog

ASKED = Message(1, None, "user", "Hi", time=1.0)
ANSWERED = Message(
    *(2, 1, "assistant", "Hello.", "a greeting", (9906, 13), "stop", {"seed": 7}, {"new_tokens": 2}, 2.0)
)
AGAIN = (Message(3, 2, "user", "And?\n\x1b[31m\u2028", time=3.0), Message(4, 3, "assistant", "So.", time=4.0))
posix = pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions" / "1.jsonl"


@pytest.fixture
def log(path):
    with SessionLog(path, {"model": "storyteller"}) as log:
        log.append(ASKED, ANSWERED)
        yield log


def read(path):
    with open(path, "rb") as file:
        return reader.read(file)


def same(found, log):
    return vars(found.session) == {name: vars(log)[name] for name in vars(found.session)} and not found.damaged


def test_what_is_read_is_what_was_written(path, log):
    assert same(read(path), log)
    log.append(*AGAIN)
    log.set_name("greeting")
    log.set_header(model="another")
    log.set_head(2)
    found = read(path)
    assert same(found, log)
    assert found.session.branch() == [ASKED, ANSWERED]
    assert found.session.branch(4) == [ASKED, ANSWERED, *AGAIN]
    assert (found.session.name, found.session.model, found.session.next_id()) == ("greeting", "another", 5)


def test_an_empty_conversation_leaves_no_file(path):
    with SessionLog(path, {}) as log:
        log.set_name("nothing")
        log.set_head(None)
        log.append()
    assert not path.parent.exists()


def test_undo_to_the_beginning_and_another_branch(path, log):
    log.set_head(None)
    assert read(path).session.branch() == []
    log.append(Message(3, None, "user", "Ho"), Message(4, 3, "assistant", "Hey."))
    assert [message.text for message in read(path).session.branch()] == ["Ho", "Hey."]
    assert read(path).session.title == "Ho"
    assert read(path).session.branch(2) == [ASKED, ANSWERED]


def test_messages_without_a_time_get_that_of_now(path, log):
    log.append(Message(3, 2, "user", "And?"))
    assert log.messages[3].time >= log.header["created"] > 1e9
    assert same(read(path), log)


@pytest.mark.parametrize("message", [Message(2, 1, "user", ""), Message(3, 7, "user", ""), Message(3, 3, "user", "")])
def test_messages_that_cannot_follow(log, message):
    with pytest.raises(ValueError, match="cannot follow"):
        log.append(message)
    with pytest.raises(ValueError, match="no message 9"):
        log.set_head(9)


@posix
def test_only_the_user_may_read_it(path, log):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_is_cut_anywhere_holds_a_turn_or_does_not(path, log, monkeypatch):
    """As after a kill or a loss of power: each cut is read, gone on from, and read again."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a disk may take long
    one_turn = path.stat().st_size
    log.append(*AGAIN)
    log.close()
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        found = read(path)
        kept = [*found.session.messages.values()]
        assert kept in ([], [ASKED, ANSWERED], [ASKED, ANSWERED, *AGAIN])
        assert len(kept) >= 2 * (end >= one_turn)
        assert found.session.head == (kept[-1].id if kept else None)
        assert found.damaged == 0
        if end % 19 == 0:
            with SessionLog.open(path, "it") as again:
                again.append(Message(again.next_id(), again.head, "user", "More?"))
            assert same(read(path), again)
            assert len(again.messages) == len(kept) + 1


def test_a_disk_that_is_full_leaves_the_file_as_it_was(path, log, monkeypatch):
    before, messages, write = path.read_bytes(), dict(log.messages), os.write

    def fill(room, descriptor, data):
        """Take what the disk has room for."""
        free = room - (os.fstat(descriptor).st_size - len(before))
        if free <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:free])

    for room in range(0, 300, 7):
        monkeypatch.setattr(os, "write", partial(fill, room))
        with pytest.raises(OutputError, match="No space left"):
            log.append(*AGAIN, Message(5, 4, "user", "x" * 300))
        assert path.read_bytes() == before
        assert (log.messages, log.head) == (messages, 2)
    monkeypatch.undo()
    log.append(*AGAIN)
    assert same(read(path), log)


@pytest.mark.parametrize("problem", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_what_does_not_reach_the_disk_was_not_written(path, log, monkeypatch, problem):
    def fail(descriptor):
        raise problem

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError if isinstance(problem, OSError) else KeyboardInterrupt):
        log.append(*AGAIN)
    assert (path.read_bytes(), log.head) == (before, 2)
    new = SessionLog(path.with_name("2.jsonl"), {})
    with pytest.raises((OutputError, KeyboardInterrupt)):
        new.append(ASKED)
    assert not new.path.exists()


def test_what_cannot_be_cut_off_at_once_is_cut_off_later(path, log, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        broken.setattr(os, "ftruncate", fail)
        with pytest.raises(OutputError, match="Input/output"):
            log.append(*AGAIN)
    log.append(Message(3, 2, "user", "Better?"))
    assert same(read(path), log)


@pytest.mark.parametrize("begun", [True, False])
def test_ctrl_c_anywhere_in_the_writing(path, monkeypatch, begun):
    """Before each line of qcli's own code in turn: what the file holds, and what is known here, go on as one."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for moment in count():
        path.unlink(missing_ok=True)
        log = SessionLog(path, {})
        if begun:
            log.append(ASKED, ANSWERED)
        first = log.next_id()
        turn = Message(first, log.head, "user", "And?"), Message(first + 1, first, "assistant", "So.")
        interrupted = ctrl_c(moment, lambda log=log, turn=turn: log.append(*turn))
        kept = len(read(path).session.messages) if path.exists() else 0
        assert kept in (first - 1, first + 1)
        assert log.next_id() in (first, kept + 1)
        log.append(Message(log.next_id(), log.head, "user", "More?"))
        assert same(read(path), log)
        log.close()
        if not interrupted:
            break
    assert moment > 30


def ctrl_c(moment, call):
    """Interrupt a call before this line of qcli's code, counted from 0; False if it ended before."""
    lines = count()

    def trace(frame, event, _):
        if event == "line" and next(lines) == moment:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace if "qcli" in frame.f_code.co_filename else None

    usual = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(usual)
    return False


def test_a_disk_that_cannot_say_so_is_written_all_the_same(path, log, monkeypatch):
    def cannot(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", cannot)
    log.append(*AGAIN)
    assert same(read(path), log)


def test_two_cannot_have_it_open(path, log):
    with pytest.raises(UsageError, match="greeting: another qcli has it open"):
        SessionLog.open(path, "greeting")
    assert same(read(path), log)  # to look at is another thing
    log.close()
    with SessionLog.open(path, "greeting") as again:
        again.append(*AGAIN)


@posix
def test_a_file_that_is_removed_or_written_meanwhile(path, log):
    with open(path, "ab") as file:
        file.write(b"{}\n")
    with pytest.raises(OutputError, match="another program wrote to it"):
        log.append(*AGAIN)
    assert path.read_bytes().endswith(b"}\n{}\n")
    path.unlink()
    with pytest.raises(OutputError, match="was removed"):
        log.append(*AGAIN)


@posix
@pytest.mark.parametrize("made", ["folder", "fifo", "nothing"])
def test_what_is_no_file(tmp_path, made):
    path = tmp_path / "it"
    if made == "folder":
        path.mkdir()
    if made == "fifo":
        os.mkfifo(path)
    with pytest.raises(OutputError, match="it:"):
        SessionLog.open(path, "it")


def test_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    log = SessionLog(tmp_path / "file" / "sessions" / "1.jsonl", {})
    with pytest.raises(OutputError, match="cannot be written"):
        log.append(ASKED)


def test_there_is_an_end_to_what_is_kept(path, log, monkeypatch):
    monkeypatch.setattr(reader, "MAX_FILE", path.stat().st_size + 200)
    with pytest.raises(OutputError, match="no room"):
        log.append(Message(3, 2, "user", "x" * 100), Message(4, 3, "assistant", "y" * 100))
    monkeypatch.setattr(reader, "MAX_LINE", 100)
    with pytest.raises(OutputError, match="no room"):
        log.append(Message(3, 2, "user", "x" * 100))
    assert log.head == 2
