"""A call: what a model asks a tool for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from string import ascii_letters, digits
from typing import Any, Final

from qcli.errors import UsageError
from qcli.wording import shortened

_LETTERS: Final = ascii_letters + digits
_ID = 9  # letters: Mistral's templates take no other


class ToolCall(str):
    """A piece of an answer that is a whole call; as text, {"name": …, "arguments": …}."""

    name: str
    arguments: dict[str, Any]
    id: str

    def __new__(cls, name: str, arguments: Mapping[str, Any], id: str = "") -> ToolCall:
        """id: what the result is given by; one is made up if there is none."""
        made = super().__new__(cls, json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False))
        made.name, made.arguments = name, {**arguments}
        made.id = id or "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(_ID))
        return made

    @property
    def shown(self) -> str:
        """The call as Python writes it."""
        arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.arguments.items())
        return f"{self.name}({', '.join(arguments)})"

    def listed(self) -> dict[str, Any]:
        """The call as OpenAI's clients read it: its arguments are JSON in a text."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


class MalformedCall(str):
    """A piece of an answer that began as a call and is none: cut short, or against its notation; as the model wrote it."""


def checked_call(listed: Any) -> ToolCall:
    """A call of a message as programs write it, its arguments a table or JSON in a text. Raises UsageError."""
    form = '{"id": "…", "type": "function", "function": {"name": "…", "arguments": "{…}"}}'
    if isinstance(listed, ToolCall):
        return listed
    function = listed.get("function", listed) if isinstance(listed, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str):
        raise UsageError(f"{shortened(repr(listed))} is no tool call", f"a call is {form}")
    arguments, id = function.get("arguments", {}), listed.get("id", "")
    try:
        arguments = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, Mapping) or not isinstance(id or "", str):
        raise UsageError(f"the arguments of the call of {shortened(name)} are no JSON object", f"a call is {form}")
    return ToolCall(name, arguments, id or "")
