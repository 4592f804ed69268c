"""Fetching a file by several connections: what breaks is gone on with, what is there is not fetched again."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest
from stand_in_hub import Fault, StandInHub, sha256

from qcli.errors import QcliError
from qcli.hub import api, transfer_part
from qcli.hub.transfer import Transfer
from qcli.hub.transfer_part import Part

REPO, NAME = "some/Model-GGUF", "Model-Q4_K_M.gguf"
BLOCK = 1 << 15


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def data(hub) -> bytes:
    return hub.repos[REPO][NAME]


def new_part(hub, tmp_path) -> Part:
    data = hub.repos[REPO][NAME]
    part = Part(tmp_path / "content", len(data), sha256(data))
    part.look()
    return part


def transfer(part, **options) -> Transfer:
    return Transfer(NAME, api.source_of(REPO, NAME), part, **options)


def fetch(hub, tmp_path, **options):
    """Fetch what is missing, and check that the file is right; how many bytes came."""
    part, data = new_part(hub, tmp_path), hub.repos[REPO][NAME]
    result = transfer(part, **options).run()
    assert result.sha256 == sha256(data)
    assert part.path.read_bytes() == data
    return result.fetched


def missing(hub, tmp_path) -> int:
    part = new_part(hub, tmp_path)
    return part.bytes - part.bytes_there


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files, Linux tells")
def test_a_lane_that_waits_for_a_server_has_no_file_open_at_the_end(hub, tmp_path, monkeypatch):
    """On Windows nobody could give the file its name."""
    never, waits = threading.Event(), threading.Event()
    ask = Transfer._ask

    def connect(self, client, wanted):
        if client is self._clients[1]:
            waits.set()
            never.wait(60)
        return ask(self, client, wanted)

    monkeypatch.setattr("qcli.hub.transfer_work._SLOW", 0.02)
    monkeypatch.setattr(Transfer, "_ask", connect)
    fetch(hub, tmp_path, lanes=3)
    assert waits.is_set()
    open_now = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert str(new_part(hub, tmp_path).path) not in open_now
    never.set()


def on_the_store(**fault):
    return lambda asked: Fault(**fault) if asked.site == "store" else None


@pytest.mark.parametrize("lanes", [1, 2, 6])
def test_a_file_comes_by_any_number_of_lanes(hub, tmp_path, data, lanes):
    assert fetch(hub, tmp_path, lanes=lanes) == len(data)
    assert len(hub.requests("store")) >= lanes


def test_every_byte_is_asked_for_once(hub, tmp_path, data):
    fetch(hub, tmp_path, lanes=1)
    asked = sorted(one.range for one in hub.requests("store"))
    assert [first for first, _ in asked] == [0, *(last + 1 for _, last in asked[:-1])]
    assert asked[-1][1] == len(data) - 1


def test_what_is_there_is_only_read(hub, tmp_path):
    fetch(hub, tmp_path)
    hub.sent = 0
    assert fetch(hub, tmp_path) == hub.sent == 0


def test_the_token_goes_to_the_hub_alone(hub, tmp_path):
    fetch(hub, tmp_path)
    assert {asked.token for asked in hub.requests("hub", "HEAD")} == {"Bearer hf_secret"}
    assert {asked.token for asked in hub.requests("store")} == {None}


@pytest.mark.parametrize("tenth", range(10))
def test_a_cut_is_gone_on_with(hub, tmp_path, data, tenth):
    """The first transfer ends for good after so much, the second fetches what the first did not bring."""
    left = [len(data) * tenth // 10]

    def fault(asked):
        if asked.site != "store":
            return None
        length = asked.range[1] - asked.range[0] + 1
        cut, left[0] = min(left[0], length), max(0, left[0] - length)
        return None if cut == length else Fault(cut=cut) if cut else Fault(status=503)

    hub.fault = fault
    with pytest.raises(QcliError, match="cannot be fetched"):
        fetch(hub, tmp_path, lanes=1)
    there = len(data) - missing(hub, tmp_path)
    assert len(data) * tenth // 10 - BLOCK < there <= len(data) * tenth // 10
    hub.fault, hub.sent = lambda asked: None, 0
    assert fetch(hub, tmp_path, lanes=1) == len(data) - there == hub.sent


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("served", [0, 1, 5, 9])
def test_a_killed_process_is_gone_on_with(hub, tmp_path, monkeypatch, served, power_cut):
    """So many requests are answered, then the process is killed. What was not marked may be on the disk or not."""
    part, never, seen = new_part(hub, tmp_path), threading.Event(), [-1]

    def progress(there, _):
        stands_still = seen[-2:] == [there, there] and bool(there) == bool(served)  # and was marked meanwhile
        if stands_still and len(hub.requests("store")) > served:
            monkeypatch.setattr(part, "save", lambda: None)
            raise Killed
        seen.append(there)

    def fault(asked):
        is_one_more = asked.site == "store" and hub.requests("store").index(asked) >= served
        return Fault(until=never) if is_one_more else None

    hub.fault = fault
    with pytest.raises(Killed):
        transfer(part, progress=progress, save_every=0.001).run()
    never.set()
    there = new_part(hub, tmp_path).there
    if power_cut:
        with open(part.path, "r+b") as file:
            for block in (block for block, marked in enumerate(there) if not marked):
                file.seek(block * BLOCK)
                file.write(random.Random(block).randbytes(part.length(block)))
    hub.fault = lambda asked: None
    wanted = missing(hub, tmp_path)
    assert served == 0 or wanted < part.bytes
    assert fetch(hub, tmp_path) == wanted


def test_marks_are_written_after_the_bytes(hub, tmp_path, monkeypatch):
    part = new_part(hub, tmp_path)
    flushed: list[bytes] = []
    monkeypatch.setattr("os.fdatasync", lambda _: flushed.append(bytes(part.there)))
    monkeypatch.setattr(part, "_write_map", lambda there: flushed and saved.append((there, flushed[-1])))
    saved: list[tuple[bytes, bytes]] = []
    transfer(part, save_every=0.001).run()
    assert saved
    assert all(there <= at_flush for marks, flush in saved for there, at_flush in zip(marks, flush, strict=True))


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]\n", b'{"bytes": 3}\nx', b"\xff\xff"])
def test_marks_that_cannot_be_believed_are_none(hub, tmp_path, data, damage):
    fetch(hub, tmp_path)
    new_part(hub, tmp_path).map_path.write_bytes(damage)
    assert missing(hub, tmp_path) == len(data)
    assert fetch(hub, tmp_path) == len(data)


def test_marks_have_room_on_a_full_disk(hub, tmp_path, monkeypatch):
    part = new_part(hub, tmp_path)
    part.begin()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    opened = open
    monkeypatch.setattr(
        transfer_part, "open", lambda path, mode: full() if mode == "wb" else opened(path, mode), raising=False
    )
    monkeypatch.setattr(Path, "write_bytes", full)
    part.there[:3] = b"\1\1\1"
    part.save()
    again = new_part(hub, tmp_path)
    assert (again.look(), again.there.count(1)) == (False, 3)


def test_marks_without_their_file_are_none(hub, tmp_path, data):
    fetch(hub, tmp_path)
    new_part(hub, tmp_path).path.write_bytes(b"short")
    assert fetch(hub, tmp_path) == len(data)


def test_another_content_begins_anew(hub, tmp_path, data):
    fetch(hub, tmp_path)
    hub.repos[REPO][NAME] = b"GGUF" + data[4:][::-1]
    part = Part(tmp_path / "content", len(data), "another")
    assert part.look()
    assert fetch(hub, tmp_path) == len(data)


def test_one_slow_lane_does_not_hold_up_the_others(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("qcli.hub.transfer_work._SLOW", 0.02)
    never = threading.Event()
    slow: list[object] = []

    def fault(asked):
        if asked.site == "store" and not slow:
            slow.append(asked)
            return Fault(until=never)
        return None

    hub.fault = fault
    fetch(hub, tmp_path, lanes=3)
    never.set()
    assert slow


@pytest.mark.parametrize("answers", ["all", "after a while"])
def test_a_server_without_ranges_is_read_from_the_beginning(hub, tmp_path, data, answers):
    if answers == "after a while":
        hub.fault = lambda asked: Fault(cut=5 * BLOCK) if len(hub.requests("store")) <= 2 else Fault(status=404)
        with pytest.raises(QcliError):
            transfer(new_part(hub, tmp_path), lanes=2).run()
        assert 0 < new_part(hub, tmp_path).there.count(1) <= 10
    wanted = missing(hub, tmp_path)
    hub.fault = on_the_store(no_ranges=True)
    assert fetch(hub, tmp_path) == wanted


def test_a_server_without_ranges_that_breaks_each_time_is_given_up(hub, tmp_path):
    hub.fault = on_the_store(no_ranges=True, cut=5 * BLOCK)
    with pytest.raises(QcliError, match="cannot be fetched"):
        fetch(hub, tmp_path)
    assert new_part(hub, tmp_path).there.count(1) == 5


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_busy_server_is_asked_again(hub, tmp_path, status):
    refusals = iter([Fault(status=status, headers={"Retry-After": "0"})] * 5)
    hub.fault = lambda asked: next(refusals, None) if asked.site == "store" else None
    fetch(hub, tmp_path)


def test_the_server_says_how_long_to_wait(hub, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("qcli.hub.transfer_work.Work.rest", lambda _, seconds: waits.append(seconds))
    refusals = iter([Fault(status=429, headers={"Retry-After": "17"})])
    hub.fault = lambda asked: next(refusals, None) if asked.site == "store" else None
    fetch(hub, tmp_path, lanes=1)
    assert 17.0 in waits


def test_nobody_waits_for_an_hour(hub, tmp_path):
    hub.fault = on_the_store(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(QcliError, match="come again in 60 minutes"):
        fetch(hub, tmp_path)


def test_an_address_that_holds_no_longer_is_asked_for_again(hub, tmp_path, data):
    hub.fault = lambda asked: Fault(status=403) if "old=1" in asked.path else None
    source = api.source_of(REPO, NAME)
    stale = api.Source(**vars(source) | {"location": f"{hub.store_address}/?old=1"})
    part = new_part(hub, tmp_path)
    assert Transfer(NAME, stale, part).run().sha256 == sha256(data)
    assert {asked.token for asked in hub.requests("store")} == {None}


LIES = {
    "another length": ({"no_ranges": True, "status": 206, "headers": {"Content-Range": "bytes 0-9/99"}}, "and has 99"),
    "another range": ({"headers": {"Content-Range": "bytes 7-16390/1281632"}}, "range that was asked for"),
    "no range": ({"headers": {"Content-Range": ""}}, "range that was asked for"),
    "less than it told": ({"status": 416}, "less than it told"),
    "compressed": ({"headers": {"Content-Encoding": "gzip"}}, "compressed"),
    "whole, and longer": ({"no_ranges": True, "headers": {"Content-Length": "1281633"}}, "gives 1281633"),
    "not there": ({"status": 404}, "answers 404"),
    "in circles": ({"status": 302, "headers": {"Location": "/again"}}, "without an end"),
    "no web": ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "no address to fetch from"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_told_of_in_a_line(hub: StandInHub, tmp_path, lie):
    fault, said = LIES[lie]
    hub.fault = on_the_store(**fault)
    with pytest.raises(QcliError, match=said) as told:
        fetch(hub, tmp_path, lanes=1)
    assert told.value.hint
    assert "\n" not in told.value.message


def test_a_body_without_end_is_left(hub, tmp_path, data):
    hub.fault = on_the_store(no_ranges=True, headers={"Content-Length": "", "Connection": "close"})
    there = f"{hub.store_address}/{REPO}/resolve/x/{NAME}"
    source = api.Source(there, there, len(data) - 3, "e", None, None)
    part = Part(tmp_path / "content", len(data) - 3, "e")
    with pytest.raises(QcliError, match="sends more than"):
        Transfer(NAME, source, part).run()
