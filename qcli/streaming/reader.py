"""Reads ranges of files into memory on I/O threads, past the system's page cache where the file system allows that.

`dense` reads a model's dense weights with it at the start; `cached_layer` and `staging_buffer` read experts with it, urgently
those that a token waits for, in the background those that are prefetched.
"""

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
from qcli.host.pages import PAGE, allocate_pages

IO_THREADS = 8  # one disk was as quick with one, a slower one wants more
_BYTES_PER_READ = 8 << 20  # of one system call

Files = Mapping[Path, tuple[int | None, int]]  # descriptors for unbuffered reads, if they work, and for buffered ones


def buffer_bytes(n_bytes: int) -> int:
    """Size of a buffer for `n_bytes` of a file that begin at any offset, when whole pages are read."""
    return (n_bytes + 2 * PAGE - 2) // PAGE * PAGE


@dataclass(frozen=True)
class Span:
    """A range of bytes of a file, and the buffer that it is read into."""

    path: Path
    offset: int  # in the file
    n_bytes: int
    memory: NDArray[np.uint8]  # [buffer_bytes(n_bytes)], aligned to a page

    @property
    def start(self) -> int:
        """Index in `memory` of the first byte of the range; the bytes before it belong to the same page of the file."""
        return self.offset % PAGE


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(eq=False)
class ReadRequest:
    """Spans to be read, each by whichever I/O thread is free."""

    spans: Sequence[Span]
    spans_begun: int = 0
    spans_ended: int = 0
    error: ModelFileError | None = None
    unfinished: threading.Lock = field(default_factory=_locked)  # released after the last span; an Event takes 20 us

    @property
    def n_bytes(self) -> int:
        """Bytes of all spans."""
        return sum(span.n_bytes for span in self.spans)

    @property
    def done(self) -> bool:
        """Whether no I/O thread will write into the buffers any more; `error` tells whether all bytes are there."""
        return not self.unfinished.locked()

    def join(self) -> None:
        """Return when it is done."""
        with self.unfinished:
            pass

    def wait(self) -> None:
        """Return when all bytes are in memory. Raises ModelFileError if the file could not be read."""
        self.join()
        if self.error:
            raise self.error


