"""Several answers to one request (n): the prompt is read once, each answer is what it is alone, errors are told once."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from served import serving

from qcli import LLM
from qcli.serving.several_at_a_time import SeveralAtATime

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
RULES = "You tell stories about animals that live by the sea, and you are kind. " * 8
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "system", "content": RULES}, {"role": "user", "content": "Tell me of a fox."}]},
    TEXT: {"prompt": RULES + "Once upon a time"},
}


@pytest.fixture(scope="module", params=[4, 1])
def answers(request):
    """Side by side, and one at a time."""
    made = SeveralAtATime(lambda name, progress: LLM(threads=2, ctx=512, progress=progress), 8, request.param)
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(answers):
    with serving(answers) as client:
        yield client


def counts(client):
    told = client.ask("/metrics").data.decode()
    return [
        float(re.findall(rf"^{name}_total (\S+)", told, re.M)[0])
        for name in ("qcli_prompt_tokens", "qcli_cached_prompt_tokens")
    ]


def texts(choices):
    return [choice.get("text") or choice["message"]["content"] for choice in choices]


@pytest.mark.parametrize("path", ASKED)
def test_the_prompt_is_read_once(client, path):
    asked = {**ASKED[path], "temperature": 1.0, "seed": 5, "max_tokens": 8}
    tokens, cached = counts(client)
    whole = client.ask(path, {**asked, "n": 6}).json
    size = whole["usage"]["prompt_tokens"]
    tokens, cached = (now - before for now, before in zip(counts(client), (tokens, cached), strict=True))
    assert tokens == 6 * size
    assert tokens - cached <= size
    assert [choice["index"] for choice in whole["choices"]] == [*range(6)]
    alone = [client.ask(path, {**asked, "seed": 5 + i}).json for i in range(6)]
    said = [text for one in alone for text in texts(one["choices"])]
    assert texts(whole["choices"]) == said
    assert len({*said}) > 3
    assert whole["usage"]["completion_tokens"] == sum(one["usage"]["completion_tokens"] for one in alone)


@pytest.mark.parametrize("path", ASKED)
def test_streams_have_all_of_them(client, path):
    asked = {**ASKED[path], "temperature": 1.0, "seed": 5, "max_tokens": 8, "n": 3}
    whole = client.ask(path, asked).json
    *events, usage, done = client.events(path, {**asked, "stream_options": {"include_usage": True}})
    said, ends = ["", "", ""], []
    for event in events:
        (choice,) = event["choices"]
        said[choice["index"]] += choice.get("text") or choice.get("delta", {}).get("content", "")
        ends += [choice["index"]] * bool(choice["finish_reason"])
    assert said == texts(whole["choices"])
    assert sorted(ends) == [0, 1, 2]
    assert usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert done == "[DONE]"


def test_an_error_is_told_once_and_frees_all_places(client, answers):
    wrong = client.ask(TEXT, {"prompt": "word " * 600, "n": 4})
    assert (wrong.status, wrong.json["error"]["code"]) == (400, "context_length_exceeded")
    streamed = client.ask(TEXT, {"prompt": "word " * 600, "n": 4, "stream": True})
    assert streamed.status == 400
    full = client.ask(TEXT, {"prompt": "word", "n": 32, "max_tokens": 2})
    assert full.status == 429
    deadline = time.monotonic() + 30
    while answers.running or answers.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_client_that_goes_away_frees_all_places(client, answers):
    connection = client.connect()
    body = '{"prompt": "Once", "n": 6, "temperature": 2.0, "stop_loops": false, "stream": true}'
    connection.request("POST", TEXT, body)
    connection.getresponse().read(20)
    connection.close()
    deadline = time.monotonic() + 30
    while answers.running or answers.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)
