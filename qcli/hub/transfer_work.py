"""Who fetches which blocks: lanes take spans of them, and what a slow one has left is taken over by those that are done."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

_SPAN = 32  # blocks of one request, or fewer, so that each lane has two
_SLOW = 2.0  # seconds in which a lane that keeps the others waiting gets no block
_LEAST = 4  # blocks; fewer are not worth another request


@dataclass(eq=False)
class Span:
    """Blocks next to end - 1, which one lane is to fetch."""

    next: int
    end: int
    doubled: bool = False  # another lane fetches the same
    written: int = 0  # blocks
    since: float = field(default_factory=time.monotonic)


class Work:
    """The blocks of a file that are still missing. For several threads."""

    def __init__(self, there: bytearray, lanes: int) -> None:
        """there: 1 for each block that is there; it is marked by `done`. lanes: how many there may be, at most."""
        self._there = there
        self._waiting = deque(_gaps(there))
        self._active: list[Span] = []
        self._writing: set[int] = set()
        self._missing = there.count(0)
        self.lanes = max(1, min(lanes, -(-self._missing // _LEAST)))
        self._there_are = self.lanes
        self._span = max(_LEAST, min(_SPAN, -(-self._missing // (2 * self.lanes))))
        self._alone: int | None = None
        self._changed = threading.Condition()
        self.closed = False

    @property
    def finished(self) -> bool:
        """Whether all blocks are there."""
        return self._missing == 0

    def take(self, lane: int) -> Span | None:
        """The next span for a lane, as soon as there is one; None when there is nothing left for it to do."""
        with self._changed:
            while not self.closed and self._missing and self._alone in (None, lane):
                if self._alone == lane:
                    return Span(0, len(self._there))
                if span := self._next() or self._share():
                    self._active.append(span)
                    return span
                self._changed.wait(_SLOW / 4)
        return None

    def may_write(self, span: Span) -> bool:
        """Whether the lane is to write the span's next block; if not, as another has, it is passed over.

        What is written once stays, as it may be in the checksum already.
        """
        with self._changed:
            wanted = not (self.closed or self._there[span.next] or span.next in self._writing)
            if wanted:
                self._writing.add(span.next)
            else:
                span.next += 1
            return wanted

    def done(self, span: Span) -> None:
        """The next block of the span is written."""
        with self._changed:
            self._there[span.next] = 1
            self._missing -= 1
            span.next += 1
            span.written += 1
            span.since = time.monotonic()
            if not self._missing:
                self._changed.notify_all()

    def give_back(self, span: Span) -> None:
        """A lane has done with a span, and others may have what is left of it."""
        with self._changed:
            if span in self._active:
                self._active.remove(span)
                left = _gaps(self._there, span.next, span.end)
                self._waiting.extendleft(reversed(left))
            self._changed.notify_all()

    def alone(self, lane: int) -> bool:
        """From now on this lane fetches all, from the beginning; False if another does."""
        with self._changed:
            if self._alone is None:
                self._alone = lane
            return self._alone == lane

    def is_alone(self, lane: int) -> bool:
        """Whether this lane fetches all, as `alone` told."""
        return self._alone == lane

    def rest(self, seconds: float) -> None:
        """Wait so long, unless all is there before, or nothing more is wanted."""
        end = time.monotonic() + seconds
        with self._changed:
            while not self.closed and self._missing and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)

    def leave(self) -> None:
        """A lane ends; nothing more comes when the last has."""
        with self._changed:
            self._there_are -= 1
            if not self._there_are:
                self.closed = self._missing > 0
            self._changed.notify_all()

    def close(self) -> None:
        """No lane gets any more."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _next(self) -> Span | None:
        if self._waiting:
            first, end = self._waiting.popleft()
            if end - first > self._span:
                self._waiting.appendleft((first + self._span, end))
            return Span(first, min(end, first + self._span))
        return None

    def _share(self) -> Span | None:
        """Half of what the lane with the most has left; or all that one has left from which nothing comes."""
        single = [span for span in self._active if not span.doubled and span.next < span.end]
        most = max(single, key=lambda span: span.end - span.next, default=None)
        if most and (left := most.end - most.next) >= _LEAST:
            most.end -= left // 2
            return Span(most.end, most.end + left // 2)
        for slow in single:
            if time.monotonic() - slow.since > _SLOW:
                slow.doubled = True
                return Span(slow.next, slow.end, doubled=True)
        return None


def _gaps(there: bytearray, first: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """The runs of blocks that are missing."""
    found = []
    end = len(there) if end is None else end
    while first < end and (first := there.find(0, first, end)) >= 0:
        after = there.find(1, first, end)
        after = end if after < 0 else after
        found.append((first, after))
        first = after
    return found
