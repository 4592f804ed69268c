"""An answer for coroutines: a thread makes it, and an event loop takes it piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from qcli.runtime.side_by_side import CancelledError, Listener
from qcli.runtime.stats import Stats

if TYPE_CHECKING:
    from qcli.runtime.exclusive import Answer


class _Hearing:
    """Hands what comes of an answer over to an event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[tuple[str | None, Exception | None]] = asyncio.Queue()
        self.answer: Answer | None = None
        self.wants_more = True

    def progress(self, stage: str, fraction: float) -> None:
        """A prompt that nobody waits for is left."""
        if not self.wants_more:
            raise CancelledError

    def heard(self, answer: Answer, piece: str) -> None:
        """A piece of the answer."""
        self.answer = answer
        self._put(piece, None)

    def over(self, answer: Answer | None, problem: Exception | None) -> None:
        """Nothing more comes."""
        self.answer = answer or self.answer
        self._put(None, problem)

    def _put(self, piece: str | None, problem: Exception | None) -> None:
        try:
            self.loop.call_soon_threadsafe(self.queue.put_nowait, (piece, problem))
        except RuntimeError:  # the loop is closed
            self.wants_more = False


class AsyncAnswer(AsyncIterator[str]):
    """An answer for `async for`: its pieces as they come. aclose() ends it early, as does dropping it.

    `ids`, `logprobs`, `stats`: as an `Answer` has them, so far.
    """

    def __init__(self, submit: Callable[[Listener], None]) -> None:
        """submit: has the answer begin; called when the first piece is asked for."""
        self._submit, self._over = submit, False
        self._hearing: _Hearing | None = None

    def __aiter__(self) -> AsyncAnswer:
        return self

    async def __anext__(self) -> str:
        if self._over:
            raise StopAsyncIteration
        if self._hearing is None:
            self._hearing = _Hearing()
            self._submit(self._hearing)
        try:
            piece, problem = await self._hearing.queue.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if piece is not None:
            return piece
        self._over = True
        if problem:
            raise problem
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it here."""
        self._over = True
        if self._hearing:
            self._hearing.wants_more = False

    def __del__(self) -> None:
        if hearing := self._hearing:
            hearing.wants_more = False

    @property
    def ids(self) -> list[int]:
        """The token ids generated so far."""
        return self._answer.ids if self._answer else []

    @property
    def logprobs(self) -> list[dict[str, Any]]:
        """Of each token, if they were asked for."""
        return self._answer.logprobs if self._answer else []

    @property
    def stats(self) -> Stats:
        """What it took."""
        return self._answer.stats if self._answer else Stats()

    @property
    def _answer(self) -> Answer | None:
        return self._hearing.answer if self._hearing else None
