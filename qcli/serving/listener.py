"""Connections: the address that a server listens at, and uvicorn, which speaks HTTP with whoever connects."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from qcli.errors import QcliError
from qcli.host.systems import claim

_MOST: Final = 512  # connections
_WAITING: Final = 128  # that are not accepted yet
_HEADERS: Final = 10.0  # seconds for those of a request, from the connection or their first byte on

Asks = Callable[[Callable[[], None]], AbstractContextManager[None]]


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0: at one that is free. Raises QcliError."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, number)
    except OSError as problem:
        raise QcliError(f"--host {host}: {problem.strerror or problem}", "give an address of this machine") from None
    try:
        claim(made)
        made.bind(address)
        made.listen(_WAITING)
    except OSError as problem:
        made.close()
        hint = f"give another, such as --port {port + 1 if port < 65535 else 8080}"
        raise QcliError(f"cannot listen at {host}, port {port}: {problem.strerror}", hint) from None
    return made


def serve(app: ASGIApp, at: socket.socket, grace: int, asks: Asks, tell: Callable[[str], None]) -> None:
    """Answer whoever connects, until an order to end comes; what runs then has so many seconds.

    asks: what has such orders call a function, within a block.
    """
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST,
        timeout_graceful_shutdown=grace,
    )
    server = _Server(config, lambda: tell(f"ending: what is being answered has {grace} s · Ctrl-C again ends at once"))

    def end() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    with asks(end), _quiet_log():
        asyncio.run(server.serve(sockets=[at]))


class _Connection(H11Protocol):
    """One that is closed if the headers of a request do not come in time: it would keep others out for ever."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # the headers are there
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(_HEADERS, self.transport.close)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, at_end: Callable[[], None]) -> None:
        """at_end: called when the server stops to listen."""
        super().__init__(config)
        self._at_end = at_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and wait for what runs."""
        self._at_end()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server."""
        yield


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Let uvicorn log nothing: what goes wrong inside is told by the guard, and what clients do wrong, to them."""
    log = logging.getLogger("uvicorn.error")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before
