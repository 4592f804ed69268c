"""Who may ask a server: whoever knows its key, and where there is none, programs of this machine, but no web page."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qcli.errors import QcliError
from qcli.protocol.errors import RequestError, error_of, status_of
from qcli.serving.answers import ClosedError, QueueFullError

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_OPEN: Final = ("/health",)  # paths for everybody


class Guard:
    """Stands before an application: what may not come in gets an answer here, and so does what goes wrong inside."""

    def __init__(self, app: ASGIApp, key: str | None, host: str, tell: Callable[[str], None]) -> None:
        """key: that requests must have; host: that the server listens at; tell: is told of what should not happen."""
        self._app, self._key, self._tell = app, key, tell
        self._names = (*_LOCAL, host.lower()) if is_local(host) else None  # by which it may be called

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return
        scope["app"] = self  # so that what is not there is an exception, as the router has it
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            await self._app(scope, receive, sent)
        except QcliError as problem:
            if status_of(problem) >= 500:
                self._tell(f"{scope['path']} · {status_of(problem)} · {problem}")
            if not started:
                await refusal(scope["path"], problem)(scope, receive, send)
        except Exception as problem:  # a bug: the next request is answered all the same
            self._tell(f"something went wrong inside qcli: {type(problem).__name__}: {problem}")
            if not started:
                await refusal(scope["path"], QcliError("a bug"))(scope, receive, send)

    def _check(self, path: str, headers: Headers) -> None:
        """Raise RequestError for who may not ask."""
        if self._names and (name := _name_in(f"//{headers.get('host', 'localhost')}")) not in self._names:
            raise RequestError(f"this server is not called {name[:60]!r}", "ask localhost", status=403)
        if self._key is None:
            origin = headers.get("origin")
            if self._names and origin and _name_in(origin) not in self._names:
                raise RequestError("web pages may not ask this server", "start it with --api-key", status=403)
        elif path not in _OPEN:
            kind, _, token = headers.get("authorization", "").partition(" ")
            given = headers.get("x-api-key") or (token.strip() if kind.lower() == "bearer" else "")
            if not hmac.compare_digest(given.encode(), self._key.encode()):
                raise RequestError("the API key is missing or wrong", "send the key of this server", status=401)


def is_local(host: str) -> bool:
    """Whether nobody outside of this machine reaches a server at this address."""
    return host.lower() == "localhost" or host.startswith("127.") or host == "::1"


def refusal(path: str, problem: QcliError, retry_after: int | None = None) -> JSONResponse:
    """The answer to a request that gets no other, as the protocol of its path has it."""
    if isinstance(problem, QueueFullError | ClosedError):
        status = 429 if isinstance(problem, QueueFullError) else 503
        problem = RequestError(problem.message, problem.hint, status=status)
    status = status_of(problem)
    headers = {"retry-after": str(retry_after)} if retry_after else {}
    if status in (408, 413):  # the rest of the body is not read
        headers["connection"] = "close"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_of(path, problem), status, headers)


def _name_in(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
