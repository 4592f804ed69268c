"""The SHA-256 of a file that is on its way, taken in the order of its blocks.

A block that comes when it is its turn is hashed from the memory that it came into, while it is written; its lane goes on with
other memory. What came before its turn, and what an earlier download left, is read back from the file.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from typing import BinaryIO, Final

from qcli.hub.transfer_part import Part

_WAITING: Final = 2  # blocks that are hashed or wait for it, beside those that lanes fill
_PIECE: Final = 1 << 18  # bytes that are read back at a time


class Checksum:
    """Of the file of a part: `run` in a thread of its own takes it, lanes give blocks."""

    def __init__(self, part: Part, lanes: int) -> None:
        """Nothing is read yet. lanes: how many there may be."""
        self._part, self._hash = part, hashlib.sha256()
        self._turn = 0  # the first block that was neither given nor read back
        self._given: deque[memoryview] = deque()
        self._of_lanes: dict[int, memoryview] = {}
        self._free: list[memoryview] = []
        self._unmade = lanes + _WAITING
        self._idle, self._idle_since = 0.0, 0.0
        self._changed = threading.Condition()
        self._closed = False
        self.bytes = 0  # that are in it

    def hexdigest(self) -> str:
        """Of the bytes so far."""
        return self._hash.hexdigest()

    @property
    def idle(self) -> float:
        """Seconds in which it waited for blocks."""
        since = self._idle_since
        return self._idle + (time.monotonic() - since if since else 0.0)

    def room(self, lane: int) -> memoryview:
        """Memory of a lane for a block, other than what it gave: if it brings more than can be hashed, it waits here."""
        if lane not in self._of_lanes:
            with self._changed:
                while not (self._free or self._unmade or self._closed):
                    self._changed.wait()
                if not self._free:
                    self._free.append(memoryview(bytearray(self._part.length(0))))
                    self._unmade -= 1
                self._of_lanes[lane] = self._free.pop()
        return self._of_lanes[lane]

    def give(self, lane: int, block: int) -> None:
        """Take over the lane's memory with a block that it is about to write, if it is its turn; it may still be read."""
        with self._changed:
            if block == self._turn:
                self._turn += 1
                self._given.append(self._of_lanes.pop(lane))
                self._changed.notify_all()

    def look(self) -> None:
        """A block was written."""
        with self._changed:
            if self._idle_since:
                self._changed.notify_all()

    def close(self) -> None:
        """Nothing more is wanted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def run(self) -> None:
        """Take the checksum of the whole file, unless it is closed before. Raises OSError."""
        piece = memoryview(bytearray(_PIECE))
        with open(self._part.path, "rb", buffering=0) as file:
            while self.bytes < self._part.bytes:
                room = self._next()
                if self._closed:
                    return
                left = min(self._part.length(0), self._part.bytes - self.bytes)
                if room is None:
                    self._read_back(file, left, piece)
                else:
                    self._add(room[:left])
                    self._give_back(room)

    def _next(self) -> memoryview | None:
        """Wait for the next block; its memory, or None if it is in the file."""
        with self._changed:
            self._idle_since = time.monotonic()
            while not (self._given or self._part.there[self._turn] or self._closed):
                self._changed.wait()
            self._idle, self._idle_since = self.idle, 0.0
            if self._given:
                return self._given.popleft()
            self._turn += 1
            return None

    def _read_back(self, file: BinaryIO, left: int, piece: memoryview) -> None:
        file.seek(self.bytes)
        while left:
            got = file.readinto(piece[:left])
            if not got:
                raise OSError("it was cut by another program")
            self._add(piece[:got])
            left -= got

    def _add(self, data: memoryview) -> None:
        self._hash.update(data)
        self.bytes += len(data)

    def _give_back(self, room: memoryview) -> None:
        with self._changed:
            self._free.append(room)
            self._changed.notify_all()