class Reader:
    """I/O threads and two queues of requests: urgent ones first, then those of the background. A context manager."""

    def __init__(self, paths: Sequence[Path], threads: int = IO_THREADS, unbuffered: bool = True) -> None:
        """paths: what will be read, unbuffered where that works. Raises ModelFileError if a file cannot be opened."""
        shared = hasattr(os, "preadv")  # else a read moves its descriptor's position, and every thread has its own
        self._files = [{path: _open(path, unbuffered) for path in paths} for _ in range(1 if shared else threads)]
        self._urgent: deque[ReadRequest] = deque()
        self._background: deque[ReadRequest] = deque()
        self._lock = threading.Lock()  # of the queues, and of the counts of spans
        self._wakeups: SimpleQueue[None] = SimpleQueue()  # one for each span, or more; a Condition is written in Python
        self._closed = False
        files = self._files * (threads if shared else 1)
        self._at_work = len(files)
        self._threads = [threading.Thread(target=self._work, args=(own,), daemon=True) for own in files]
        for thread in self._threads:
            thread.start()

    @property
    def unbuffered(self) -> bool:
        """Whether all files are read past the system's page cache."""
        return all(direct is not None for direct, _ in self._files[0].values())

    def read(self, spans: Sequence[Span], urgent: bool = True) -> ReadRequest:
        """Queue a request; one of the background is read when no urgent request is left."""
        request = ReadRequest(spans)
        with self._lock:
            (self._urgent if urgent else self._background).append(request)
        for _ in spans:
            self._wakeups.put(None)
        return request

    def prioritize(self, request: ReadRequest) -> None:
        """Move a request of the background to the end of the urgent ones."""
        with self._lock:
            if request in self._background:
                self._background.remove(request)
                self._urgent.append(request)

    def cancel(self, request: ReadRequest) -> bool:
        """Remove a request of the background that no I/O thread has begun; returns whether it was removed."""
        with self._lock:
            if request.spans_begun or request not in self._background:
                return False
            self._background.remove(request)
            return True

    def close(self) -> None:
        """End the I/O threads, each after the span that it is reading, and close the files; twice does no harm."""
        self.dismiss()
        for thread in self._threads:
            thread.join()

    def dismiss(self) -> None:
        """As `close`, without waiting: the garbage collector may call this in one of the threads."""
        self._closed = True
        for _ in self._threads:
            self._wakeups.put(None)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, files: Files) -> None:
        """What an I/O thread does until the reader is closed."""
        while found := self._next():
            request, span = found
            try:
                _fill(span, *files[span.path])
            except (OSError, EOFError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                message = f"{span.path}: cannot be read any more: {reason}"
                request.error = ModelFileError(message, "has the file changed, or its disk gone? Start again")
            self._end_span(request)
        self._leave()

    def _next(self) -> tuple[ReadRequest, Span] | None:
        """The span to read next, waiting for one; None when the reader is closed."""
        while True:
            self._wakeups.get()
            if self._closed:
                return None
            with self._lock:
                if queue := self._urgent or self._background:  # else its request was cancelled
                    request = queue[0]
                    request.spans_begun += 1
                    if request.spans_begun == len(request.spans):
                        queue.popleft()
                    return request, request.spans[request.spans_begun - 1]

    def _leave(self) -> None:
        """Close the files if this is the last thread to end."""
        with self._lock:
            self._at_work -= 1
            if self._at_work:
                return
        for descriptor in [both for files in self._files for pair in files.values() for both in pair]:
            if descriptor is not None:
                os.close(descriptor)

    def _end_span(self, request: ReadRequest) -> None:
        with self._lock:
            request.spans_ended += 1
            if request.spans_ended == len(request.spans):
                request.unfinished.release()


def _open(path: Path, unbuffered: bool) -> tuple[int | None, int]:
    """Descriptors for unbuffered reads, or None unless they are wanted and a trial shows that they work; for buffered ones."""
    try:
        buffered = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None
    direct = None
    if not unbuffered:
        return direct, buffered
    try:
        if hasattr(os, "O_DIRECT") and hasattr(os, "preadv"):  # the bytes object that os.read makes is not aligned
            direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
            _read(direct, memoryview(allocate_pages(PAGE).data), 0)
        elif sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(buffered, fcntl.F_NOCACHE, 1)
        elif hasattr(os, "posix_fadvise"):
            os.posix_fadvise(buffered, 0, 0, os.POSIX_FADV_RANDOM)
    except OSError:  # tmpfs, and network and foreign file systems, know no such reads
        if direct is not None:
            os.close(direct)
        direct = None
    return direct, buffered


def _fill(span: Span, direct: int | None, buffered: int) -> None:
    """Read a span in whole pages, `_BYTES_PER_READ` at a time. Raises OSError, EOFError."""
    begin, end = span.offset - span.start, span.offset + span.n_bytes
    for offset in range(begin, end, _BYTES_PER_READ):
        size = min(_BYTES_PER_READ, -(-(end - offset) // PAGE) * PAGE)
        memory = memoryview(span.memory.data)[offset - begin : offset - begin + size]
        needed = min(size, end - offset)
        got = _read(buffered if direct is None else direct, memory, offset)
        if got < needed:  # unbuffered reads may stop at the last whole sector of a file
            got += _read(buffered, memory[got:], offset + got)
        if got < needed:
            raise EOFError(f"it ends before byte {end}")


def _read(descriptor: int, memory: memoryview, offset: int) -> int:
    """Read into memory from an offset of a file; returns how many bytes were read."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [memory], offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    data = os.read(descriptor, len(memory))
    memory[: len(data)] = data
    return len(data)
