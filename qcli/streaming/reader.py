"""Reads ranges of files into memory on I/O threads, past the system's page cache where the file system allows that.

`dense` reads a model's dense weights with it at the start; `cached_layer` and `staging_buffer` read experts with it, urgently
those that a token waits for, in the background those that are prefetched. The threads run compiled code
(`quant.read_queue`), which takes reads that kernels ask for, too: nobody waits for the interpreter.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError
from qcli.host.unbuffered import handles, open_to_read, reads_wait_for_each_other
from quant import read_queue, system_calls
from quant.read_queue import ENDED, FILE_BYTES, PAGE, READ, SPAN

IO_THREADS = 8  # one disk was as quick with one, a slower one wants more
_LOOK_S = 0.0001  # between looks whether a read is done

Words = NDArray[np.int64]


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


class ReadRequest:
    """Spans to be read, each by whichever I/O thread is free."""

    def __init__(self, reader: Reader, words: Words, kept: object = None) -> None:
        """words: a table of READ with its spans behind it; kept: what must live until they are read."""
        self._paths, self.words, self.kept = reader.paths, words, kept
        self._spans = words[READ.bytes // 8 :].reshape(-1, SPAN.bytes // 8)

    @property
    def address(self) -> int:
        """Of the table of READ."""
        return self.words.ctypes.data

    @property
    def n_bytes(self) -> int:
        """Bytes of all spans."""
        return int(self._spans[:, SPAN.size // 8].sum())

    @property
    def done(self) -> bool:
        """Whether no I/O thread will write into the buffers any more; `error` tells whether all bytes are there."""
        return not self.words[READ.left // 8]

    @property
    def error(self) -> ModelFileError | None:
        """Why bytes are not there."""
        number = int(self.words[READ.error // 8])
        if not number:
            return None
        span = self._spans[self.words[READ.failed // 8]]
        end = int(span[SPAN.offset // 8] + span[SPAN.size // 8])
        reason = f"it ends before byte {end}" if number == ENDED else system_calls.describe(number)
        message = f"{self._paths[span[SPAN.file // 8]]}: cannot be read any more: {reason}"
        return ModelFileError(message, "has the file changed, or its disk gone? Start again")

    def join(self) -> None:
        """Return when it is done."""
        while not self.done:
            sleep(_LOOK_S)

    def wait(self) -> None:
        """Return when all bytes are in memory. Raises ModelFileError if the file could not be read."""
        self.join()
        if error := self.error:
            raise error


class Reader:
    """I/O threads and two lists of requests: urgent ones first, then those of the background. A context manager."""

    def __init__(self, paths: Sequence[Path], threads: int = IO_THREADS, unbuffered: bool = True) -> None:
        """paths: what will be read, unbuffered where that works. Raises ModelFileError if a file cannot be opened."""
        self.paths = list(paths)
        self._numbers = {path: number for number, path in enumerate(self.paths)}
        self._calls = system_calls.table()
        self._queue = read_queue.new_queue(self._calls)
        self._kept: list[object] = []
        self._requests: deque[ReadRequest] = deque()  # that may not be done
        shared = not reads_wait_for_each_other()
        self._descriptors = [_open_all(self.paths, unbuffered) for _ in range(1 if shared else threads)]
        files = self._descriptors * (threads if shared else 1)
        self._leaving = threading.Lock()
        self._at_work = len(files)
        self._threads = [threading.Thread(target=self._work, args=(own,), daemon=True) for own in files]
        for thread in self._threads:
            thread.start()

    @property
    def unbuffered(self) -> bool:
        """Whether all files are read past the system's page cache."""
        return all(direct is not None for direct, _ in self._descriptors[0])

    @property
    def queue(self) -> int:
        """The address of the queue, for kernels."""
        return self._queue.ctypes.data

    def number_of(self, path: Path) -> int:
        """The number of a file in tables of SPAN."""
        return self._numbers[path]

    def keep(self, owner: object) -> None:
        """Keep an object, into whose memory reads go, as long as the I/O threads."""
        self._kept.append(owner)

    def read(self, spans: Sequence[Span], urgent: bool = True) -> ReadRequest:
        """Queue a request; one of the background is read when no urgent request is left."""
        words: Words = np.zeros(READ.bytes // 8 + len(spans) * SPAN.bytes // 8, np.int64)
        words[READ.spans // 8] = len(spans)
        for row, span in zip(words[READ.bytes // 8 :].reshape(len(spans), -1), spans, strict=True):
            memory = span.memory.ctypes.data
            row[:] = self.number_of(span.path), span.offset, span.n_bytes, memory  # in the order of SPAN
        request = ReadRequest(self, words, kept=spans)
        while self._requests and self._requests[0].done:
            self._requests.popleft()
        self._requests.append(request)
        read_queue.submit(self.queue, request.address, urgent)
        return request

    def prioritize(self, request: ReadRequest) -> None:
        """Move a request of the background to the end of the urgent ones."""
        read_queue.prioritize(self.queue, request.address)

    def cancel(self, request: ReadRequest) -> bool:
        """Remove a request of the background that no I/O thread has begun; returns whether it was removed."""
        return bool(read_queue.cancel(self.queue, request.address))

    def close(self) -> None:
        """End the I/O threads, each after the span that it is reading, and close the files; twice does no harm."""
        self.dismiss()
        for thread in self._threads:
            thread.join()

    def dismiss(self) -> None:
        """As `close`, without waiting: the garbage collector may call this in one of the threads."""
        read_queue.close(self.queue)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, files: list[tuple[int | None, int]]) -> None:
        """What an I/O thread does until the reader is closed; the last one to end closes the files and keeps nothing more."""
        table = np.array([handles(*pair) for pair in files], np.int64).reshape(-1, FILE_BYTES // 8)
        scratch = np.zeros(system_calls.OVERLAPPED_BYTES, np.uint8)
        read_queue.serve(self.queue, table.ctypes.data, scratch.ctypes.data)
        with self._leaving:
            self._at_work -= 1
            if self._at_work:
                return
        self._kept.clear()
        self._requests.clear()
        for descriptor in [both for own in self._descriptors for pair in own for both in pair]:
            if descriptor is not None:
                os.close(descriptor)


def _open_all(paths: Sequence[Path], unbuffered: bool) -> list[tuple[int | None, int]]:
    """Descriptors of every file. Raises ModelFileError if one cannot be opened; then the others are closed again."""
    opened: list[tuple[int | None, int]] = []
    try:
        for path in paths:
            opened.append(open_to_read(path, unbuffered))
    except BaseException:
        for descriptor in [both for pair in opened for both in pair]:
            if descriptor is not None:
                os.close(descriptor)
        raise
    return opened
