"""Reading conversations: whatever a file holds, it is left out or it is a message that can be gone on from."""

from __future__ import annotations

import io
import json
import os
import random

import pytest

from qcli.errors import QcliError
from qcli.sessions import reader
from qcli.sessions.log import Message, SessionLog

HEADER = b'{"version": 1, "created": 5.0, "model": "storyteller"}\n'
TURN = b'{"id": 1, "role": "user", "text": "Hi"}\n{"id": 2, "parent": 1, "role": "assistant", "text": "Ho"}\n'
MARK = b'{"head": 2, "name": "it", "title": "Hi", "model": "m", "messages": 2, "changed": 6}\n'
TURN_2 = TURN.replace(b'"id": 1,', b'"id": 3, "parent": 2,').replace(b'"id": 2, "parent": 1', b'"id": 4, "parent": 3')
MARK_4 = MARK.replace(b'"head": 2', b'"head": 4')


def read(data):
    return reader.read(io.BytesIO(data))


def parents(found):
    return {id: message.parent for id, message in found.session.messages.items()}


def message(**fields):
    return json.dumps({"id": 5, "parent": 4, "role": "user", "text": "", **fields}).encode() + b"\n"


def test_a_file_by_hand():
    session = read(HEADER + TURN + MARK).session
    assert session.header == {"created": 5.0, "model": "storyteller"}
    assert session.branch() == [Message(1, None, "user", "Hi"), Message(2, 1, "assistant", "Ho")]
    assert (session.name, session.head, session.changed) == ("it", 2, 6.0)


@pytest.mark.parametrize("rest", [b"", MARK[:9], b"\0" * 99, b'{"id": 3, "role": "user", "text": "And?"}\n', b"\n\n"])
def test_what_follows_the_last_mark_does_not_count(rest):
    found = read(HEADER + TURN + MARK + rest)
    assert (len(found.session.messages), found.end) == (2, len(HEADER + TURN + MARK))


def test_but_an_answer_does():
    found = read(HEADER + TURN + MARK + TURN_2 + b'{"head": 4, "na')
    assert (found.session.head, found.end, found.damaged) == (4, len(HEADER + TURN + MARK + TURN_2), 0)


WRONG: list = [None, True, 7.5, [], {}]
DAMAGED = [
    *(b"", b"{", b"[]", b"3", b"null", b'"text"', b"\xff\xfe", b"{}\0", b"[" * 100_000, b"1" * 10_000, b'{"a": NaN}'),
    *(b'{"head": "x"}', b'{"head": 1e400}', b'{"head": true}', b'{"head": -1}', b'{"version": 1}', b'{"version": 2}'),
    *(message(**{name: wrong}) for name in ("id", "text", "role", "thoughts") for wrong in WRONG),
    *(
        message(id=0),
        message(id=2),
        message(id=1 << 60),
        message(role="waiter"),
        message(parent="1"),
        message(ids=[-1]),
    ),
    *(message(ids=[1.0]), message(ids=[True]), message(ids=7), message(ids=[1 << 31]), message(finish_reason=1)),
    *(message(sampling=[]), message(figures="x"), b'{"id": 5}', b'{"id": 5, "role": "user"}'),
]


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_is_left_out_and_counted(line):
    found = read(HEADER + TURN + MARK + line.rstrip(b"\n") + b"\n" + TURN_2 + MARK_4)
    assert found.damaged == 1
    assert parents(found) == {1: None, 2: 1, 3: 2, 4: 3}
    assert found.session.head == 4


@pytest.mark.parametrize("line", [b"{}", b'{"later": 1}', b'{"header": 3}', b'{"header": {}}'])
def test_what_is_not_known_does_no_harm(line):
    assert read(HEADER + TURN + line + b"\n" + MARK).damaged == 0


