"""The server with the embedded model, asked over real connections."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from contextlib import closing, suppress
from typing import Any

import pytest
from calling_engine import TEMPLATE
from served import parsed_events, serving

from qcli import LLM
from qcli.serving.known_models import KnownModels
from qcli.serving.several_at_a_time import SeveralAtATime
from qcli.text.chat_template import ChatTemplate
from qcli.text.think_tags import find_think_tags

HI = [{"role": "user", "content": "Tell me a story."}]
CHAT, TEXT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "hot": {"type": "boolean"}},
    "required": ["city", "hot"],
}
THINKING = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '\\n</think>\\n\\n' }}{% endif %}{% endif %}
"""
LONG = {"messages": HI, "temperature": 2.0, "stop_loops": False, "seed": 1}  # as many tokens as there is room for
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI},
    TEXT: {"prompt": "Once upon a time"},
    MESSAGES: {"messages": HI, "max_tokens": 9},
    RESPONSES: {"input": "Hi"},
}


@pytest.fixture(scope="module")
def answers():
    def load(name, progress):
        llm = LLM(threads=2, progress=progress)
        llm.template = ChatTemplate(THINKING if name == "thinker" else TEMPLATE)
        llm.think_tags = find_think_tags(llm.tokenizer, llm.template.source)
        return llm

    answers = SeveralAtATime(load, most_waiting=200)
    answers.start()
    yield answers
    answers.close()


@pytest.fixture(scope="module")
def client(answers):
    with serving(answers) as client:
        yield client


def free(answers, seconds=10.0):
    """How long it takes until nothing runs or waits."""
    began = time.monotonic()
    while answers.running or answers.waiting:
        assert time.monotonic() < began + seconds
        time.sleep(0.002)
    return time.monotonic() - began


def said(events):
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in events if chunk["choices"])


