"""The inside of calls as it comes, piece by piece, each notation with a reader of its own.

A reader takes text until it knows what it has: calls that are whole and what follows them; text that is certain to be no
call; or something that began as a call and is broken. How the text is cut into pieces makes no difference.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from qcli.tools.arguments import parsed_json, settled, value_of
from qcli.tools.call import ToolCall
from qcli.tools.tool import Tools

_BRACKETS: Final = re.compile(r'["\\{}\[\]]')
_NAME: Final = re.compile(r"[\w.-]+")
_FUNCTION: Final = "<function="
_PARAMETER: Final = re.compile(r"\s*<parameter=([^>\n]+)>(.*?)\n?</parameter>\s*(?=<parameter=|</function>)", re.DOTALL)
_PAIR: Final = re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_LONGEST = 1 << 20  # characters of a call


class Read(NamedTuple):
    """What a reader has found: calls, and the text after them; or nothing, and all the text."""

    kind: Literal["calls", "none", "broken"]
    calls: tuple[ToolCall, ...]
    rest: str


class Body:
    """A reader: push() and flush() return what is found, None while more has to come."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._text = ""

    @property
    def text(self) -> str:
        """What has come so far."""
        return self._text

    def push(self, text: str) -> Read | None:
        """Take more text."""
        self._text += text
        return self._broken() if len(self._text) > _LONGEST else self._pushed(text)

    def flush(self) -> Read | None:
        """What it is, now that no more text comes; None for nothing but white space."""
        return self._broken() if self._text.strip() else None

    def _pushed(self, text: str) -> Read | None:
        raise NotImplementedError

    def _none(self) -> Read:
        return Read("none", (), self._text)

    def _broken(self) -> Read:
        return Read("broken", (), self._text)

    def _arguments(self, pair: re.Pattern[str], name: str, at: int, before: str = "") -> tuple[dict[str, Any], int]:
        """The arguments of a tool that are written there one after the other, and where they end.

        pair: matches one, its name and its value; before: what stands before a value and is no part of it.
        """
        tool = self._tools.get(name)
        schemas: Mapping[str, Any] = tool.properties if tool else {}
        arguments = {}
        while found := pair.match(self._text, at):
            key = found[1].strip()
            arguments[key] = value_of(found[2].removeprefix(before), schemas.get(key, {}))
            at = found.end()
        return arguments, at

    def _made(self, calls: Sequence[tuple[str, Any, str]], end: int) -> Read:
        """Calls of names, arguments and ids, which end there."""
        made = []
        for name, arguments, id in calls:
            if not isinstance(arguments, dict):
                return self._broken()
            tool = self._tools.get(name)
            made.append(ToolCall(name, settled(tool, arguments) if tool else arguments, id))
        return Read("calls", tuple(made), self._text[end:])


