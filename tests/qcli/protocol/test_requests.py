"""What requests ask, and those that cannot be meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qcli.errors import ContextOverflowError, ModelNotFoundError, QcliError
from qcli.protocol import body
from qcli.protocol.chat_completions import ChatCompletion
from qcli.protocol.completions import Completion
from qcli.protocol.errors import RequestError, anthropic_error, openai_error, status_of
from qcli.protocol.messages import Message
from qcli.protocol.responses import Response

ASKED = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FUNCTION = {"name": "now", "description": "Tells the time.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]


def chat(**given: Any) -> Any:
    return ChatCompletion({"messages": ASKED, **given}, "0", 0).question


def message(**given: Any) -> Any:
    return Message({"max_tokens": 9, "messages": ASKED, **given}, "0", 0).question


def response(**given: Any) -> Any:
    return Response({"input": "Hi", **given}, "0", 0).question


def text(**given: Any) -> Any:
    return Completion({"prompt": "Hi", **given}, "0", 0).question


def test_options_of_a_chat():
    asked = chat(
        model="m", max_tokens=3, max_completion_tokens=5, temperature=0.5, top_p=1, top_k=3, seed=-1, stop="a",
        presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.1, logprobs=True, top_logprobs=2, n=1,
        reasoning_effort="xhigh", parallel_tool_calls=False, user="me", store=True, logit_bias={}, metadata=None,
    )  # fmt: skip
    assert asked.options == {
        "max_tokens": 5, "temperature": 0.5, "top_p": 1, "top_k": 3, "seed": 2**64 - 1, "stop": ["a"],
        "presence_penalty": 1, "frequency_penalty": -1, "repeat_penalty": 1.1, "logprobs": 2, "think": "high",
        "stop_loops": True,
    }  # fmt: skip
    assert (asked.model, asked.wish, asked.one_call) == ("m", True, True)
    assert chat(think=500).options["think"] == 500
    assert not chat(think="on").wish
    assert chat(chat_template_kwargs={"enable_thinking": False}).options["think"] == "off"
    assert chat(reasoning_effort="none").options["think"] == "off"
    assert "think" not in chat().options


def test_forms_and_tools():
    assert chat(response_format={"type": "json_object"}).options["constraint"].is_json
    held = chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}})
    form = {"type": "json_schema", "schema": SCHEMA}
    for asked in (response(text={"format": form}), message(output_config={"format": form})):
        assert asked.options["constraint"] == held.options["constraint"]
    assert "constraint" not in chat(response_format={"type": "text"}).options
    for asked in (
        chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "now"}}),
        response(tools=[{"type": "function", **FUNCTION}], tool_choice={"type": "function", "name": "now"}),
        message(tools=[{"name": "now", "description": "Tells the time.", "input_schema": SCHEMA}],
                tool_choice={"type": "tool", "name": "now"}),
    ):  # fmt: skip
        assert asked.options["tool_choice"] == "now"
        assert asked.options["tools"].listed == TOOLS
    assert "tools" not in chat(tools=[], tool_choice="auto").options
    any_of = {"type": "any", "disable_parallel_tool_use": True}
    asked = message(tools=[{"name": "now"}], tool_choice=any_of)
    assert (asked.options["tool_choice"], asked.one_call) == ("required", True)


def test_conversations_of_chats():
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": '{"a": 1}'}}
    asked = chat(
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm.", "refusal": None},
            {"role": "tool", "tool_call_id": "c", "content": "noon"},
        ]
    )
    system, user, assistant, tool = asked.prompt
    assert system == {"role": "system", "content": "Be kind.\n\nBe brief."}
    assert user == {"role": "user", "content": "a\nb"}
    assert assistant["reasoning_content"] == "Hm."
    assert (assistant["tool_calls"][0].id, assistant["tool_calls"][0].arguments) == ("c", {"a": 1})
    assert tool == {"role": "tool", "content": "noon", "tool_call_id": "c", "name": "now"}


def test_conversations_of_messages():
    asked = message(
        system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "c", "name": "now", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "no"}], "is_error": True},
                {"type": "tool_result", "tool_use_id": "d"},
                {"type": "text", "text": "Well?"},
            ]},
            {"role": "assistant", "content": "It is"},
        ],
    )  # fmt: skip
    system, user, assistant, first, second, more = asked.prompt
    assert (system, user) == ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "a\n\nb"})
    assert (assistant["content"], assistant["reasoning_content"]) == ("Let me see.", "Hm.")
    assert assistant["tool_calls"][0].listed()["function"] == {"name": "now", "arguments": '{"a": 1}'}
    assert first == {"role": "tool", "tool_call_id": "c", "content": "Error: no", "name": "now"}
    assert second == {"role": "tool", "tool_call_id": "d", "content": ""}
    assert more == {"role": "user", "content": "Well?"}
    assert asked.begun == "It is"


def test_how_much_a_message_thinks():
    for given, think in [
        ({}, "off"),
        ({"thinking": {"type": "disabled"}}, "off"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, 1024),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "high"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "on"),
    ]:
        assert message(**given).options["think"] == think
    assert not Message({"max_tokens": 1, "messages": ASKED, "thinking": {"type": "adaptive", "display": "omitted"}},
                       "0", 0).reasoning  # fmt: skip


def test_conversations_of_responses():
    asked = response(
        instructions="Be kind.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
            {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "noon"},
            {"type": "function_call", "call_id": "d", "name": "now", "arguments": "{}"},
        ],
        reasoning={"effort": "low"},
    )
    system, user, assistant, tool, second = asked.prompt
    assert system["content"] == "Be kind."
    assert (user["content"], assistant["content"], tool["tool_call_id"]) == ("a", "b", "c")
    assert [call.id for call in assistant["tool_calls"]] == ["c"]
    assert (second["content"], second["tool_calls"][0].id) == ("", "d")
    assert asked.options["think"] == "low"


USE = {"type": "tool_use", "id": "a", "name": "b", "input": {}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def schema(given: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": given}}}


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (chat, {"messages": None}, "messages is empty"),
    (chat, {"messages": "Hi"}, "messages cannot be 'Hi'"),
    (chat, {"messages": ["Hi"]}, "messages[0] cannot be 'Hi'"),
    (chat, {"messages": [{"content": "Hi"}]}, "messages[0].role is missing"),
    (chat, {"messages": [{"role": "god", "content": "Hi"}]}, "messages[0].role cannot be 'god'"),
    (chat, {"messages": [{"role": ["user"], "content": "Hi"}]}, "messages[0].role cannot be ['user']"),
    (chat, {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    (chat, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part that is no text: 'image_url'"),
    (chat, {"messages": [{"role": "assistant", "tool_calls": [{"function": 3}]}]}, "is no tool call"),
    (chat, {"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls cannot be {}"),
    (chat, {"messages": ASKED * 10_001}, "messages has 10,001 entries"),
    (chat, {"n": 33}, "n cannot be 33"),
    (text, {"n": 0}, "n cannot be 0"),
    (chat, {"n": 10**30}, "n cannot be 1000"),
    (chat, {"n": True}, "n cannot be true"),
    (chat, {"temperature": "hot"}, "temperature cannot be hot"),
    (chat, {"temperature": -1}, "temperature cannot be -1"),
    (chat, {"temperature": True}, "temperature cannot be True"),
    (chat, {"temperature": 10**400}, "temperature cannot be 1000"),
    (chat, {"top_p": 2}, "top_p cannot be 2"),
    (chat, {"top_k": 1.5}, "top_k cannot be 1.5"),
    (chat, {"max_tokens": 0}, "max_tokens cannot be 0"),
    (chat, {"max_tokens": 1.5}, "max_tokens cannot be 1.5"),
    (chat, {"max_completion_tokens": "9"}, "max_completion_tokens cannot be '9'"),
    (chat, {"seed": 2**65}, "seed cannot be"),
    (chat, {"stop": [""]}, "stop cannot be ['']"),
    (chat, {"stop": ["a"] * 17}, "stop cannot be"),
    (chat, {"stop": {"a": 1}}, "stop cannot be {'a': 1}"),
    (chat, {"stream": "yes"}, "stream cannot be 'yes'"),
    (chat, {"stream_options": []}, "stream_options cannot be []"),
    (chat, {"top_logprobs": 3}, "top_logprobs needs logprobs"),
    (chat, {"logprobs": True, "top_logprobs": 21}, "top_logprobs cannot be 21"),
    (chat, {"logit_bias": {"1": 2}}, "logit_bias is not supported"),
    (chat, {"functions": [FUNCTION]}, "functions is not supported"),
    (chat, {"model": 3}, "model cannot be 3"),
    (chat, {"response_format": "json"}, "response_format cannot be 'json'"),
    (chat, {"response_format": {}}, "response_format.type is missing"),
    (chat, {"response_format": {"type": "xml"}}, "response_format.type cannot be 'xml'"),
    (chat, {"response_format": {"type": "json_schema"}}, "response_format.schema is missing"),
    (chat, schema("/etc/passwd"), "cannot be '/etc/passwd'"),
    (chat, schema({"type": "sting"}), "sting is none of the types"),
    (chat, {"tools": {"a": 1}}, "is no list of tools"),
    (chat, {"tools": [3]}, "tool 1 is 3"),
    (chat, {"tools": TOOLS, "tool_choice": "rm"}, "tool_choice cannot be rm"),
    (chat, {"tools": TOOLS, "tool_choice": 3}, "tool_choice cannot be 3"),
    (chat, {"tool_choice": "required"}, "tool_choice cannot be 'required'"),
    (chat, {"reasoning_effort": "huge"}, "the effort cannot be 'huge'"),
    (chat, {"think": "much"}, "think cannot be much"),
    (text, {"prompt": None}, "prompt is missing"),
    (text, {"prompt": ""}, "prompt is empty"),
    (text, {"prompt": ["a", "b"]}, "prompt cannot be ['a', 'b']"),
    (text, {"prompt": [1, 2]}, "prompt cannot be [1, 2]"),
    (text, {"logprobs": 21}, "logprobs cannot be 21"),
    (text, {"echo": True}, "echo is not supported"),
    (text, {"best_of": 3}, "best_of is not supported"),
    (message, {"max_tokens": None}, "max_tokens is missing"),
    (message, {"messages": []}, "messages is empty"),
    (message, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].type cannot be 'image'"),
    (message, {"messages": [*ASKED, {"role": "assistant", "content": [USE]}]}, "nothing answers it"),
    (message, {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id is missing"),
    (message, {"system": 3}, "system cannot be 3"),
    (message, {"system": [{"type": "image"}]}, "system[0].type cannot be 'image'"),
    (message, {"tools": [SEARCH]}, "tools[0].type cannot be 'web_search_20250305'"),
    (message, {"tools": [{"name": "a b"}]}, "cannot be called 'a b'"),
    (message, {"tools": [{"name": "a"}], "tool_choice": {"type": "tool", "name": "b"}}, "tool_choice.name cannot be 'b'"),
    (message, {"tools": [{"name": "a"}], "tool_choice": {"type": "some"}}, "tool_choice.type cannot be 'some'"),
    (message, {"tool_choice": {"type": "any"}}, "there are none"),
    (message, {"thinking": {}}, "thinking.type is missing"),
    (message, {"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens cannot be 0"),
    (message, {"stop_sequences": [1]}, "stop_sequences cannot be [1]"),
    (response, {"input": None}, "input is missing"),
    (response, {"input": []}, "input cannot be []"),
    (response, {"input": [{"type": "item_reference"}]}, "input[0].type cannot be 'item_reference'"),
    (response, {"input": [{"type": "function_call", "call_id": "a", "name": "b", "arguments": "{"}]}, "are no JSON object"),
    (response, {"previous_response_id": "a"}, "previous_response_id is not supported"),
    (response, {"background": True}, "background is not supported"),
    (response, {"tools": [{"type": "web_search"}]}, "tools[0].type cannot be 'web_search'"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "given", "why"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_requests_that_cannot_be_meant(ask, given, why):
    with pytest.raises(RequestError) as caught:
        ask(**given)
    assert why in caught.value.message
    assert len(str(caught.value)) < 600
    assert status_of(caught.value) == 400


HOSTILE = [
    b"", b"nonsense", b"[1]", b"null", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b"\xff\xfe{}", b"{" * 100_000,
    b'{"a":' * 100_000, b"[" * 1_000_000, b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", b'{"a": ' + b"1" * 5000 + b"}",
    b'{"a": "\\ud800"}', b'{"\\udc00": 1}', '{"a": "\ufdd0"}'.encode(), b'{"a": "\\ufdd1"}', b'{"a": 1}' + b" " * (9 << 20),
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies(data):
    with pytest.raises(RequestError) as caught:
        body.parsed(data)
    assert status_of(caught.value) == (413 if len(data) > 8 << 20 else 400)
    assert len(str(caught.value)) < 400


def test_bodies_of_anything_but_what_is_wanted():
    """Each field of a request that is right is replaced by a value of each other type: an error of ours, or an answer."""
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1.5,
        10**40,
        "",
        "x" * 3000,
        [],
        [[]],
        [None],
        {},
        {"type": []},
        {"type": "function"},
    ]
    good: dict[Any, dict[str, Any]] = {
        chat: {"messages": ASKED, "tools": TOOLS, "tool_choice": "auto", "response_format": {"type": "text"},
               "stop": "a", "stream_options": {}, "seed": 1, "reasoning_effort": "low", "logit_bias": {},
               "chat_template_kwargs": {}, "parallel_tool_calls": True, "modalities": ["text"]},
        text: {"prompt": "a", "logprobs": 1, "suffix": "", "stop": ["a"]},
        message: {"messages": ASKED, "system": "a", "tools": [{"name": "a"}], "tool_choice": {"type": "auto"},
                  "thinking": {"type": "adaptive"}, "output_config": {}, "stop_sequences": [], "metadata": {}},
        response: {"input": ASKED, "instructions": "a", "tools": [], "text": {}, "reasoning": {}, "tool_choice": "auto"},
    }  # fmt: skip
    answered = refused = 0
    for ask, fields in good.items():
        for name, right in fields.items():
            first = right[0] if isinstance(right, list) and right else None
            inside = [{**right, key: value} for key in right for value in values] if isinstance(right, dict) else []
            parts = [[{**first, key: value}] for key in first for value in values] if isinstance(first, dict) else []
            for value in (*values, *inside, *parts):
                try:
                    ask(**{**fields, name: value})
                    answered += 1
                except RequestError as problem:
                    refused += 1
                    json.dumps(openai_error(problem))
    assert answered > 50
    assert refused > 200


def test_errors_in_the_shape_of_each_protocol():
    problem = RequestError("n cannot be 2", "give 1", param="n")
    assert openai_error(problem) == {
        "error": {"message": "n cannot be 2 (give 1)", "type": "invalid_request_error", "param": "n", "code": None}
    }
    assert anthropic_error(problem) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "n cannot be 2 (give 1)"},
    }
    for error, status, kind, other, code in [
        (RequestError("a", status=413), 413, "invalid_request_error", "request_too_large", None),
        (RequestError("a", status=429), 429, "rate_limit_error", "rate_limit_error", None),
        (ModelNotFoundError("a"), 404, "not_found_error", "not_found_error", "model_not_found"),
        (ContextOverflowError("a"), 400, "invalid_request_error", "invalid_request_error", "context_length_exceeded"),
        (QcliError("a"), 500, "server_error", "api_error", None),
        (RequestError("a", status=503), 503, "server_error", "overloaded_error", None),
    ]:
        assert status_of(error) == status
        assert (openai_error(error)["error"]["type"], openai_error(error)["error"]["code"]) == (kind, code)
        assert anthropic_error(error)["error"]["type"] == other
