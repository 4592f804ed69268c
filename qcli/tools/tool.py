"""What a tool is: a function that a model may ask for, listed as OpenAI's clients list it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from qcli.errors import UsageError
from qcli.wording import shortened

_FORM: Final = 'a tool is {"type": "function", "function": {"name": "…", "description": "…", "parameters": {…}}}'
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MOST = 128  # tools: more than any model chooses well between
_LARGEST = 1 << 18  # characters of all of them as JSON: some 64,000 tokens
DEEPEST: Final = 32  # lists and tables within each other


@dataclass(frozen=True)
class Tool:
    """A function that a model may ask for; parameters: a JSON schema of an object, whose properties are its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]

    @property
    def properties(self) -> dict[str, Any]:
        """The schema of each argument."""
        found = self.parameters.get("properties")
        return found if isinstance(found, dict) else {}

    @property
    def required(self) -> list[str]:
        """The arguments that no call may leave out."""
        return [name for name in self.parameters.get("required", ()) if isinstance(name, str)]

    def listed(self) -> dict[str, Any]:
        """The tool as OpenAI's clients list it, and chat templates read it."""
        described = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": described}


class Tools:
    """The tools of a conversation, in their order; equal to others that are listed alike."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Raises UsageError for none, for too many, for two of one name."""
        self._tools = {tool.name: tool for tool in tools}
        if not tools:
            raise UsageError("there is no tool in the list", "list one, or leave the tools out")
        if len(tools) > _MOST:
            raise UsageError(f"{len(tools)} tools are too many", f"give at most {_MOST}")
        names = [tool.name for tool in tools]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise UsageError(f"two tools are called {twice}", "give each a name of its own")
        if len(self.text) > _LARGEST:
            raise UsageError(f"the tools have {len(self.text):,} characters as JSON", f"give at most {_LARGEST:,}")

    @cached_property
    def listed(self) -> list[dict[str, Any]]:
        """The list, as chat templates read it."""
        return [tool.listed() for tool in self]

    @cached_property
    def text(self) -> str:
        """The list as JSON."""
        return json.dumps(self.listed, ensure_ascii=False)

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return [*self._tools]

    def get(self, name: str) -> Tool | None:
        """The tool of this name."""
        return self._tools.get(name)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tools) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def checked_tools(listed: Any) -> Tools:
    """Tools of a list as OpenAI's clients write it; a tool may also stand there without the table around it.

    Raises UsageError for anything else.
    """
    if isinstance(listed, Tools):
        return listed
    if not isinstance(listed, list | tuple):
        raise UsageError(f"{shortened(repr(listed))} is no list of tools", _FORM)
    return Tools([_tool(entry, f"tool {number}") for number, entry in enumerate(listed, 1)])


def _tool(entry: Any, called: str) -> Tool:
    if isinstance(entry, Mapping) and "function" in entry:
        if entry.get("type", "function") != "function":
            raise UsageError(f"{called} is of the type {entry['type']!r:.40}", "function is the only one that is known")
        entry = entry["function"]
    if not isinstance(entry, Mapping):
        raise UsageError(f"{called} is {shortened(repr(entry))}", _FORM)
    name = entry.get("name")
    if name is None:
        raise UsageError(f"{called} has no name", _FORM)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        hint = "a name has at most 64 letters, digits and _ . -, the first of them a letter or _"
        raise UsageError(f"{called} cannot be called {shortened(repr(name))}", hint)
    description = entry.get("description", "")
    if not isinstance(description, str):
        raise UsageError(f"the description of {name} is {shortened(repr(description))}", "give a text")
    return Tool(name, description, _parameters(name, entry.get("parameters")))


def _parameters(name: str, given: Any) -> dict[str, Any]:
    """The JSON schema of a tool's arguments, as plain lists and tables."""
    if given is None:
        return {"type": "object", "properties": {}}
    what = f"the parameters of {name}"
    hint = 'give a JSON schema such as {"type": "object", "properties": {"city": {"type": "string"}}}'
    if not isinstance(given, Mapping):
        raise UsageError(f"{what} are {shortened(repr(given))}", hint)
    try:
        schema: dict[str, Any] = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as problem:
        raise UsageError(f"{what} are not JSON: {shortened(str(problem))}", hint) from None
    if depth_of(schema, DEEPEST) > DEEPEST:
        raise UsageError(f"{what} are more than {DEEPEST} levels deep", "give fewer levels")
    schema = {"type": "object", **schema}
    properties, required = schema.setdefault("properties", {}), schema.get("required", [])
    if schema["type"] != "object" or not isinstance(properties, dict):
        raise UsageError(f"{what} are no object with properties", hint)
    for argument, described in properties.items():
        if not isinstance(described, dict):
            raise UsageError(f"{what}: {shortened(argument)} is {shortened(repr(described))}", hint)
    missing = (
        [part for part in required if not isinstance(part, str) or part not in properties]
        if isinstance(required, list)
        else [required]
    )
    if missing:
        raise UsageError(f"{what} require {shortened(str(missing[0]))}, which is none of them", hint)
    return schema


def depth_of(value: Any, most: int) -> int:
    """How many lists and tables are within each other; of more than `most`, so many and one."""
    level, depth = [value], 0
    while level and depth <= most:
        level = [
            part
            for inner in level
            if isinstance(inner, dict | list)
            for part in (inner.values() if isinstance(inner, dict) else inner)
        ]
        depth += 1
    return depth