def test_a_chat_whole_and_streamed_is_the_same(client):
    asked = {"messages": HI, "max_tokens": 20, "temperature": 1.0, "seed": 7, "logprobs": True, "top_logprobs": 2}
    whole = client.ask(CHAT, asked).json
    *events, last, done = client.events(CHAT, {**asked, "stream_options": {"include_usage": True}})
    (choice,) = whole["choices"]
    assert done == "[DONE]"
    assert said(events) == choice["message"]["content"]
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 20
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert events[-1]["choices"][0]["finish_reason"] == choice["finish_reason"] == "length"
    entries = [e for c in events for e in (c["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert entries == choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert whole["model"] == "storyteller"


def test_stop_and_form(client):
    stopped = client.ask(CHAT, {"messages": HI, "stop": [".", "!"], "temperature": 0}).json["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert not {".", "!"} & {*stopped["message"]["content"]}
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    held = client.ask(CHAT, {"messages": HI, "response_format": form, "temperature": 0}).json["choices"][0]
    assert json.loads(held["message"]["content"])["city"] in ("Rome", "Oslo")


def test_tools_are_called_and_their_results_read(client):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]
    asked = {"messages": HI, "tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "seed": 2}
    message = client.ask(CHAT, asked).json["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Oslo")
    talk = [*HI, message, {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]
    after = client.ask(CHAT, {"messages": talk, "tools": tools, "max_tokens": 5, "seed": 2})
    assert after.json["usage"]["completion_tokens"] == 5
    listed = [{"name": "weather", "input_schema": CITY}]
    one = {"type": "any", "disable_parallel_tool_use": True}
    events = client.events(MESSAGES, {"max_tokens": 90, "messages": HI, "tools": listed, "tool_choice": one})
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"
    answer = client.ask(RESPONSES, {"input": "Hi", "tools": [{"type": "function", "name": "weather", "parameters": CITY}],
                                    "tool_choice": "required", "parallel_tool_calls": False})  # fmt: skip
    assert [item["type"] for item in answer.json["output"]] == ["function_call"]


def test_messages_go_on_from_what_they_begin_with(client):
    begun = [*HI, {"role": "assistant", "content": "Once upon a time, there was a"}]
    answer = client.ask(MESSAGES, {"max_tokens": 60, "messages": begun, "stop_sequences": ["."], "temperature": 0}).json
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", ".")
    assert answer["content"][0]["text"].startswith(" ")
    full = client.ask(MESSAGES, {"max_tokens": 10**6, "messages": [{"role": "user", "content": "a " * 1900}], "top_k": 0,
                                 "temperature": 3.0}).json  # fmt: skip
    assert full["stop_reason"] in ("model_context_window_exceeded", "end_turn", "max_tokens")


def test_a_next_turn_reads_what_is_new(client):
    system = {"role": "system", "content": "You are a kind old teller of stories. " * 8}
    first = client.ask(CHAT, {"messages": [system, *HI], "max_tokens": 12, "temperature": 0}).json
    turn = [system, *HI, first["choices"][0]["message"], {"role": "user", "content": "Go on."}]
    usage = client.ask(CHAT, {"messages": turn, "max_tokens": 4}).json["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"] - 8


def test_another_model_that_thinks(client, monkeypatch):
    monkeypatch.setattr(KnownModels, "names", lambda self: ["storyteller", "thinker"])
    asked = {"messages": HI, "think": 9, "max_tokens": 60, "temperature": 0, "model": "thinker"}
    message = client.ask(CHAT, asked).json["choices"][0]["message"]
    assert "directly now." in message["reasoning_content"] or "That is enough" in message["reasoning_content"]
    assert "think>" not in message["reasoning_content"] + message["content"]
    *chunks, _ = client.events(CHAT, asked)
    thoughts = [chunk["choices"][0]["delta"].get("reasoning_content", "") for chunk in chunks]
    assert ("".join(thoughts), said(chunks)) == (message["reasoning_content"], message["content"])
    hidden = client.ask(CHAT, {**asked, "include_reasoning": False}).json
    assert "reasoning_content" not in hidden["choices"][0]["message"]
    assert hidden["usage"]["completion_tokens_details"]["reasoning_tokens"] >= 9
    budget = {"type": "enabled", "budget_tokens": 9}
    blocks = client.ask(MESSAGES, {**asked, "thinking": budget}).json["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text"]
    assert blocks[0]["thinking"] == message["reasoning_content"]
    assert [block["type"] for block in client.ask(MESSAGES, asked).json["content"]] == ["text"]
    answered = client.ask(RESPONSES, {**asked, "input": HI, "max_output_tokens": 60})
    items = answered.json["output"]
    assert [item["type"] for item in items] == ["reasoning", "message"]
    plain = client.ask(CHAT, {"messages": HI, "reasoning_effort": "high", "max_tokens": 3}).json
    assert plain["model"] == "storyteller"


def test_what_is_told_of_the_server(client):
    assert client.ask("/health").json == {"status": "ok"}
    (model,) = [model for model in client.ask("/v1/models").json["data"] if model["id"] == "storyteller"]
    assert client.ask("/v1/models/Storyteller").json == model
    assert client.ask(CHAT, {**BODIES[CHAT], "model": "STORYTELLER", "max_tokens": 1}).json["model"] == "storyteller"
    told = client.ask("/metrics").data.decode()
    assert 'qcli_requests_total{path="/v1/chat/completions",status="200"}' in told
    assert "qcli_questions_running 0.0" in told


@pytest.mark.parametrize("path", BODIES)
def test_refusals_have_the_shape_of_the_protocol(client, path):
    unknown = client.ask(path, {**BODIES[path], "model": "/etc/passwd"})
    assert unknown.status == 404
    assert "there are storyteller" in unknown.json["error"]["message"]
    for body in (b"{", b"[" * 100_000, b'{"a": NaN}', b"{}", b"\xff", b""):
        assert client.ask(path, body, method="POST").status == 400
    overfull = {**BODIES[path], **({"prompt": "a " * 9000} if path == TEXT else {"input": "a " * 9000})}
    if "messages" in overfull:
        overfull["messages"] = [{"role": "user", "content": "a " * 9000}]
    for stream in (False, True):
        refused = client.ask(path, {**overfull, "stream": stream})
        assert refused.status == 400
        assert "the context holds" in refused.json["error"]["message"]
        assert (refused.json.get("type") == "error") == (path == MESSAGES)
    other = client.ask(path, method="GET")
    assert client.log[-2:] == 2 * [f"{path} · 400 · {refused.json['error']['message']}"]
    assert (other.status, other.json.get("type") == "error") == (405, path == MESSAGES)
    assert client.ask("/nothing").status == 404


def test_a_body_that_is_too_large(client, monkeypatch):
    for path in BODIES:
        refused = client.ask(path, b"[" * (10 << 20))
        assert refused.status == 413
        assert "larger than 8 MiB" in refused.json["error"]["message"]
    monkeypatch.setattr("qcli.serving.request_body._READ", 9 << 20)
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as plain:  # of no length that is told
        plain.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(19):
            plain.sendall(b"80000\r\n" + b" " * 0x80000 + b"\r\n")
        assert b" 413 " in plain.recv(100)
    monkeypatch.setattr("qcli.serving.request_body._PATIENCE", 0.1)
    with closing(client.connect()) as connection:
        connection.putrequest("POST", CHAT)
        connection.putheader("content-length", "100")
        connection.endheaders()
        assert connection.getresponse().status == 408
    assert client.ask("/health").status == 200


def test_a_prompt_of_megabytes_takes_no_time(client):
    for body in ({"messages": [{"role": "user", "content": "x" * (7 << 20)}]}, {"prompt": "x" * (7 << 20)}):
        began = time.monotonic()
        refused = client.ask(CHAT if "messages" in body else TEXT, body)
        assert (refused.status, refused.json["error"]["code"]) == (400, "context_length_exceeded")
        assert time.monotonic() - began < 5


def test_a_client_that_goes_away_frees_its_place(client, answers):
    for stream in (True, False):
        connection = client.connect()
        connection.request("POST", CHAT, json.dumps({**LONG, "stream": stream}))
        if stream:
            connection.getresponse().read(300)
        while not answers.running:
            time.sleep(0.002)
        connection.close()
        assert free(answers) < 2
    deadline = time.monotonic() + 5
    while sum("499" in line for line in client.log) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sum("499" in line for line in client.log) >= 2


def test_a_hundred_clients_that_vanish_leave_nothing(client, answers):
    def vanish(number):
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            data = json.dumps({**LONG, "stream": number % 2 == 0, "seed": number}).encode()
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n".encode()
            whole = head + data
            connection.sendall(whole[: len(whole) if number % 3 else number % len(whole)])
            time.sleep(0.002 * (number % 7))

    def held():
        gc.collect()
        return sum(type(thing).__name__ in ("Reply", "Submitted", "Generation", "Answer") for thing in gc.get_objects())

    assert client.ask(CHAT, {"messages": HI, "max_tokens": 2}).status == 200
    free(answers)
    threads, before = threading.active_count(), held()
    for number in range(100):
        vanish(number)
    free(answers)
    time.sleep(0.1)
    assert client.ask(CHAT, {"messages": HI, "max_tokens": 2}).status == 200
    free(answers)
    deadline = time.monotonic() + 5
    while held() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= threads + 1  # the second that reads bodies
    assert held() <= before
    assert len(answers._side._together._sequences) == 0
    assert not [line for line in client.log if "went wrong" in line]


def test_many_at_once_are_answered_each_by_its_own(client):
    found: dict[int, str] = {}

    def ask(number):
        body = {"messages": HI, "max_tokens": 6, "seed": number % 4, "temperature": 1.5}
        found[number] = client.ask(CHAT, body).json["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == found[number % 4] for number in range(12))
    assert len(set(found.values())) > 1


def test_who_waits_long_is_told_so(client, answers, monkeypatch):
    monkeypatch.setattr("qcli.serving.reply.KEEP_ALIVE", 0.05)
    blocking = [client.connect() for _ in range(4)]
    for connection in blocking:
        connection.request("POST", CHAT, json.dumps(LONG))
    while answers.running < 4:
        time.sleep(0.002)
    waiting = client.connect()
    waiting.request("POST", CHAT, json.dumps({"messages": HI, "max_tokens": 2, "stream": True}))
    stream = waiting.getresponse()
    first = stream.readline()
    assert first == b": 1 in the queue\n"
    for connection in blocking:
        connection.close()
    events = parsed_events(first + stream.read())
    assert events[-1] == "[DONE]"
    assert said(events[:-1])
    waiting.close()


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_headers_that_never_end_keep_nobody_out(client, monkeypatch, before):
    """On a connection of their own, or after a request; a body may take longer."""
    monkeypatch.setattr("qcli.serving.listener._HEADERS", 0.3)
    body = json.dumps({"prompt": "Once", "max_tokens": 1}).encode()
    with closing(client.connect()) as slow, closing(socket.create_connection(("127.0.0.1", client.port))) as half:
        slow.putrequest("POST", TEXT)
        slow.putheader("content-length", str(len(body)))
        slow.endheaders(body[:5])
        half.settimeout(10)
        half.sendall(before)
        assert not before or half.recv(12) == b"HTTP/1.1 200"
        for sent in b"GET /health HTTP/1.1\r\nHost: local":
            with suppress(OSError):
                half.sendall(bytes([sent]))
            time.sleep(0.02)
        with suppress(ConnectionError):
            while half.recv(1000):
                pass
        slow.send(body[5:])
        assert slow.getresponse().status == 200
