"""The answer to a request on its way to the client: whole, or in events as it comes.

A client that goes away frees its place; one that waits long for its first token is told how far that is.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from qcli.errors import QcliError
from qcli.protocol.errors import error_of, status_of
from qcli.protocol.events import DONE, Event, comment, encoded
from qcli.protocol.exchange import Exchange
from qcli.runtime.stats import Stats
from qcli.serving.answers import Answers, Begun, Done, Failed, Said, Ticket, Told, Working
from qcli.serving.metrics import Metrics

KEEP_ALIVE: Final = 5.0  # seconds without an event, after which a comment comes
CLIENT_GONE: Final = 499  # as nginx has it: a client that closed the connection before it had its answer
_PATIENCE: Final = 60.0  # seconds for a client to take what is sent
_STREAM: Final = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}


class Reply:
    """An answer that is sent, as an application of ASGI; `status`, `stats` and `problem` are for who logs it."""

    def __init__(self, path: str, exchange: Exchange, answers: Answers, metrics: Metrics) -> None:
        """Submits its questions, from within the event loop. Raises QueueFullError, ClosedError."""
        self._path, self._exchange, self._metrics = path, exchange, metrics
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[int, Told] | None] = asyncio.Queue()  # of which part; None: the client has gone
        self._left = len(exchange.parts)  # that are not over
        self._over = asyncio.Event()  # set with the last that is told of the last of them
        self._answers = answers
        self._begun_at = monotonic()
        self._begun: set[int] = set()
        self._stage = ""
        self.status = CLIENT_GONE  # until there is another
        self.stats = Stats()
        self.problem: QcliError | None = None  # why nothing was answered, or not all
        self._tickets: list[Ticket] = []
        try:
            for number, part in enumerate(exchange.parts):
                self._tickets.append(answers.submit(part.question, partial(self._hear, number)))
        except QcliError:
            self._cancel()
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, until it is over or the client has gone."""
        gone = asyncio.ensure_future(self._watch(receive))
        try:
            await (self._stream(send) if self._exchange.stream else self._whole(send))
        except (_GoneError, TimeoutError, OSError):
            self.status = CLIENT_GONE
            self._cancel()
            await self._settled()
        finally:
            gone.cancel()
            self._cancel()
            self._metrics.answer(self.stats, monotonic() - self._begun_at)

    async def _whole(self, send: Send) -> None:
        left = len(self._tickets)
        while left:
            for number, told in await self._next(None):
                if isinstance(told, Failed):
                    await self._refuse(send, told.problem)
                    return
                self._events(number, told)
                left -= isinstance(told, Done)
        await self._send_json(send, 200, self._exchange.whole())

    async def _stream(self, send: Send) -> None:
        told: list[tuple[int, Told]] = []
        left, problem = len(self._tickets), None
        waiting = KEEP_ALIVE
        while waiting > 0 and not any(isinstance(one, Begun | Done | Failed) for _, one in told):
            began = monotonic()
            told += await self._next(waiting)
            waiting -= monotonic() - began
        failed = [one.problem for _, one in told if isinstance(one, Failed)]
        if failed and not any(isinstance(one, Begun) for _, one in told):
            await self._refuse(send, failed[0])
            return
        self.status = 200
        headers = [(key.encode(), value.encode()) for key, value in _STREAM.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sent_at = 0.0
        while True:
            data = b""
            for number, one in told:
                data += b"".join(map(encoded, [] if problem else self._events(number, one)))
                left -= isinstance(one, Done)
                problem = self.problem = problem or (one.problem if isinstance(one, Failed) else None)
            is_over = not left or problem is not None
            if is_over:
                data += b"".join(map(encoded, [] if problem else self._exchange.closing()))
                data += DONE if self._exchange.ends_with_done else b""
            if not data and monotonic() - sent_at >= KEEP_ALIVE:
                data = comment(self._how_far())
            if data or is_over:
                await self._send(send, data, more=not is_over)
                sent_at = monotonic()
            if is_over:
                return
            told = await self._next(KEEP_ALIVE)

    def _events(self, number: int, told: Told) -> list[Event]:
        """The events of what is told of a part, which is noted, too."""
        part = self._exchange.parts[number]
        said = part.answered
        match told:
            case Begun(prompt_tokens, cached_tokens):
                self._stage = "answering"
                said.prompt_tokens, said.cached_tokens = prompt_tokens, cached_tokens
                if not self._begun:
                    self._metrics.first_token(monotonic() - self._begun_at)
                self._begun.add(number)
                return part.begin()
            case Said(piece, logprobs):
                return part.piece(piece, logprobs)
            case Done(stats):
                said.end(stats)
                return [*([] if number in self._begun else part.begin()), *part.end()]
            case Failed(problem):
                return [self._exchange.failed(problem)]
            case Working(stage, fraction):
                self._stage = f"{stage}: {fraction:.0%}"
        return []

    def _how_far(self) -> str:
        return self._stage or f"{self._answers.waiting} in the queue"

    def _cancel(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()

    def _hear(self, number: int, told: Told) -> None:
        """Take what the thread of the answers tells; after the end of the server nobody listens."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, number, told)

    def _take(self, number: int, told: Told) -> None:
        self._told.put_nowait((number, told))
        self._left -= isinstance(told, Done | Failed)
        if not self._left:
            self._over.set()
        if isinstance(told, Done):
            self.stats.prompt_tokens += told.stats.prompt_tokens
            self.stats.prefilled_tokens += told.stats.prefilled_tokens
            self.stats.new_tokens += told.stats.new_tokens

    async def _next(self, timeout: float | None) -> list[tuple[int, Told]]:
        """What was told since; none if nothing was for so many seconds. Raises _GoneError."""
        try:
            found = [await asyncio.wait_for(self._told.get(), timeout)]
        except TimeoutError:
            return []
        while not self._told.empty():
            found.append(self._told.get_nowait())
        if None in found:
            raise _GoneError
        return [told for told in found if told is not None]

    async def _settled(self) -> None:
        """Wait until the questions are over, which is when the step is done that is being computed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._over.wait()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancel()
        self._told.put_nowait(None)

    async def _refuse(self, send: Send, problem: QcliError) -> None:
        self.problem = problem
        await self._send_json(send, status_of(problem), error_of(self._path, problem))

    async def _send_json(self, send: Send, status: int, body: dict[str, Any]) -> None:
        self.status = status
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send(send, json.dumps(body, ensure_ascii=False).encode(), more=False)

    async def _send(self, send: Send, data: bytes, more: bool) -> None:
        async with asyncio.timeout(_PATIENCE):
            await send({"type": "http.response.body", "body": data, "more_body": more})


class _GoneError(Exception):
    """The client has closed the connection."""
