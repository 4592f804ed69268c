"""A server that stands in for huggingface.co, and another for where it keeps large files; each can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass(frozen=True)
class Asked:
    """One request."""

    site: str  # "hub" or "store"
    method: str
    path: str
    range: tuple[int, int] | None
    token: str | None


@dataclass(frozen=True)
class Fault:
    """What is wrong with an answer."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None  # bytes of the body after which the connection breaks
    no_ranges: bool = False
    wrong: bool = False  # another byte at the beginning
    until: threading.Event | None = None  # the body comes only then


class StandInHub:
    """Repositories of files by name, all at one commit."""

    def __init__(self, repos: dict[str, dict[str, bytes]], address: str = "", store_address: str = "") -> None:
        self.repos = repos
        self.address, self.store_address = address, store_address
        self.asked: list[Asked] = []
        self.sent = 0  # bytes of files
        self.fault: Callable[[Asked], Fault | None] = lambda asked: None
        self.stores_elsewhere = True  # with checksums; else as a plain mirror has it
        self.lists: Callable[[dict], object] = lambda told: told
        self._lock = threading.Lock()

    def requests(self, site: str, method: str = "GET") -> list[Asked]:
        """Those to one of the servers."""
        return [asked for asked in self.asked if (asked.site, asked.method) == (site, method)]

    def listing(self, repo: str) -> dict:
        """What the API tells of a repository."""
        siblings = [
            {"rfilename": name, "size": len(data), "lfs": {"sha256": sha256(data), "size": len(data)}}
            for name, data in self.repos[repo].items()
        ]
        if not self.stores_elsewhere:
            siblings = [{"rfilename": one["rfilename"]} for one in siblings]
        return {"id": repo, "sha": COMMIT, "siblings": siblings}

    def count(self, sent: int) -> None:
        """Note bytes that went out."""
        with self._lock:
            self.sent += sent


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


class Servers:
    """The two servers; each connection goes to what stands in for the hub at that time."""

    def __init__(self) -> None:
        self.hub = StandInHub({})

    @contextmanager
    def running(self) -> Iterator[Servers]:
        """Answer until the block ends."""
        with self._served("hub") as self.address, self._served("store") as self.store_address:
            yield self

    def stand_in(self, repos: dict[str, dict[str, bytes]]) -> StandInHub:
        """A hub with these repositories, for whoever connects from now on."""
        self.hub = StandInHub(repos, self.address, self.store_address)
        return self.hub

    @contextmanager
    def _served(self, site: str) -> Iterator[str]:
        handler = type("Handler", (_Handler,), {"servers": self, "site": site})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    servers: Servers
    site: str
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.hub = self.servers.hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        given = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        wanted = (int(given[0]), int(given[2])) if given[0] else None
        asked = Asked(self.site, self.command, unquote(self.path), wanted, self.headers.get("Authorization"))
        self.hub.asked.append(asked)
        fault = self.hub.fault(asked) or Fault()
        try:
            if fault.status:
                self._send(fault.status, dict(fault.headers), fault.body, fault)
            else:
                self._found(asked, fault)
        except OSError:  # the client has left
            self.close_connection = True

    def _found(self, asked: Asked, fault: Fault) -> None:
        path = urlsplit(asked.path).path.lstrip("/")
        if path.startswith("api/models/"):
            repo = path.removeprefix("api/models/").partition("/revision/")[0]
            if repo not in self.hub.repos:
                return self._send(401, {"X-Error-Code": "RepoNotFound"}, b"no", fault)
            return self._send(200, {}, json.dumps(self.hub.lists(self.hub.listing(repo))).encode(), fault)
        repo, _, rest = path.partition("/resolve/")
        data = self.hub.repos.get(repo, {}).get(rest.partition("/")[2])
        if data is None:
            return self._send(404, {"X-Error-Code": "EntryNotFound"}, b"no", fault)
        if self.site == "store":
            return self._file(asked, data, fault, {"ETag": f'"of-the-store-{len(data)}"'})
        told = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256(data)[:40]}"'}
        if not self.hub.stores_elsewhere:
            return self._file(asked, data, fault, told)
        linked = {
            "X-Linked-Etag": f'"{sha256(data)}"',
            "X-Linked-Size": str(len(data)),
            "X-Xet-Hash": sha256(data)[::-1],
        }
        there = {"Location": f"{self.hub.store_address}/{path}?signature=secret"}
        return self._send(302, told | linked | there | dict(fault.headers), b"", fault)

    def _file(self, asked: Asked, data: bytes, fault: Fault, told: dict[str, str]) -> None:
        if asked.range is None or fault.no_ranges or asked.method == "HEAD":
            return self._send(200, told | dict(fault.headers), data, fault)
        first, last = asked.range
        body = data[first : last + 1]
        told["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{len(data)}"
        return self._send(206, told | dict(fault.headers), body, fault)

    def _send(self, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        if fault.wrong and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.flush()
        if fault.until:
            fault.until.wait(10)
        body = body if fault.cut is None else body[: fault.cut]
        self.close_connection |= fault.cut is not None or "Content-Length" in headers
        self.wfile.write(body)
        self.wfile.flush()
        if "/resolve/" in self.path:
            self.hub.count(len(body))