class JsonBody(Body):
    """A JSON object with a name and arguments, or a list of such: Hermes, Granite, older Mistrals."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._end = JsonEnd()

    def _pushed(self, text: str) -> Read | None:
        if self._text.lstrip()[:1] not in ("", "{", "["):
            return self._none()
        end = self._end.push(text)
        if end is None:
            return None
        end += len(self._text) - len(text)
        try:
            value = parsed_json(self._text[:end])
            return self._made([_named(entry) for entry in (value if isinstance(value, list) else [value])], end)
        except ValueError:
            return self._broken()


class NamedJsonBody(Body):
    """A name and a JSON object after it, perhaps with tokens between them: Mistral since its eleventh tokenizer."""

    _HEAD = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*(\w*)\s*)?(?:\[ARGS\]\s*)?(?=\{)")
    _BEGUN = re.compile(r"\s*[\w.-]*\s*(?:\[[\w\]\s]*(?:\[\w*\]?\s*)?)?")

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._head: re.Match[str] | None = None
        self._end = JsonEnd()

    def _pushed(self, text: str) -> Read | None:
        if self._head is None:
            self._head = self._HEAD.match(self._text)
            if self._head is None:
                return None if self._BEGUN.fullmatch(self._text) and len(self._text) < 200 else self._none()
            text = self._text[self._head.end() :]
        end = self._end.push(text)
        if end is None:
            return None
        end += len(self._text) - len(text)
        try:
            return self._made(
                [(self._head[1], parsed_json(self._text[self._head.end() : end]), self._head[2] or "")], end
            )
        except ValueError:
            return self._broken()


class XmlBody(Body):
    """<function=NAME> with <parameter=NAME> for each argument, texts without quotes: Qwen3-Coder, Qwen3.5."""

    def _pushed(self, text: str) -> Read | None:
        begun = self._text.lstrip()
        if not begun.startswith(_FUNCTION):
            return None if _FUNCTION.startswith(begun) else self._none()
        if "</function>" not in self._text[-len(text) - 11 :]:
            return None
        begin = self._text.index(_FUNCTION) + len(_FUNCTION)
        name, closed, _ = self._text[begin:].partition(">")
        if not closed or not _NAME.fullmatch(name.strip()):
            return self._broken()
        return self._parameters(name.strip(), begin + len(name) + 1)

    def _parameters(self, name: str, at: int) -> Read | None:
        """The arguments from there on; None where the end that was seen belongs to a text among them."""
        arguments, at = self._arguments(_PARAMETER, name, at, before="\n")
        end = re.compile(r"\s*</function>").match(self._text, at)
        if end:
            return self._made([(name, arguments, "")], end.end())
        return None if self._text[at:].lstrip().startswith("<parameter=") else self._broken()


class PairsBody(Body):
    """A name, then <arg_key> and <arg_value> for each argument: GLM-4.5 to 4.7."""

    _END = "</tool_call>"
    _BEGUN = re.compile(r"\s*([\w.-]*)\s*(<.*)?", re.DOTALL)

    def _pushed(self, text: str) -> Read | None:
        begun = self._BEGUN.fullmatch(self._text)
        if not begun:
            return self._none()
        after = begun[2] or ""
        if not any(after.startswith(tag) or tag.startswith(after) for tag in ("<arg_key>", self._END)):
            return self._none()
        if self._END not in self._text[-len(text) - len(self._END) :]:
            return None
        if not begun[1]:
            return self._none()
        return self._pairs(begun[1], begun.end(1))

    def _pairs(self, name: str, at: int) -> Read | None:
        arguments, at = self._arguments(_PAIR, name, at)
        end = re.compile(rf"\s*(?={self._END})").match(self._text, at)
        if end:
            return (
                self._made([(name, arguments, "")], end.end()) if arguments or self._tools.get(name) else self._none()
            )
        inside = self._text[at:].lstrip()
        return None if inside.startswith("<arg_key>") and "</arg_value>" not in inside else self._broken()


class PythonBody(Body):
    """A list of calls as Python writes them, [f(a=1), g(b="x")]: LFM2; a JSON list is read as well."""

    _END = "<|tool_call_end|>"

    def _pushed(self, text: str) -> Read | None:
        if self._text.lstrip()[:1] not in ("", "[", "{"):
            return self._none()
        end = self._text.find(self._END, max(0, len(self._text) - len(text) - len(self._END)))
        return None if end < 0 else self._listed(end)

    def flush(self) -> Read | None:
        """The calls of a list that is whole, but for the marker after it."""
        return self._listed(len(self._text)) if self._text.strip() else None

    def _listed(self, end: int) -> Read:
        text = self._text[:end].strip()
        try:
            return self._made(_python_calls(text, self._tools.names), end)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            pass
        try:
            value = parsed_json(text)
            return self._made([_named(entry) for entry in (value if isinstance(value, list) else [value])], end)
        except ValueError:
            return self._broken()


class JsonEnd:
    """Finds where the first JSON object or list of a text ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False  # whether the last character of the text so far was a backslash that counts

    def push(self, text: str) -> int | None:
        """The place in this piece after its last bracket; None if that is not there yet."""
        skip = 0 if self._escaped else -1
        self._escaped = False
        for found in _BRACKETS.finditer(text):
            at, sign = found.start(), found[0]
            if at == skip:
                continue
            if self._in_string:
                if sign == "\\":
                    skip = at + 1
                    self._escaped = skip == len(text)
                self._in_string = sign != '"'
            elif sign == '"':
                self._in_string = True
            else:
                self._depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(sign, 0)
                if self._depth <= 0:
                    return at + 1
        return None


def _named(entry: Any) -> tuple[str, Any, str]:
    """The name, the arguments and the id of a call in JSON. Raises ValueError."""
    entry = entry.get("function", entry) if isinstance(entry, dict) else entry
    if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str) or not _NAME.fullmatch(name):
        raise ValueError("no name")
    arguments = entry.get("arguments", entry.get("parameters", {}))
    arguments = parsed_json(arguments or "{}") if isinstance(arguments, str) else arguments
    id = entry.get("id")
    return name, {} if arguments is None else arguments, id if isinstance(id, str) else ""


def _python_calls(text: str, names: Sequence[str]) -> list[tuple[str, Any, str]]:
    """The calls of a list of Python calls; names: of tools. Raises SyntaxError, ValueError, TypeError."""
    odd = {f"tool_{i}_zq": name for i, name in enumerate(names) if "-" in name}  # that Python would not read as names
    for stand_in, name in odd.items():
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}\(", f"{stand_in}(", text)
    with warnings.catch_warnings(action="ignore"):  # of backslashes that Python does not know
        listed = ast.parse(text, mode="eval").body
    calls = []
    for call in listed.elts if isinstance(listed, ast.List) else [listed]:
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("no call, or an argument without a name")
        arguments = {keyword.arg: ast.literal_eval(_as_python(keyword.value)) for keyword in call.keywords}
        if None in arguments or not _NAME.fullmatch(name := ast.unparse(call.func)):
            raise ValueError("no call")
        written = json.dumps(arguments, allow_nan=False)
        for stand_in, odd_name in odd.items():
            written = written.replace(f"{stand_in}(", f"{odd_name}(")
        calls.append((odd.get(name, name), parsed_json(written), ""))
    if not calls:
        raise ValueError("no call")
    return calls


def _as_python(value: ast.expr) -> ast.expr:
    """The words of JSON among the values as those of Python."""
    words = {"true": True, "false": False, "null": None}
    for node in ast.walk(value):
        for name, inner in ast.iter_fields(node):
            if isinstance(inner, list):
                setattr(node, name, [_word(part, words) for part in inner])
    result: ast.expr = _word(value, words)
    return result


def _word(node: Any, words: Mapping[str, Any]) -> Any:
    return ast.Constant(words[node.id]) if isinstance(node, ast.Name) and node.id in words else node
