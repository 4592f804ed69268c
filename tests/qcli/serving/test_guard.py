"""Who may ask, how many may wait, and how a server ends; with models of a few lines."""

from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace

import pytest
from served import serving

from qcli.errors import ModelFileError, ModelNotFoundError, QcliError
from qcli.protocol.exchange import EXCHANGES
from qcli.runtime.stats import Stats
from qcli.serving import listener
from qcli.serving.answers import Begun, ClosedError, Done, Failed, QueueFullError, Said
from qcli.serving.guard import is_local
from qcli.serving.known_models import KnownModels

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
PATH = "/v1/chat/completions"


class Scripted:
    """Answers "Hello." at once, or when `go` is set; or refuses."""

    def __init__(self, refuses=None, waits=False):
        self.refuses, self.running, self.waiting = refuses, 0, 7
        self.go = threading.Event()
        if not waits:
            self.go.set()
        self.cancelled = 0

    def submit(self, question, tell):
        if self.refuses:
            raise self.refuses

        def work():
            tell(Begun(3, 0))
            tell(Said("Hello"))
            self.running = 1
            self.go.wait(10)
            tell(Said("."))
            tell(Done(Stats(prompt_tokens=3, new_tokens=2, finish_reason="stop")))
            self.running = 0

        threading.Thread(target=work).start()
        return SimpleNamespace(cancel=self._cancel)

    def _cancel(self):
        self.cancelled += 1
        self.go.set()


def test_a_key_is_asked_for():
    with serving(Scripted(), key="secret") as client:
        for headers in ({}, {"authorization": "Bearer other"}, {"x_api_key": "sécret"}, {"authorization": "secret"}):
            refused = client.ask(PATH, CHAT, **{k: v.encode("latin-1").decode("latin-1") for k, v in headers.items()})
            assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")
        assert client.ask("/v1/messages", CHAT).json["error"]["type"] == "authentication_error"
        for headers in (
            {"authorization": "Bearer secret"},
            {"authorization": "bearer secret"},
            {"x_api_key": "secret"},
        ):
            assert client.ask(PATH, CHAT, **headers).json["choices"][0]["message"]["content"] == "Hello."
        assert client.ask("/health").status == 200
        assert client.ask("/metrics").status == 401


def test_web_pages_and_foreign_names_may_not_ask():
    with serving(Scripted()) as client:
        assert client.ask(PATH, CHAT, host="evil.example").status == 403
        assert client.ask(PATH, CHAT, host="[").status == 403
        assert client.ask(PATH, CHAT, origin="https://evil.example").status == 403
        assert client.ask(PATH, CHAT, origin="null").status == 403
        for headers in ({"host": "localhost:9"}, {"host": "127.0.0.1"}, {"origin": "http://localhost:3000"}):
            assert client.ask(PATH, CHAT, **headers).status == 200


def test_an_address_of_the_network_has_any_name():
    with serving(Scripted(), host="0.0.0.0") as client:
        assert client.ask(PATH, CHAT, host="box.example").status == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_addresses_of_this_machine(host):
    assert is_local(host)
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.0.2", "example.org")))


def test_a_full_queue_and_an_end():
    with serving(Scripted(QueueFullError("7 questions are waiting already"))) as client:
        for path, kind in ((PATH, "rate_limit_error"), ("/v1/messages", "rate_limit_error")):
            full = client.ask(path, {**CHAT, "max_tokens": 5})
            assert (full.status, full.json["error"]["type"]) == (429, kind)
            assert 1 <= int(full.headers["retry-after"]) <= 60
    with serving(Scripted(ClosedError("the server is ending"))) as client:
        assert client.ask(PATH, CHAT).status == 503


def test_a_bug_is_told_in_a_line_and_shown_to_nobody():
    with serving(Scripted(ZeroDivisionError("secret"))) as client:
        answer = client.ask(PATH, CHAT)
        assert answer.status == 500
        assert "secret" not in answer.data.decode()
        assert any("ZeroDivisionError: secret" in line for line in client.log)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", EXCHANGES)
def test_a_fault_of_this_machine_is_told_to_its_log_alone(path, stream, begun):
    fault = ModelFileError("/home/me/secret.gguf: is cut off", "download it again")

    class Broken(Scripted):
        def submit(self, question, tell):
            if begun:
                tell(Begun(3, 0))
                tell(Said("Hello"))
            tell(Failed(fault))
            return SimpleNamespace(cancel=self._cancel)

    with serving(Broken()) as client:
        question = {"/v1/completions": {"prompt": "Hi"}, "/v1/responses": {"input": "Hi"}}.get(path, CHAT)
        body = {**question, "max_tokens": 5, "stream": stream}
        answer = client.ask(path, body)
        assert answer.status == (200 if begun and stream else 500)
        told = answer.data.decode()
        assert "its log says why" in told
        assert "secret" not in told
    assert any(str(fault) in line for line in client.log)


def test_a_fault_before_there_is_an_answer_is_logged():
    with serving(Scripted(QcliError("/home/me/secret: cannot be read"))) as client:
        for path in (PATH, "/v1/messages"):
            answer = client.ask(path, {**CHAT, "max_tokens": 5})
            assert answer.status == 500
            assert "secret" not in answer.data.decode()
            assert "/home/me/secret: cannot be read" in client.log[-1]


def test_an_end_waits_for_what_runs():
    scripted = Scripted(waits=True)
    with serving(scripted, grace=20) as client:
        connection = client.connect()
        connection.request("POST", PATH, json.dumps({**CHAT, "stream": True}))
        answer = connection.getresponse()
        assert b"assistant" in answer.readline()
        threading.Timer(0.3, scripted.go.set).start()
    assert answer.read().endswith(b"data: [DONE]\n\n")
    connection.close()
    assert any("ending: what is being answered has 20 s" in line for line in client.log)


def test_an_end_waits_no_longer_than_it_may():
    scripted = Scripted(waits=True)
    began = time.monotonic()
    with serving(scripted, grace=0) as client:
        connection = client.connect()
        connection.request("POST", PATH, json.dumps({**CHAT, "stream": True}))
        connection.getresponse().readline()
    connection.close()
    assert time.monotonic() - began < 8
    assert scripted.cancelled


def test_names_are_no_paths(data_folder):
    models = KnownModels("first", "./some/file.gguf")
    assert models.names()[:2] == ["first", "storyteller"]
    assert (models.name_of(None), models.name_of("FIRST"), models.name_of("Storyteller")) == (
        "first",
        "first",
        "storyteller",
    )
    assert (models.typed(None), models.typed("first"), models.typed("storyteller")) == (
        "./some/file.gguf",
        "./some/file.gguf",
        "storyteller",
    )
    for name in ("./some/file.gguf", "/etc/passwd", "", "story", "x" * 10_000):
        with pytest.raises(ModelNotFoundError, match="there are first, storyteller"):
            models.name_of(name)


def test_a_port_that_is_taken():
    with listener.listening("127.0.0.1", 0) as at:
        port = at.getsockname()[1]
        with pytest.raises(QcliError, match=f"cannot listen at 127.0.0.1, port {port}"):
            listener.listening("127.0.0.1", port)
    with pytest.raises(QcliError, match=r"--host no\.such"):
        listener.listening("no.such.host.invalid", 0)
