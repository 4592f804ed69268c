"""The server as an application of ASGI: paths, and what answers each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic, time
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from qcli.errors import QcliError
from qcli.protocol.body import parsed
from qcli.protocol.errors import RequestError
from qcli.protocol.exchange import EXCHANGES, Exchange, Make
from qcli.serving.answers import Answers, QueueFullError
from qcli.serving.guard import Guard, refusal
from qcli.serving.known_models import KnownModels
from qcli.serving.metrics import CONTENT_TYPE, Metrics
from qcli.serving.reply import Reply
from qcli.serving.request_body import read_body
from qcli.wording import counted, duration

_LONGEST_RETRY: Final = 60  # seconds


class Server:
    """Answers requests of OpenAI's and Anthropic's clients; `app` is for whoever has the connections."""

    def __init__(
        self,
        answers: Answers,
        models: KnownModels,
        tell: Callable[[str], None],
        key: str | None = None,
        host: str = "127.0.0.1",
        reasoning: bool = True,
    ) -> None:
        """tell: is told of each request, in a line; reasoning: whether thoughts are told where a protocol has a place."""
        self._answers, self._models, self._tell = answers, models, tell
        self._metrics = Metrics(lambda: answers.running, lambda: answers.waiting)
        self._readers = ThreadPoolExecutor(2, "requests")  # bodies are read beside the events of others
        self._seconds = 1.0  # that an answer takes
        self._created = int(time())
        self._reasoning = reasoning
        routes = [Route(path, self._answering(path, make), methods=["POST"]) for path, make in EXCHANGES.items()]
        routes += [
            Route("/v1/models", self._list_models),
            Route("/v1/models/{name:path}", self._one_model),
            Route("/health", self._health),
            Route("/metrics", self._show_metrics),
        ]
        inner = ExceptionMiddleware(Router(routes), handlers={HTTPException: _not_there})
        self.app: ASGIApp = Guard(inner, key, host, tell)

    def close(self) -> None:
        """End the threads that read bodies."""
        self._readers.shutdown(cancel_futures=True)

    def _answering(self, path: str, make: Make) -> Callable[[Request], Any]:
        async def answer(request: Request) -> ASGIApp:
            began = monotonic()
            try:
                body = await read_body(request)
                read = self._readers.submit(self._read, make, body)
                exchange = await asyncio.wrap_future(read)
                reply = Reply(path, exchange, self._answers, self._metrics)
            except ClientDisconnect:
                return Response(status_code=400)
            except QueueFullError as full:
                wait = max(1, min(_LONGEST_RETRY, round(self._seconds * self._answers.waiting)))
                return self._refused(path, refusal(path, full, wait), str(full))
            except QcliError as problem:
                return self._refused(path, refusal(path, problem), str(problem))
            return self._logged(path, reply, began)

        return answer

    def _read(self, make: Make, body: bytes) -> Exchange:
        exchange = make(parsed(body), os.urandom(12).hex(), int(time()), self._reasoning)
        name = self._models.name_of(exchange.question.model)
        for part in exchange.parts:
            part.question = replace(part.question, model=name)
            part.answered.model = name
        return exchange

    def _refused(self, path: str, response: JSONResponse, why: str) -> JSONResponse:
        self._metrics.request(path, response.status_code)
        self._tell(f"{path} · {response.status_code} · {why}")
        return response

    def _logged(self, path: str, reply: Reply, began: float) -> ASGIApp:
        async def logged(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await reply(scope, receive, send)
            finally:
                seconds = monotonic() - began
                self._seconds += (seconds - self._seconds) / 8
                self._metrics.request(path, reply.status)
                stats = reply.stats
                prompt = f"prompt of {counted(stats.prompt_tokens, 'token')}, {stats.cached_tokens:,} of them cached"
                answered = f"{prompt} · {stats.new_tokens:,} written · {duration(seconds)}"
                self._tell(f"{path} · {reply.status} · {reply.problem or answered}")

        return logged

    async def _list_models(self, request: Request) -> Response:
        names = await asyncio.wrap_future(self._readers.submit(self._models.names))
        listed = [self._model(name) for name in names]
        more = {"has_more": False, "first_id": names[0], "last_id": names[-1]}  # as Anthropic's clients read it
        return JSONResponse({"object": "list", "data": listed, **more})

    async def _one_model(self, request: Request) -> Response:
        asked = request.path_params["name"]
        name = await asyncio.wrap_future(self._readers.submit(self._models.name_of, asked))
        return JSONResponse(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        named = {"id": name, "object": "model", "created": self._created, "owned_by": "qcli"}
        return {**named, "type": "model", "display_name": name}

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _show_metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)


async def _not_there(request: Request, problem: Exception) -> Response:
    """The answer to a path, or a method, that there is not."""
    assert isinstance(problem, HTTPException)
    told = f"there is no {request.method} {request.url.path[:100]}"
    return refusal(request.url.path, RequestError(told, "see docs/server.md", status=problem.status_code))