@pytest.mark.parametrize(
    ("lost", "left", "head"),
    [
        (1, {2: None, 3: 2, 4: 3}, 4),  # an answer to nothing
        (2, {1: None, 3: None, 4: 3}, 4),  # no second message after another of the user
        (3, {1: None, 2: 1, 4: 1}, 4),  # an answer to what was asked before
        (4, {1: None, 2: 1, 3: 2}, 2),  # what has no answer does not go on
    ],
)
def test_without_one_message_roles_take_turns_as_before(lost, left, head):
    lines = (HEADER + TURN + MARK + TURN_2 + MARK_4).splitlines(keepends=True)
    found = read(b"".join(line for line in lines if b'"id": %d,' % lost not in line))
    assert (parents(found), found.session.head) == (left, head)


def test_a_header_that_is_lost_loses_nothing_else():
    for header in (b"", b"\0\n", b'{"version": "x"}\n', b'{"version": 1, "model": 7, "path": [], "created": "y"}\n'):
        session = read(header + TURN + MARK).session
        assert len(session.messages) == 2
        assert session.model == ""


def test_a_later_version_is_said():
    with pytest.raises(QcliError, match="newer version of qcli"):
        read(HEADER.replace(b"1", b"2", 1) + TURN + MARK)


def test_names_and_times_of_strangers():
    for name in ("\x1b[31m", "a/b", "7", "-rf", "", " a", "x" * 61, "\u202egpj", 7, None):
        assert read(HEADER + TURN + json.dumps({"head": 2, "name": name}).encode() + b"\n").session.name == ""
    for time in (-1, "1", True, 10**400, 1e300, None):
        assert read(HEADER + TURN + json.dumps({"head": 2, "changed": time}).encode() + b"\n").session.changed == 0


def test_what_is_deep_is_dropped():
    deep = message(sampling={"seed": 7, "stop": ["a"], "x": {"y": []}, "z": [[1]]})
    found = read(HEADER.replace(b'"model"', b'"x": {"y": 1}, "model"') + TURN + MARK + TURN_2 + deep + MARK_4)
    assert found.session.messages[5].sampling == {"seed": 7, "stop": ["a"]}
    assert "x" not in found.session.header


def test_there_are_bounds(monkeypatch):
    monkeypatch.setattr(reader, "MAX_LINE", 200)
    found = read(HEADER + TURN + MARK + message(text="x" * 999) + TURN_2 + MARK_4)
    assert (found.damaged, len(found.session.messages)) == (1, 4)
    monkeypatch.setattr(reader, "MAX_MESSAGES", 2)
    assert len(read(HEADER + TURN + MARK + TURN_2 + MARK_4).session.messages) == 2
    monkeypatch.setattr(reader, "MAX_FILE", 100)
    with pytest.raises(QcliError, match="larger than"):
        read(HEADER + TURN + MARK)


def test_the_last_mark_is_read_from_the_end():
    last = reader.last_mark
    for before in (b"", HEADER, HEADER + message(text='{"head": 9}\n' * 5000)):
        for torn in (b"", TURN, MARK[:30], b'{"head": "x"}\n'):
            data = before + MARK + torn
            mark = last(io.BytesIO(data), len(data))
            assert (mark.name, mark.title, mark.model, mark.messages, mark.changed) == ("it", "Hi", "m", 2, 6.0)
    data = HEADER + MARK + b"x" * 10_000
    assert last(io.BytesIO(data), len(data)) is None
    assert last(io.BytesIO(), 0) is None


def test_random_damage_leaves_a_session_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a disk may take long
    chance = random.Random(13)
    whole = HEADER + TURN + MARK + TURN_2 + MARK_4 + b'{"header": {"model": "b"}}\n{"head": 2}\n'
    path = tmp_path / "1.jsonl"
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 9)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(3)] = chance.choice([b"", b"\n", b"\0", b'"', b"}", b"{", b"2", b"\xff"])
        path.write_bytes(data)
        with SessionLog.open(path, "it") as log:
            assert all(message.parent is None or message.parent < id for id, message in log.messages.items())
            log.append(Message(log.next_id(), log.head, "user", "And?"))
        found = read(path.read_bytes())
        assert (found.session.messages, found.session.head) == (log.messages, log.head)
