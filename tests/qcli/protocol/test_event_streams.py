"""Golden event streams: an answer of every kind of piece, as each protocol sends it, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from places import DATA

from qcli.errors import UsageError
from qcli.protocol.chat_completions import ChatCompletion
from qcli.protocol.completions import Completion
from qcli.protocol.events import comment, encoded
from qcli.protocol.messages import Message
from qcli.protocol.responses import Response
from qcli.runtime.stats import Stats
from qcli.text.thoughts import Thought
from qcli.tools.call import MalformedCall, ToolCall

ASKED = [{"role": "user", "content": "Hi"}]
TOP = {"token": "Hel", "id": 7, "bytes": [72, 101, 108], "logprob": -0.5}
LOGPROBS = [{**TOP, "top_logprobs": [TOP]}]
TEXT = [("Hel", LOGPROBS), ("lo é", []), ("", [{**TOP, "top_logprobs": []}])]
THOUGHTS = [Thought("<think>"), Thought("\nHm"), Thought("m. \n"), Thought("So"), Thought("\n"), Thought("</think>")]
CALLS = [ToolCall("now", {"zone": "é"}, "aaaaaaaaa"), ToolCall("now", {}, "bbbbbbbbb")]
MIXED: list[Any] = [*((piece, []) for piece in (*THOUGHTS, "Well:", MalformedCall("<tool_call>{"), *CALLS))]
TOLD = {"prompt_tokens": 12, "prefilled_tokens": 2, "new_tokens": 9, "thought_tokens": 4}
CHAT, TOOLS = {"model": "m", "messages": ASKED}, [{"type": "function", "function": {"name": "now"}}]
STREAMS = {
    "chat_text": (
        ChatCompletion,
        {**CHAT, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 1},
        TEXT,
        "stop",
    ),
    "chat_mixed": (ChatCompletion, {**CHAT, "tools": TOOLS}, MIXED, "tool_calls"),
    "chat_hidden": (ChatCompletion, {**CHAT, "include_reasoning": False}, MIXED[:7], "loop"),
    "completion": (
        Completion,
        {"prompt": "Hi", "logprobs": 1, "stream_options": {"include_usage": True}},
        [*TEXT, (Thought("hm"), [])],
        "length",
    ),
    "message_text": (Message, {"max_tokens": 9, "messages": ASKED, "stop_sequences": ["!"]}, TEXT, "!"),
    "message_mixed": (
        Message,
        {"max_tokens": 9, "messages": ASKED, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        MIXED,
        "tool_calls",
    ),
    "message_full": (Message, {"max_tokens": 99, "messages": ASKED}, MIXED[:7], "length"),
    "response_text": (Response, {"input": "Hi", "instructions": "Be kind."}, TEXT, "stop"),
    "response_mixed": (Response, {"input": "Hi", "tools": [{"type": "function", "name": "now"}]}, MIXED, "tool_calls"),
    "response_cut": (Response, {"input": "Hi", "max_output_tokens": 9}, TEXT[:1], "length"),
    "response_empty": (Response, {"input": "Hi"}, [], "stop"),
}


def stats(finish):
    stop = finish if finish == "!" else None
    return Stats(finish_reason="stop" if stop else finish, stop_string=stop, **TOLD)


def exchanged(name):
    """The exchange of a name at its end, and the bytes of its stream."""
    make, body, pieces, finish = STREAMS[name]
    exchange = make(body, "0", 1700000000)
    said = exchange.answered
    said.model, said.prompt_tokens, said.cached_tokens = "m", 12, 10
    events = exchange.begin()
    for piece, logprobs in pieces:
        events += exchange.piece(piece, logprobs)
    said.end(stats(finish))
    return exchange, b"".join(map(encoded, [*events, *exchange.end(), *exchange.closing()]))


@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_as_they_were(name):
    exchange, stream = exchanged(name)
    body = json.dumps(exchange.whole(), ensure_ascii=False, indent=1).encode()
    assert stream + body + b"\n" == (DATA / "event_streams" / f"{name}.txt").read_bytes().replace(b"\r\n", b"\n")


CHOICES = {
    "chat_choices": (ChatCompletion, {**CHAT, "n": 2, "stream_options": {"include_usage": True}}),
    "completion_choices": (Completion, {"prompt": "Hi", "n": 2, "stream_options": {"include_usage": True}}),
}


@pytest.mark.parametrize("name", CHOICES)
def test_several_answers_to_a_request(name):
    make, body = CHOICES[name]
    exchange, events = make(body, "0", 1700000000), []
    for part, count in zip(exchange.parts, (10, 12), strict=True):
        said = part.answered
        said.model, said.prompt_tokens, said.cached_tokens = "m", 12, count
        events += part.begin()
    for number, text in ((0, "Hel"), (1, "Good"), (1, " day"), (0, "lo")):
        events += exchange.parts[number].piece(text, [])
    for number, finish in ((1, "length"), (0, "stop")):
        exchange.parts[number].answered.end(
            Stats(finish_reason=finish, prompt_tokens=12, prefilled_tokens=2, new_tokens=9)
        )
        events += exchange.parts[number].end()
    stream = b"".join(map(encoded, [*events, *exchange.closing()]))
    whole = json.dumps(exchange.whole(), ensure_ascii=False, indent=1).encode()
    assert stream + whole + b"\n" == (DATA / "event_streams" / f"{name}.txt").read_bytes().replace(b"\r\n", b"\n")


def test_each_answer_has_the_next_seed():
    assert [part.question.options.get("seed") for part in ChatCompletion({**CHAT, "n": 3}, "0", 0).parts] == [None] * 3
    some = ChatCompletion({**CHAT, "n": 3, "seed": 2**64 - 2}, "0", 0).parts
    assert [part.question.options["seed"] for part in some] == [2**64 - 2, 2**64 - 1, 0]
    assert all(part.question.options["again"] for part in some)
    (one,) = ChatCompletion({**CHAT, "n": 1}, "0", 0).parts
    assert "again" not in one.question.options


@pytest.mark.parametrize("name", ["chat_text", "completion", "message_text", "response_text"])
def test_an_error_in_the_midst(name):
    exchange, _ = exchanged(name)
    told = encoded(exchange.failed(UsageError("the disk is gone", "find it"))).decode()
    assert "the disk is gone (find it)" in told
    assert told.startswith({"m": "event: error\n", "r": "event: response.failed\n"}.get(name[0], "data: {"))


def test_a_comment_is_one_line():
    assert comment("reading 1,800 tokens:\n\n45%") == b": reading 1,800 tokens: 45%\n\n"
