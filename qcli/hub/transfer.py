"""Fetching a file: several connections write its blocks into one file, and its checksum is taken while they come.

Each lane asks for a span of blocks at a time. A lane that fails waits, and tries again; one that fails again and again ends,
and the others have its work: only the last tells why. A server that knows no ranges is read by one lane from the beginning.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from qcli.errors import QcliError
from qcli.hub import api
from qcli.hub.connection import TRIES, Answer, Client, RefusedError, TransientError, cannot, pause
from qcli.hub.sites import shown
from qcli.hub.transfer_checksum import Checksum
from qcli.hub.transfer_part import BLOCK, Part
from qcli.hub.transfer_work import Span, Work
from qcli.interrupt import cleans_up

LANES: Final = 6
SAVE_EVERY: Final = 2.0  # seconds: what a kill costs
_SAVE_BYTES: Final = 128 << 20  # where that is less: the disk is at work from early on, as the last flush is waited for
_STALLED = 300.0  # seconds without a byte on any lane, which may be tricked one by one
_TOLD_EVERY = 0.2  # seconds
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:(\d{1,18})|\*)")
_GOES_ON = ": it goes on from there"
_AGAIN = "type the same again: it is begun anew"


@dataclass(frozen=True)
class Result:
    """What was fetched."""

    sha256: str
    fetched: int  # bytes that came, without what was there before


class Transfer:
    """One file's way from its source to a part file."""

    def __init__(
        self,
        name: str,
        source: api.Source,
        part: Part,
        *,
        progress: Callable[[int, int], None] = lambda *_: None,
        lanes: int = LANES,
        save_every: float | None = None,
    ) -> None:
        """progress: told how many bytes are there, and how many are in the checksum, now and then."""
        self._name, self._source, self._part = name, source, part
        self._progress, self._save_every = progress, SAVE_EVERY if save_every is None else save_every
        self._work = Work(part.there, lanes)
        self._location = source.location
        self._clients = [api.client() for _ in range(self._work.lanes)]
        self._problem: BaseException | None = None
        self._last_trouble = TransientError("nothing came")
        self._checksum = Checksum(part)
        self._writing = threading.Lock()  # the system writes to a file for one at a time, and others would spin
        self._buffers = [self._checksum.buffer() for _ in self._clients]
        self.received = 0  # bytes, among them those that were lost

    def run(self) -> Result:
        """Fetch what is missing. Raises QcliError, OSError of the disk; what came by then is kept, also at Ctrl-C."""
        before = self._part.bytes_there
        with cleans_up():
            self._part.begin()
            self._tell()
            with open(self._part.path, "r+b", buffering=0) as file:
                self._run(file)
        if self._problem:
            raise self._problem
        return Result(self._checksum.hexdigest(), self._part.bytes - before)

    def _run(self, file: BinaryIO) -> None:
        """Have threads fetch and hash; file: for all lanes. When this returns it is closed, whatever a lane waits for:
        on Windows a file that is open can be given no name."""
        lanes = [threading.Thread(target=self._lane, args=(i, file), daemon=True) for i in range(len(self._clients))]
        hasher = threading.Thread(target=self._take_checksum, daemon=True)
        try:
            for thread in (*lanes, hasher):
                thread.start()
            self._watch()
            self._leave(lanes)
            while hasher.is_alive():
                hasher.join(_TOLD_EVERY)
                self._tell()
        finally:
            self._close()
            self._leave(lanes)
            with self._writing:
                file.close()

    def _watch(self) -> None:
        """Until all is there, or nothing more will come: tell how far it is, and mark what is there."""
        saved = heard = time.monotonic()
        received = 0
        while not (self._work.finished or self._work.closed):
            self._work.rest(min(_TOLD_EVERY, self._save_every))
            now = time.monotonic()
            self._tell()
            self._checksum.adapt()
            if now - saved >= self._save_every or self._part.unsaved >= _SAVE_BYTES:
                self._part.save()
                saved = time.monotonic()
            if self.received > received:
                received, heard = self.received, now
            if now - heard > _STALLED:
                raise cannot(self._name, TransientError("nothing comes"), _GOES_ON)
        if not (self._work.finished or self._problem):
            raise cannot(self._name, self._last_trouble, _GOES_ON)

    def _tell(self) -> None:
        self._progress(self._part.bytes_there, self._checksum.bytes)

    def _close(self) -> None:
        self._work.close()
        self._checksum.close()

    def _leave(self, lanes: list[threading.Thread]) -> None:
        """End the lanes, and mark what they brought."""
        self._checksum.hold_none()
        for client in self._clients:
            client.interrupt()
        for lane in lanes:
            if lane.ident:
                lane.join(1.0)  # one that is still connecting writes nothing any more
        self._part.save()

    def _lane(self, lane: int, file: BinaryIO) -> None:
        client, failures = self._clients[lane], 0
        try:
            while failures < TRIES and (span := self._work.take(lane)):
                try:
                    self._fetch(lane, client, span, file)
                    failures = 0
                except TransientError as trouble:
                    failures = 1 if span.written else failures + 1
                    self._rest(span, trouble, failures)
                finally:
                    self._work.give_back(span)
        except RefusedError as problem:
            self._fail(api.refused(self._name, problem))
        except BaseException as problem:
            self._fail(problem)
        finally:
            client.close()
            self._work.leave()

    def _fail(self, problem: BaseException) -> None:
        if not (self._work.finished or self._work.closed):
            self._problem = problem
            self._close()

    def _rest(self, span: Span, trouble: TransientError, failures: int) -> None:
        """Let others have the span, and wait before the next attempt."""
        self._work.give_back(span)
        if not self._work.closed:
            self._last_trouble = trouble
            self._work.rest(pause(trouble, failures - 1) if failures < TRIES else 0)

    def _fetch(self, lane: int, client: Client, span: Span, file: BinaryIO) -> None:
        """Fetch a span's blocks, in order. Raises TransientError, RefusedError, QcliError, OSError."""
        if self._work.is_alone(lane):
            answer = self._ask(client, {})
        else:
            answer = self._ask(client, {"Range": f"bytes={span.next * BLOCK}-{self._end_of(span) - 1}"})
        if answer.status == 200 and not self._is_all_of_it(lane, answer, span):
            answer.finish()
            return
        if answer.status != 200:
            self._check_range(answer, span.next * BLOCK)
        while span.next < span.end and not self._work.closed:
            if self._checksum.hold(span.next):
                span.since = time.monotonic()
            data = self._block(answer, self._buffers[lane][: self._part.length(span.next)])
            is_last = answer.status == 200 and span.next + 1 == len(self._part.there)
            if is_last and answer.readinto(memoryview(bytearray(1))):
                raise self._changed(f"sends more than the {self._part.bytes:,} bytes that it told")
            block = span.next
            if self._work.may_write(span):
                with self._writing:
                    file.seek(block * BLOCK)
                    while data:
                        data = data[file.write(data) :]
                self._work.done(span)
                self._buffers[lane] = self._checksum.came(block, self._buffers[lane])
        answer.finish()

    def _ask(self, client: Client, wanted: dict[str, str]) -> Answer:
        """The answer of the server that has the file; its address is asked for again if it holds no longer."""
        there = self._location
        try:
            answer = client.ask(there or self._source.url, headers=wanted)
        except RefusedError as problem:
            if problem.status == 416:
                raise self._changed("has less than it told") from None
            if client.is_home(problem.url):
                raise
            self._location = ""
            raise TransientError(f"the server that has it answers {problem.status}") from None
        if not client.is_home(answer.url):
            self._location = answer.url
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise QcliError(f"{shown(answer.url)}: the server sends it compressed", "try again later")
        etag = api.etag_of(answer.headers)
        if not (self._source.sha256 or self._source.location) and etag and etag != self._source.etag:
            raise self._changed("has another file meanwhile")
        return answer

    def _is_all_of_it(self, lane: int, answer: Answer, span: Span) -> bool:
        """Whether this lane reads the whole file, as the server gives no ranges, and another lane does not yet."""
        length = answer.headers.get("Content-Length", str(self._part.bytes))
        if length != str(self._part.bytes):
            raise self._changed(f"told {self._part.bytes:,} bytes, and gives {length[:20]}")
        if not self._work.alone(lane):
            return False
        self._work.give_back(span)
        span.next, span.end = 0, len(self._part.there)
        return True

    def _check_range(self, answer: Answer, first: int) -> None:
        given = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status != 206 or not given or int(given[1]) != first:
            said = f"{shown(answer.url)}: the server does not give the range that was asked for"
            raise QcliError(said, "try again later")
        if given[3] and int(given[3]) != self._part.bytes:
            raise self._changed(f"told {self._part.bytes:,} bytes, and has {int(given[3]):,}")

    def _block(self, answer: Answer, room: memoryview) -> memoryview:
        got = 0
        while got < len(room):
            n = answer.readinto(room[got : got + (BLOCK >> 2)])
            if not n:
                raise TransientError("the server ends it too early")
            got += n
            self.received += n
        return room

    def _changed(self, said: str) -> QcliError:
        return QcliError(f"{self._name}: the server {said}", _AGAIN)

    def _end_of(self, span: Span) -> int:
        return min(span.end * BLOCK, self._part.bytes)

    def _take_checksum(self) -> None:
        try:
            self._checksum.run()
        except BaseException as problem:
            self._problem = problem
            self._close()
