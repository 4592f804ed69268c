"""Thoughts that are not to be read: one line that counts them while they come, and after them how long they took."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

from qcli import console
from qcli.text.thoughts import without_tags
from qcli.wording import counted, duration

if TYPE_CHECKING:
    from qcli.runtime.stats import Stats

_REDRAWN_S = 0.1


class FoldedThoughts:
    """Takes the pieces of thoughts in place of `console.aside`; on a terminal it counts them, elsewhere it shows nothing."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        """stats: those of the answer that the thoughts are of."""
        self._stats = stats
        self._counted = 0  # tokens of the thoughts before this one
        self._began: float | None = None  # when this one did, in seconds
        self._drawn = 0.0  # when the line was
        self._empty = True  # whether nothing but tags has come of this one

    def __call__(self, piece: str) -> None:
        """Count a piece of a thought."""
        if not piece or console.stderr_columns() == inf:
            return
        now = perf_counter()
        if self._began is None:
            self._began, self._drawn, self._empty = now, 0.0, True
            if self._counted:
                console.info("")  # after the answer's line, which may be unfinished
        self._empty = self._empty and not without_tags(piece)
        if now - self._drawn >= _REDRAWN_S:
            self._drawn = now
            count = f"thinking · {counted(self._tokens(), 'token')}"
            whole = f"{count} · {self._stats().decode_tok_per_s:,.0f} tok/s"
            console.in_place(whole if len(whole) < console.stderr_columns() else count)

    def end(self) -> None:
        """Take the line away, and tell how long the thought was, if there was one."""
        if self._began is None:
            return
        console.in_place("")
        if not self._empty:
            took = duration(perf_counter() - self._began)
            console.info(f"thought for {took}, {counted(self._tokens(), 'token')}\n")
        self._counted, self._began = self._stats().thought_tokens, None

    def _tokens(self) -> int:
        return max(self._stats().thought_tokens - self._counted, 1)
