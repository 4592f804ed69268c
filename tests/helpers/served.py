"""A server of this process at a port of its own, and a client of a few lines."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from qcli.serving import listener
from qcli.serving.app import Server
from qcli.serving.known_models import KnownModels


class Client:
    """Asks a server; `log` has what the server told of requests."""

    def __init__(self, port: int, log: list[str]) -> None:
        self.port, self.log = port, log

    def connect(self, timeout: float = 30) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> SimpleNamespace:
        """One request; `data` is the body of the answer as bytes, `json` what it says, if it is JSON."""
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        connection = self.connect()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method or ("GET" if data is None else "POST"), path, data, named)
            answer = connection.getresponse()
            got = answer.read()
        finally:
            connection.close()
        is_json = answer.headers["content-type"] == "application/json"
        parsed = json.loads(got) if is_json else None
        return SimpleNamespace(status=answer.status, headers=answer.headers, data=got, json=parsed)

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The events of a stream: (name, data), or the data alone where there are no names; comments are left out."""
        return parsed_events(self.ask(path, {**body, "stream": True}).data)


def parsed_events(data: bytes) -> list[Any]:
    found: list[Any] = []
    for block in data.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            told = dict(line.split(": ", 1) for line in lines)
            value = json.loads(told["data"]) if told["data"] != "[DONE]" else "[DONE]"
            found.append((told["event"], value) if "event" in told else value)
    return found


@contextmanager
def serving(answers: Any, first: str = "storyteller", grace: int = 5, **options: Any) -> Iterator[Client]:
    """Within the block, a server of these answers."""
    log: list[str] = []
    ends: list[Any] = []
    began = threading.Event()

    @contextmanager
    def asks(end: Any) -> Iterator[None]:
        ends.append(end)
        began.set()
        yield

    server = Server(answers, KnownModels(first, None), log.append, **options)
    at = listener.listening("127.0.0.1", 0)
    port = at.getsockname()[1]
    thread = threading.Thread(target=listener.serve, args=(server.app, at, grace, asks, log.append))
    thread.start()
    assert began.wait(10)
    try:
        yield Client(port, log)
    finally:
        ends[0]()
        thread.join(grace + 10)
        server.close()
        at.close()
        assert not thread.is_alive()
