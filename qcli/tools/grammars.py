"""Grammars of calls in Lark's syntax with JSON schemas in it, as llguidance reads them: what may follow a call's marker.

JSON is written as Python's json and chat templates write it, with a space after : and , so that a call in the history has
the ids by which it was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from qcli.tools.arguments import types_of
from qcli.tools.notation import Notation
from qcli.tools.tool import Tool

_LAYOUT: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_LARGEST: Final = (1 << 53) - 1  # of integers that have no bounds of their own: models can write digits without end
_DEEPEST: Final = 32
_WITH_ID: Final = r'", \"id\": \"" /[a-zA-Z0-9]{9}/ "\"}"'  # the end of a call that has one
_ANY_TEXT: Final = "/(?s:.*)/"


def whole_call(notation: Notation, tools: Iterable[Tool]) -> str:
    """The grammar of all that follows the marker, of families whose calls hold no further tokens of their own."""
    match notation.family:
        case "xml":
            return _either('"\\n"? ', tools, _xml, "")
        case "json":
            return _either('"\\n"? ', tools, _json_call, "")
        case "mistral list":
            return _several(tools, lambda tool, n: _json_call(tool, n, _WITH_ID))
        case "python":
            return _several(tools, _python_call)
        case _:
            return _several(tools, _json_call)


def names(tools: Iterable[Tool]) -> str:
    """The grammar of one of the names."""
    return "start: " + " | ".join(_text(tool.name) for tool in tools)


def words(choices: Iterable[str]) -> str:
    """The grammar of one of some texts."""
    return "start: " + " | ".join(map(_text, choices))


def arguments(tool: Tool) -> str:
    """The grammar of a tool's arguments as a JSON object."""
    return f"start: {_json(_object(tool))}"


def value(schema: Mapping[str, Any]) -> str:
    """The grammar of a value as JSON."""
    return f"start: {_json(schema)}"


def bare_value(schema: Mapping[str, Any]) -> str:
    """The grammar of a value without quotes: any text, or JSON where the schema wants that."""
    return f"start: {_bare(schema)}"


def _either(before: str, tools: Iterable[Tool], rule: Callable[[Tool, int], list[str]], after: str) -> str:
    found = [(f"t{n}", rule(tool, n)) for n, tool in enumerate(tools)]
    first = f"start: {before}({' | '.join(name for name, _ in found)}){after}"
    return "\n".join([first, *(line for _, lines in found for line in lines)])


def _several(tools: Iterable[Tool], rule: Callable[[Tool, int], list[str]]) -> str:
    """A list of calls."""
    calls = _either("", tools, rule, "").replace("start:", "call:", 1)
    return f'start: "[" call (", " call)* "]"\n{calls}'


def _json_call(tool: Tool, n: int, end: str = '"}"') -> list[str]:
    begin = _text(f'{{"name": "{tool.name}", "arguments": ')
    return [f"t{n}: {begin} a{n} {end}", f"a{n}: {_json(_object(tool))}"]


def _xml(tool: Tool, n: int) -> list[str]:
    parts, lines = [], []
    for i, (name, schema) in enumerate(tool.properties.items()):
        parts.append(f"p{n}_{i}" + ("" if name in tool.required else "?"))
        begin = _text(f"<parameter={name}>\n")
        if _is_free(schema):  # the text ends where its tag does, which it therefore cannot hold
            lines.append(f'p{n}_{i}: {begin} v{n}_{i} "\\n"')
            lines.append(f'v{n}_{i}[suffix="</parameter>"]: {_ANY_TEXT}')
        else:
            lines.append(f'p{n}_{i}: {begin} v{n}_{i} "\\n</parameter>\\n"')
            lines.append(f"v{n}_{i}: {_bare(schema)}")
    begin = _text(f"<function={tool.name}>\n")
    return [f't{n}: {begin} {" ".join(parts)} "</function>"', *lines]


def _python_call(tool: Tool, n: int) -> list[str]:
    """Arguments in their order, with commas between those that are there."""
    lines, given = [], []
    for i, (name, schema) in enumerate(tool.properties.items()):
        lines.append(f"v{n}_{i}: {_json(schema)}")
        given.append((f"{_text(f'{name}=')} v{n}_{i}", name in tool.required))
    rules = [f't{n}: {_text(f"{tool.name}(")} r{n}_0 ")"']
    for i in range(len(given) + 1):  # r: nothing has been given yet; s: something has
        rest = given[i] if i < len(given) else None
        for kind, comma in (("r", ""), ("s", '", " ')):
            if rest is None:
                rules.append(f'{kind}{n}_{i}: ""')
            else:
                skipped = "" if rest[1] else f" | {kind}{n}_{i + 1}"
                rules.append(f"{kind}{n}_{i}: {comma}{rest[0]} s{n}_{i + 1}{skipped}")
    return [*rules, *lines]


def _bare(schema: Mapping[str, Any]) -> str:
    if _is_free(schema):
        return _ANY_TEXT
    if isinstance(values := schema.get("enum"), list) and values and all(isinstance(value, str) for value in values):
        return " | ".join(map(_text, values))
    return _json(schema)


def _is_free(schema: Mapping[str, Any]) -> bool:
    """Whether a value may be any text."""
    kinds = types_of(schema)
    return not schema.get("enum") and "const" not in schema and (not kinds or "string" in kinds)


def _object(tool: Tool) -> dict[str, Any]:
    return {"additionalProperties": False, **tool.parameters}


def _json(schema: Mapping[str, Any]) -> str:
    return "%json " + json.dumps({**_bounded(dict(schema), 0), "x-guidance": _LAYOUT}, ensure_ascii=False)


def _bounded(schema: Any, depth: int) -> Any:
    """A schema whose integers have bounds."""
    if isinstance(schema, list):
        return [_bounded(part, depth + 1) for part in schema] if depth < _DEEPEST else schema
    if not isinstance(schema, dict) or depth >= _DEEPEST:
        return schema
    found = {
        key: part if key in ("enum", "const", "default") else _bounded(part, depth + 1) for key, part in schema.items()
    }
    if found.get("type") == "integer" and "enum" not in found and "const" not in found:
        bounds = {"maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"} & found.keys()
        if all(isinstance(found[name], int) and abs(found[name]) <= _LARGEST for name in bounds):
            found |= {} if any("axi" in name for name in bounds) else {"maximum": _LARGEST}
            found |= {} if any("ini" in name for name in bounds) else {"minimum": -_LARGEST}
    return found


def _text(text: str) -> str:
    """A text as Lark writes it."""
    return json.dumps(text, ensure_ascii=False)
