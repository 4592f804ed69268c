"""The SHA-256 of a file that is on its way, taken in the order of its blocks by a thread of its own.

A block that comes near its turn is hashed from the buffer that it was written from, and its lane goes on with another one.
What came long before its turn, and what an earlier download left, is read back from the file.

If the lanes bring more than can be hashed, those that are far ahead wait, so that what comes is what is hashed next: with two
cores each of them would take the time from the checksum, and all that they bring would have to be read back.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from io import FileIO
from typing import Final

from qcli.hub.transfer_part import Part

_NEAR: Final = 16  # blocks: from its turn so far a block is kept in memory; the least that lanes may be ahead
_FAR: Final = 384  # blocks, twice what six lanes have in hand: so far behind, it is the checksum that takes the time
_IDLE: Final = 1 / 8  # share of the time: with more of it the lanes are what takes the time
_VERY_IDLE: Final = 1 / 2
_BUSY: Final = 1 / 32
_PIECE: Final = 1 << 18  # bytes that are read back at a time


class Checksum:
    """Of the file of a part: lanes tell what has come, `run` hashes it."""

    def __init__(self, part: Part) -> None:
        """Nothing is read yet."""
        self._part, self._hash = part, hashlib.sha256()
        self._left = bytes(part.there)  # by an earlier download
        self._turn = 0  # the block that is hashed after that of the moment
        self._kept: dict[int, memoryview] = {}  # blocks near their turn, which are written
        self._unused: list[memoryview] = []
        self._behind = 0  # blocks that came and are not hashed
        self._reach = _NEAR  # blocks that lanes may be ahead
        self._waiting: dict[threading.Event, int] = {}  # by lanes that are too far ahead: the block that is next
        self._held = False  # whether there was one
        self._idle, self._idle_since = 0.0, 0.0
        self._adapted, self._idle_then = time.monotonic(), 0.0
        self._changed = threading.Condition()
        self._closed = False
        self.bytes = 0  # that are in it

    def hexdigest(self) -> str:
        """Of the bytes so far."""
        return self._hash.hexdigest()

    def buffer(self) -> memoryview:
        """Memory for a block."""
        with self._changed:
            return self._unused.pop() if self._unused else memoryview(bytearray(self._part.length(0)))

    def came(self, block: int, buffer: memoryview) -> memoryview:
        """A lane has written a block from this buffer, and marked it as there; the buffer that it may go on with."""
        with self._changed:
            self._behind += 1
            if not self._turn <= block < self._turn + _NEAR:
                return buffer
            self._kept[block] = buffer
            if block == self._turn:
                self._changed.notify_all()
        return self.buffer()

    def hold(self, block: int) -> bool:
        """Let the lane that is to fetch a block wait while it is too far ahead; whether it was."""
        held = False
        while True:
            with self._changed:
                if self._closed or block < self._turn + self._reach:
                    return held
                self._held = held = True
                self._waiting[go := threading.Event()] = block
            go.wait()

    def adapt(self) -> None:
        """Now and then: let the lanes be further ahead if the checksum had to wait, less far if it cannot follow."""
        now = time.monotonic()
        with self._changed:
            waited = self._idle + (now - self._idle_since if self._idle_since else 0.0)
            share = (waited - self._idle_then) / max(now - self._adapted, 1e-9)
            self._adapted, self._idle_then = now, waited
            if share > _VERY_IDLE or self._left[self._turn : self._turn + 1] == b"\1":
                self._reach = len(self._left)
            elif share > _IDLE:
                self._reach *= 2
            elif share < _BUSY and (self._held or self._behind > _FAR):
                self._reach = max(_NEAR, min(self._reach, _FAR) // 2)
            self._held = bool(self._waiting)
            self._let_go()

    def hold_none(self) -> None:
        """The lanes are to end, or no lane has anything more to fetch."""
        with self._changed:
            self._reach = len(self._left)
            self._let_go()

    def close(self) -> None:
        """Nothing more is wanted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._let_go()

    def run(self) -> None:
        """Hash the whole file as it comes, unless it is closed before. Raises OSError."""
        piece = memoryview(bytearray(_PIECE))
        with open(self._part.path, "rb", buffering=0) as file:
            for block in range(len(self._left)):
                kept = self._next(block)
                if self._closed:
                    return
                length = self._part.length(block)
                if kept is None:
                    self._read_back(file, length, piece)
                else:
                    self._add(kept[:length])
                self._hashed(block, kept)
            if os.fstat(file.fileno()).st_size != self._part.bytes:
                raise _cut()

    def _next(self, block: int) -> memoryview | None:
        """Wait for a block; its buffer, or None if it is to be read back."""
        with self._changed:
            if not self._part.there[block]:
                began = self._idle_since = time.monotonic()
                while not (self._part.there[block] or self._closed):
                    self._changed.wait()
                self._idle, self._idle_since = self._idle + time.monotonic() - began, 0.0
            self._turn = block + 1
            return self._kept.pop(block, None)

    def _read_back(self, file: FileIO, length: int, piece: memoryview) -> None:
        file.seek(self.bytes)
        while length:
            got = file.readinto(piece[:length])
            if not got:
                raise _cut()
            self._add(piece[:got])
            length -= got

    def _add(self, data: memoryview) -> None:
        self._hash.update(data)
        self.bytes += len(data)

    def _hashed(self, block: int, buffer: memoryview | None) -> None:
        with self._changed:
            self._behind -= not self._left[block]
            if buffer is not None:
                self._unused.append(buffer)
            self._let_go()

    def _let_go(self) -> None:
        for go, block in list(self._waiting.items()):
            if self._closed or block < self._turn + self._reach:
                del self._waiting[go]
                go.set()


def _cut() -> OSError:
    return OSError("it was cut by another program")
