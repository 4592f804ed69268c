"""Files of tools: lists as JSON, functions as Python; what is wrong with them is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qcli.errors import UsageError
from qcli.tools import grammars
from qcli.tools.arguments import parsed_json, problem_with, settled, value_of
from qcli.tools.call import ToolCall, checked_call
from qcli.tools.notation import Notation
from qcli.tools.tool import checked_tools
from qcli.tools.tools_file import read_tools

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LISTED = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": CITY}}
PYTHON = '''
"""Tools."""
import sys
from typing import Annotated, Literal, Optional
sys.exit("ran")

def now(zone: str = "UTC", *, style: Literal["long", "short"] = "long") -> str:
    """Read the clock.

    In one time zone.

    Args:
        zone: a name such as
            Europe/Zurich
        style (str): how to write it: "short" has no date
    Returns:
        the time: as text
    """

def add(numbers: list[float], to: "int | None" = None, note: Annotated[str, "why"] = _DEFAULT) -> float:
    """Add.

    :param numbers: what to add
    """

def _helper(x): ...
'''


def tools(tmp_path: Path, text: str, name: str = "tools.py") -> Any:
    (tmp_path / name).write_text(text, "utf-8")
    return read_tools(tmp_path / name)


def test_functions_of_a_file_are_read_and_nothing_runs(tmp_path: Path) -> None:
    read = tools(tmp_path, PYTHON)
    now, add = read.tools
    assert read.functions == (tmp_path / "tools.py")
    assert (now.name, now.description) == ("now", "Read the clock.\n\nIn one time zone.")
    zone = {"type": "string", "description": "a name such as Europe/Zurich", "default": "UTC"}
    style = {"type": "string", "enum": ["long", "short"], "default": "long"}
    style["description"] = 'how to write it: "short" has no date'
    assert now.parameters == {"type": "object", "properties": {"zone": zone, "style": style}}
    assert add.properties == {
        "numbers": {"type": "array", "items": {"type": "number"}, "description": "what to add"},
        "to": {"type": ["integer", "null"]},
        "note": {"type": "string", "description": "why"},
    }
    assert add.required == ["numbers"]


def test_a_list_is_read(tmp_path: Path) -> None:
    read = tools(tmp_path, json.dumps([LISTED]), "tools.json")
    assert (read.functions, read.tools.listed) == (None, [LISTED])
    assert checked_tools([LISTED["function"]]) == read.tools
    assert checked_tools([{"name": "now"}]).listed[0]["function"]["parameters"] == {"type": "object", "properties": {}}


F = 'def f(x: {}):\n    """Do."""\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:", "tools.py:1: is not Python"),
        ("x = 1", "no function that could be a tool"),
        ("def f(x: int): ...", "tools.py:1: f has no docstring"),
        (F.replace(": {}", ""), "f: x has no type"),
        (F.format("Path"), "x has the type Path"),
        (F.format("dict[int, str]"), "x has the type dict[int, str]"),
        (F.format("Literal[open]"), "x has the type Literal[open]"),
        (F.format("'int |'"), "x has the type int |"),
        (F.replace("x: {}", "*x"), "takes arguments without names"),
        ("async " + F.format("int"), "f is async"),
        (F.format("int") * 2, "two tools are called f"),
        (F.format("(" * 5000 + ")" * 5000), "tools.py"),
    ],
)
def test_a_python_file_that_is_no_file_of_tools(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        tools(tmp_path, text)
    assert said in refused.value.message
    assert refused.value.hint
    assert "\n" not in str(refused.value)


DEEP: dict[str, Any] = {}
for _ in range(40):
    DEEP = {"items": DEEP}


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ({}, "no list of tools"),
        ([], "no tool in the list"),
        ([3], "tool 1 is 3"),
        ([{"type": "retrieval", "function": {}}], "of the type 'retrieval'"),
        ([{"name": "a b"}], "cannot be called 'a b'"),
        ([{"name": "f", "description": 3}], "description of f"),
        ([{"name": "f", "parameters": []}], "parameters of f"),
        ([{"name": "f", "parameters": {"type": "string"}}], "no object with properties"),
        ([{"name": "f", "parameters": {"properties": {"x": 1}}}], "x is 1"),
        ([{"name": "f", "parameters": {"required": ["y"]}}], "require y"),
        ([{"name": "f", "parameters": {"properties": {"x": DEEP}}}], "levels deep"),
        ([{"name": f"f{n}"} for n in range(200)], "200 tools"),
        ([{"name": "f", "description": "x" * 300_000}], "characters as JSON"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, listed: Any, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        tools(tmp_path, json.dumps(listed), "list.json")
    assert "list.json: " in refused.value.message
    assert said in refused.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, data in {
        "no.json": None,
        "broken.json": b"[\n{",
        "binary.json": b"\xff\xfe",
        "deep.json": b"[" * 99_999,
    }.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=name):
            read_tools(tmp_path / name)
    with pytest.raises(UsageError, match="is no file"):
        read_tools(tmp_path)


def test_calls_as_programs_write_them() -> None:
    call = ToolCall("weather", {"city": "Zürich"}, "abc")
    assert checked_call(call.listed()) == call == '{"name": "weather", "arguments": {"city": "Zürich"}}'
    assert checked_call({"function": {"name": "now", "arguments": ""}}).arguments == {}
    assert len(ToolCall("now", {}).id) == 9
    refused: list[Any] = [3, {"function": {}}, {"name": "f", "arguments": "[1]"}, {"name": "f", "arguments": "{"}]
    for wrong in refused:
        with pytest.raises(UsageError):
            checked_call(wrong)


def test_values_without_quotes() -> None:
    for text, schema, value in [
        ("3", {"type": "string"}, "3"),
        ("3", {"type": "integer"}, 3),
        ("null", {"type": ["string", "null"]}, None),
        ("[1]", {}, [1]),
        ('"x"', {}, '"x"'),
        ("True", {"type": "boolean"}, True),
        ("soon", {"type": "integer"}, "soon"),
        ("1", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "1"),
        ("b", {"enum": ["a", "b"]}, "b"),
    ]:
        assert value_of(text, schema) == value


def test_what_is_wrong_with_a_call() -> None:
    (tool,) = checked_tools(
        [{"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}]
    )
    assert settled(tool, {"n": 2.0}) == {"n": 2}
    assert problem_with(tool, {"n": 2}) == ""
    assert problem_with(tool, {}) == "f needs the argument n"
    assert problem_with(tool, {"n": 1, "m": 1}) == "f has no argument m: it takes n"
    assert problem_with(tool, {"n": True}) == "n of f is of the type integer, not True"


def test_schemas_of_strangers_do_no_harm() -> None:
    """What is odd in them is let go, or refused in a line."""
    for odd in (
        {"type": 5},
        {"anyOf": 3},
        {"type": "integer", "minimum": "x"},
        {"enum": 1},
        {"items": 2},
        {"oneOf": [1]},
    ):
        (tool,) = checked_tools([{"name": "f", "parameters": {"properties": {"x": odd}}}])
        assert settled(tool, {"x": [1.0]}) == {"x": [1.0]}
        problem_with(tool, {"x": 1})
        grammars.arguments(tool)
        grammars.whole_call(Notation("xml", "<tool_call>", "</tool_call>"), [tool])
    with pytest.raises(UsageError, match="require"):
        checked_tools([{"name": "f", "parameters": {"required": [[1]]}}])
    for text in ("1e999", "[" * 100 + "]" * 100, "NaN"):
        with pytest.raises(ValueError, match=r"too|JSON"):
            parsed_json(text)
