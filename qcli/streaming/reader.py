"""Reading parts of files into memory beside the program: several lanes, past the system's own cache where it allows that."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError
from qcli.host.pages import PAGE, pages

LANES = 8  # one disk was as quick with one, a slower one wants more
_PIECE = 8 << 20  # bytes of one read

Files = Mapping[Path, tuple[int | None, int]]  # descriptors for unbuffered reads, if they work, and for plain ones


def room(size: int) -> int:
    """Bytes of memory that hold `size` bytes of a file from wherever they begin, read by whole pages."""
    return (size + 2 * PAGE - 2) // PAGE * PAGE


@dataclass(frozen=True)
class Span:
    """Bytes of a file, and memory of `room(n_bytes)` on a page's border for them."""

    path: Path
    offset: int
    n_bytes: int
    memory: NDArray[np.uint8]

    @property
    def start(self) -> int:
        """Where in memory the first byte will be."""
        return self.offset % PAGE


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


@dataclass(eq=False)
class Ticket:
    """Spans on their way into memory, each by whichever lane is free."""

    spans: Sequence[Span]
    begun: int = 0
    ended: int = 0
    error: ModelFileError | None = None
    gate: threading.Lock = field(default_factory=_closed_gate)  # open when all have ended; an Event takes 20 us

    @property
    def n_bytes(self) -> int:
        return sum(span.n_bytes for span in self.spans)

    @property
    def done(self) -> bool:
        """Whether no lane will write any more."""
        return not self.gate.locked()

    def join(self) -> None:
        """Return when it is done."""
        with self.gate:
            pass

    def wait(self) -> None:
        """Return when all bytes are there; raises ModelFileError if the file no longer gives them."""
        self.join()
        if self.error:
            raise self.error


class Reader:
    """Lanes that take tickets in turn, urgent ones first; a context manager."""

    def __init__(self, paths: Sequence[Path], lanes: int = LANES) -> None:
        """paths: the files that will be read. Raises ModelFileError."""
        shared = hasattr(os, "preadv")  # else a read moves its descriptor's place, and every lane has its own
        self._files = [{path: _open(path) for path in paths} for _ in range(1 if shared else lanes)]
        self._urgent: deque[Ticket] = deque()
        self._idle: deque[Ticket] = deque()
        self._lock = threading.Lock()
        self._calls: SimpleQueue[None] = SimpleQueue()  # one for each span, or more; a Condition is written in Python
        self._closed = False
        files = self._files * (lanes if shared else 1)
        self._lanes = [threading.Thread(target=self._work, args=(own,), daemon=True) for own in files]
        for lane in self._lanes:
            lane.start()

    def read(self, spans: Sequence[Span], urgent: bool = True) -> Ticket:
        """Begin to read; tickets that are not urgent wait until no other is left."""
        ticket = Ticket(spans)
        with self._lock:
            (self._urgent if urgent else self._idle).append(ticket)
        for _ in spans:
            self._calls.put(None)
        return ticket

    def hurry(self, ticket: Ticket) -> None:
        """Make a ticket urgent that was not."""
        with self._lock:
            if ticket in self._idle:
                self._idle.remove(ticket)
                self._urgent.append(ticket)

    def give_up(self, ticket: Ticket) -> bool:
        """Take back a ticket that no lane has begun; whether there was time."""
        with self._lock:
            if ticket.begun or ticket not in self._idle:
                return False
            self._idle.remove(ticket)
            return True

    @property
    def unbuffered(self) -> bool:
        """Whether all files are read past the system's cache."""
        return all(direct is not None for direct, _ in self._files[0].values())

    def close(self) -> None:
        """End the lanes; what they have begun, they finish."""
        self._closed = True
        for _ in self._lanes:
            self._calls.put(None)
        for lane in self._lanes:
            lane.join()
        for descriptor in [both for files in self._files for pair in files.values() for both in pair]:
            if descriptor is not None:
                os.close(descriptor)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, files: Files) -> None:
        while found := self._next():
            ticket, span = found
            try:
                _fill(span, *files[span.path])
            except (OSError, EOFError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                message = f"{span.path}: cannot be read any more: {reason}"
                ticket.error = ModelFileError(message, "has the file changed, or its disk gone? Start again")
            self._ended(ticket)

    def _next(self) -> tuple[Ticket, Span] | None:
        while True:
            self._calls.get()
            if self._closed:
                return None
            with self._lock:
                if queue := self._urgent or self._idle:  # else it was taken back
                    ticket = queue[0]
                    ticket.begun += 1
                    if ticket.begun == len(ticket.spans):
                        queue.popleft()
                    return ticket, ticket.spans[ticket.begun - 1]

    def _ended(self, ticket: Ticket) -> None:
        with self._lock:
            ticket.ended += 1
            if ticket.ended == len(ticket.spans):
                ticket.gate.release()


def _fill(span: Span, direct: int | None, plain: int) -> None:
    begin, end = span.offset - span.start, span.offset + span.n_bytes
    for place in range(begin, end, _PIECE):
        size = min(_PIECE, -(-(end - place) // PAGE) * PAGE)
        memory = memoryview(span.memory.data)[place - begin : place - begin + size]
        wanted = min(size, end - place)
        got = _read(plain if direct is None else direct, memory, place)
        if got < wanted:  # unbuffered reads may stop at the last whole sector of a file
            got += _read(plain, memory[got:], place + got)
        if got < wanted:
            raise EOFError(f"it ends before byte {end}")


def _open(path: Path) -> tuple[int | None, int]:
    """Descriptors for unbuffered reads, if a trial shows that they work, and for plain ones."""
    try:
        plain = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None
    direct = None
    try:
        if hasattr(os, "O_DIRECT") and hasattr(os, "preadv"):  # bytes that `read` makes lie on no border
            direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
            _read(direct, memoryview(pages(PAGE).data), 0)
        elif sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(plain, fcntl.F_NOCACHE, 1)
        elif hasattr(os, "posix_fadvise"):
            os.posix_fadvise(plain, 0, 0, os.POSIX_FADV_RANDOM)
    except OSError:  # tmpfs, and network and foreign file systems, know no such reads
        if direct is not None:
            os.close(direct)
        direct = None
    return direct, plain


def _read(descriptor: int, memory: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [memory], offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    data = os.read(descriptor, len(memory))
    memory[: len(data)] = data
    return len(data)
