"""A server among clients that vanish, and bodies and bytes of every wrong kind: nothing is left behind, nothing breaks.

Not part of the suite, as it takes a minute: python -m pytest tests/fuzz/fuzz_server.py
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

ROUNDS = int(os.environ.get("QCLI_FUZZ_ROUNDS", "5"))
CHAT = "/v1/chat/completions"
PATHS = (CHAT, "/v1/completions", "/v1/messages", "/v1/responses")
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "prompt": "Hi", "input": "Hi"}
LONG = {**HI, "max_tokens": 2000, "stop_loops": False, "temperature": 2}
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    1e300,
    10**40,
    "",
    "x" * 5000,
    "\u202e\x00",
    [],
    [[]],
    {},
    {"type": []},
    [{"role": "user"}],
]
KEYS = """messages prompt input model max_tokens temperature top_p seed stop stream stream_options logprobs top_logprobs tools
tool_choice response_format n system thinking stop_sequences output_config text reasoning instructions type function name
parameters schema json_schema role content tool_calls tool_call_id arguments enum properties items anyOf pattern""".split()


class Server:
    def __init__(self):
        line = [sys.executable, "-m", "qcli", "serve", "--port", "0", "-t", "2", "--queue", "300"]
        self.process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        found = re.search(r":(\d+)/v1", self.process.stderr.readline())
        assert found
        self.port, self.log = int(found[1]), list[str]()
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def ask(self, path, data):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, data if isinstance(data, bytes) else json.dumps(data))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def held(self) -> tuple[int, int, int]:
        """MB of memory, threads, open files; where the system tells."""
        folder = f"/proc/{self.process.pid}"
        if not os.path.isdir(folder):
            return 0, 0, 0
        with open(f"{folder}/status") as file:
            told = dict(line.split(":", 1) for line in file)
        return int(told["VmRSS"].split()[0]) >> 10, int(told["Threads"]), len(os.listdir(f"{folder}/fd"))

    def end(self):
        self.process.terminate()
        assert self.process.wait(40) == 0
        self._reader.join(5)
        assert not [line for line in self.log if "Traceback" in line or "went wrong" in line]


@pytest.fixture
def server():
    server = Server()
    try:
        assert server.ask(CHAT, HI)[0] == 200
        yield server
        server.end()
    finally:
        server.process.kill()
        server.process.stderr.close()


def test_clients_that_vanish_leave_nothing(server):
    chance = random.Random(19)

    def vanish(number):
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port)) as connection:
            data = json.dumps({**LONG, "stream": number % 2 == 0, "n": 1 + (number % 8 < 2)}).encode()
            head = f"POST {PATHS[number % 4]} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
            whole = head.encode() + data
            connection.sendall(whole[: chance.choice((len(whole), chance.randrange(len(whole))))])
            time.sleep(0.1 * chance.random())

    sizes = []
    for _ in range(ROUNDS):
        threads = [threading.Thread(target=vanish, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        began = time.monotonic()
        assert server.ask(CHAT, HI)[0] == 200
        assert time.monotonic() - began < 10
        time.sleep(0.5)
        sizes.append(server.held())
    first, last = sizes[0], sizes[-1]
    assert last[0] <= first[0] + 20
    assert last[1:] <= (first[1] + 1, first[2] + 2)


def value(chance, depth=0):
    kind = chance.randrange(5)
    if depth < 6 and kind == 0:
        return {chance.choice(KEYS): value(chance, depth + 1) for _ in range(chance.randrange(5))}
    if depth < 6 and kind == 1:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return chance.choice((*VALUES, *KEYS, "user", "assistant", "json_schema", "function", "text", "tool", "system"))


def test_bodies_of_every_wrong_kind(server):
    chance = random.Random(7)
    statuses: set[int] = set()
    for number in range(400 * ROUNDS):
        body = {**HI, **{chance.choice(KEYS): value(chance) for _ in range(chance.randrange(1, 4))}}
        body["stop"] = body.get("stop", ["."])
        status, answer = server.ask(PATHS[number % 4], body)
        statuses.add(status)
        assert status in (200, 400, 404), (body, answer)
    assert statuses >= {200, 400}
    for data in (b"[" * 10_000_000, b'{"a":' * 2_000_000, json.dumps("x" * 10_000_000).encode()):
        assert server.ask(CHAT, data)[0] == 413
    for data in (b"[" * 1_000_000, b'{"a":' * 1_000_000, b'{"n":' + b"1" * 100_000 + b"}", os.urandom(10_000)):
        assert server.ask(CHAT, data)[0] == 400


def test_bytes_that_are_no_http(server):
    chance = random.Random(3)
    kinds = (
        os.urandom(300),
        b"GET / HTTP/1.1\r\n" + os.urandom(100) + b"\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n\xff\xff\xff\xff\xff",
        b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /%ff%00/../ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"A" * 200_000,
    )
    for _ in range(60 * ROUNDS):
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as connection:
            connection.sendall(chance.choice(kinds))
            connection.recv(1000)
    assert server.ask(CHAT, HI)[0] == 200
