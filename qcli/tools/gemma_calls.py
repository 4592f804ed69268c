"""Calls as Gemma 4 writes them: call:NAME{key:value,…}, texts between <|"|> and <|"|>, which is a token of its own.

Objects and lists are in brackets, as in JSON, but with bare keys and without spaces; numbers, true, false and null stand for
themselves (ai.google.dev/gemma/docs/core/prompt-formatting-gemma4).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from qcli.tools.arguments import types_of, value_of
from qcli.tools.bodies import Body, Read
from qcli.tools.call import ToolCall

QUOTE: Final = '<|"|>'
_BEGIN: Final = "call:"
_HEAD: Final = re.compile(r"\s*call:([\w.-]+)\s*\{")
_BARE: Final = re.compile(r"[^,{}\[\]<]*")
_KEY: Final = re.compile(r"\s*([^:,{}\[\]<\"]+?)\s*:")
_DEEPEST: Final = 64


def written(call: ToolCall) -> str:
    """A call as the model writes it, without its markers; keys in the order of chat templates."""
    return f"{_BEGIN}{call.name}{_value(call.arguments)}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f"{QUOTE}{value}{QUOTE}"
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: pair[0].lower())
        return "{" + ",".join(f"{key}:{_value(part)}" for key, part in pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


class GemmaBody(Body):
    """One call, up to the marker after it."""

    _END = "<tool_call|>"

    def _pushed(self, text: str) -> Read | None:
        begun = self._text.lstrip()
        if not begun.startswith(_BEGIN):
            return None if _BEGIN.startswith(begun) else self._none()
        at = self._text.find(self._END, max(0, len(self._text) - len(text) - len(self._END)))
        while at >= 0 and self._text.count(QUOTE, 0, at) % 2:  # within a text
            at = self._text.find(self._END, at + 1)
        return None if at < 0 else self._call(at)

    def flush(self) -> Read | None:
        """The call, if it is whole but for the marker."""
        return self._call(len(self._text)) if self._text.strip() else None

    def _call(self, end: int) -> Read:
        head = _HEAD.match(self._text)
        if not head:
            return self._broken()
        tool = self._tools.get(head[1])
        try:
            reader = _Reader(self._text[head.end() : end])
            arguments = reader.members(tool.properties if tool else {})
            reader.finish()
        except ValueError:
            return self._broken()
        return self._made([(head[1], arguments, "")], end)


class _Reader:
    """Reads values one after the other; raises ValueError for what is none."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0

    def members(self, schemas: Mapping[str, Any]) -> dict[str, Any]:
        """Keys and values up to the bracket that closes them; schemas: of the values, by their keys."""
        self._deeper()
        found: dict[str, Any] = {}
        while not self._take("}"):
            if found and not self._take(","):
                raise ValueError("no comma")
            key = self._key()
            found[key] = self._value(schemas.get(key, {}))
        self._depth -= 1
        return found

    def finish(self) -> None:
        """Nothing may follow."""
        if self._text[self._at :].strip():
            raise ValueError("more than a call")

    def _items(self) -> list[Any]:
        self._deeper()
        found: list[Any] = []
        while not self._take("]"):
            if found and not self._take(","):
                raise ValueError("no comma")
            found.append(self._value({}))
        self._depth -= 1
        return found

    def _key(self) -> str:
        quoted = self._quoted()
        if quoted is not None:
            if not self._take(":"):
                raise ValueError("no value")
            return quoted
        key = _KEY.match(self._text, self._at)
        if not key:
            raise ValueError("no key")
        self._at = key.end()
        return key[1]

    def _value(self, schema: Mapping[str, Any]) -> Any:
        if self._take("{"):
            return self.members({})
        if self._take("["):
            return self._items()
        quoted = self._quoted()
        if quoted is not None:
            return value_of(quoted, schema) if types_of(schema) else quoted
        bare = _BARE.match(self._text, self._at)
        if not bare or not bare[0].strip():
            raise ValueError("no value")
        self._at = bare.end()
        return value_of(bare[0].strip(), schema)

    def _quoted(self) -> str | None:
        """A text between quotes of either kind; None if none begins."""
        if self._take(QUOTE):
            end = self._text.find(QUOTE, self._at)
            if end < 0:
                raise ValueError("a text without end")
            begin, self._at = self._at, end + len(QUOTE)
            return self._text[begin:end]
        if self._text.startswith('"', self._at):
            found, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
            return str(found)
        return None

    def _take(self, sign: str) -> bool:
        """Go past a sign, and white space before it, if it comes next."""
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        found = self._text.startswith(sign, self._at)
        self._at += len(sign) if found else 0
        return found

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("too deep")
