"""A process that adds turns to a conversation is killed at random moments, a thousand times over.

No file becomes unreadable, no turn that was acknowledged is lost, none is there by half. Every other process writes some
bytes at a time, so that many kills fall into the midst of a write. Not part of the suite, as it takes a minute or two:
python -m pytest tests/fuzz/fuzz_session_kills.py
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from qcli.errors import OutputError, UsageError
from qcli.sessions import reader
from qcli.sessions.library import Library
from qcli.sessions.log import Message, SessionLog

KILLS = int(os.environ.get("QCLI_FUZZ_KILLS", "1000"))
MANY = 40  # turns, after which a new conversation begins
WRITE = os.write

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def turn(log: SessionLog, number: int) -> tuple[Message, Message]:
    """The turn of a number: both of its messages tell it."""
    id, chance = log.next_id(), random.Random(number)
    text = f"{number} " + "é\n\x1b🦊"[chance.randrange(5) :] * chance.randrange(2000)
    ids = tuple(chance.randrange(150_000) for _ in range(chance.randrange(300)))
    asked = Message(id, log.head, "user", f"question {text}")
    return asked, Message(id + 1, id, "assistant", f"answer {text}", ids=ids, sampling={"seed": number})


def write_slowly(file: int, data: Any) -> int:
    time.sleep(0.0005)
    return WRITE(file, memoryview(data)[:997])


def add_turns(library: Library, acknowledged: int, slowly: bool) -> NoReturn:
    """In a process of its own: go on with the last conversation, and tell of each turn that is on the disk."""
    if slowly:
        os.write = write_slowly
    listed = library.list()
    log = library.open(listed[0]) if listed and listed[0].messages < 2 * MANY else library.create({"model": "m"})
    number = 1 + max((message.sampling.get("seed", 0) for message in log.messages.values()), default=0)
    while True:
        log.append(*turn(log, number))
        WRITE(acknowledged, f"{log.path} {number}\n".encode())
        number += 1
        if number % 5 == 0:
            log.set_name(f"after {number} {log.path.stem}")
        if number % 11 == 0:
            log.set_head(log.branch()[-3].id)


def killed_after(seconds: float, library: Library, slowly: bool) -> list[tuple[Path, int]]:
    """The turns that a process acknowledged until it was killed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            add_turns(library, write, slowly)
        finally:
            os._exit(1)
    os.close(write)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it ended by itself"
    with open(read, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    return [(Path(path), int(number)) for path, number in (line.rsplit(" ", 1) for line in lines)]


def check(path: Path, acknowledged: int) -> int:
    """How many turns are there: all acknowledged ones, and at most one more, as they were written."""
    with open(path, "rb") as file:
        found = reader.read(file)
    assert found.damaged == 0
    messages = [*found.session.messages.values()]
    assert [message.role for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    assert acknowledged <= len(messages) // 2 <= acknowledged + 1
    for number, (asked, answered) in enumerate(zip(messages[::2], messages[1::2], strict=True), 1):
        like = turn(SessionLog(path, {}), number)
        assert (asked.text, answered.text, answered.ids) == (like[0].text, like[1].text, like[1].ids)
        assert answered.parent == asked.id
    assert (found.session.head or 0) in (0, *found.session.messages)
    return len(messages) // 2


def test_a_process_that_is_killed_loses_at_most_the_turn_under_way(tmp_path: Path) -> None:
    library, chance = Library(tmp_path), random.Random(13)
    known: dict[Path, int] = {}  # turns of each conversation
    sizes: dict[Path, int] = {}
    torn = 0
    for kill in range(KILLS):
        for path, number in killed_after(chance.uniform(0.001, 0.05), library, slowly=kill % 2 == 0):
            assert number == known.get(path, 0) + 1
            known[path] = number
        for path in tmp_path.iterdir():
            if path not in sizes or path.stat().st_size != sizes[path]:
                sizes[path] = path.stat().st_size
                known[path] = check(path, known.get(path, 0))
                torn += not path.read_bytes().endswith(b"}\n")
        assert {summary.path for summary in library.list()} == {path for path, turns in known.items() if turns}
    print(f"{KILLS} kills, {len(known)} conversations, {sum(known.values())} turns; {torn} times the end was torn")


def test_of_two_processes_at_once_one_is_refused(tmp_path: Path) -> None:
    library = Library(tmp_path)
    with library.create({}) as log:
        log.append(*turn(log, 1))
    for _ in range(KILLS // 20):
        children = []
        for _ in range(2):
            if not (child := os.fork()):
                code = 9
                try:
                    with library.open(library.last()) as log:
                        log.append(*turn(log, 1 + len(log.messages) // 2))
                    code = 0
                except UsageError:
                    code = 2
                finally:
                    os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert set(codes) <= {0, 2}
        assert 0 in codes
    session = library.read(library.last())
    assert len(session.branch()) == len(session.messages)


@pytest.mark.parametrize("room", [0, 1, 100, 5000])
def test_a_quota_that_is_used_up(tmp_path: Path, room: int) -> None:
    """As a full disk, by the system itself: a limit to the size of a file."""
    resource = pytest.importorskip("resource")
    library = Library(tmp_path)
    with library.create({}) as log:
        log.append(*turn(log, 1))
        before = log.path.read_bytes()
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, usual[1]))
        try:
            with pytest.raises(OutputError, match=os.strerror(errno.EFBIG)):
                log.append(Message(3, 2, "user", "x" * 6000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        assert log.path.read_bytes() == before
        log.append(*turn(log, 2))
    assert len(library.read(library.last()).messages) == 4
