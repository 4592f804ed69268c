"""Arguments of a call as its tool wants them: texts that stand for other values, and what is wrong with the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from qcli.tools.tool import Tool, depth_of
from qcli.wording import shortened

_DEEPEST = 64
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def parsed_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for anything else, numbers without end and depths without end too."""
    try:
        value = json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deep") from None
    if depth_of(value, _DEEPEST) > _DEEPEST:
        raise ValueError("too deep")
    return value


def value_of(text: str, schema: Mapping[str, Any]) -> Any:
    """What a text stands for that a model writes without quotes: the text itself, or JSON where the schema wants that."""
    kinds = types_of(schema)
    if "string" in kinds and not ("null" in kinds and text == "null"):
        return text
    try:
        value = parsed_json(text)
    except ValueError:
        words = {"True": True, "False": False, "None": None}
        return words.get(text.strip(), text)
    return value if kinds or not isinstance(value, str) else text


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema names, in branches too; none if it does not say."""
    named = schema.get("type", [])
    kinds = {kind for kind in ([named] if isinstance(named, str) else _list(named)) if isinstance(kind, str)}
    for branch in (*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))):
        kinds |= types_of(branch) if isinstance(branch, Mapping) and branch is not schema else set()
    if not kinds and isinstance(values := schema.get("enum"), list):
        kinds = {kind for value in values for kind in _KINDS if _is(value, kind)}
    return kinds


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def settled(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with whole numbers where a model has written 1.0 for an integer."""
    return {name: _settled(value, tool.properties.get(name, {}), 0) for name, value in arguments.items()}


def _settled(value: Any, schema: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return value
    kinds = types_of(schema)
    if isinstance(value, float) and value.is_integer() and "integer" in kinds and "number" not in kinds:
        return int(value)
    if isinstance(value, list) and (items := schema.get("items")):
        return [_settled(part, items, depth + 1) for part in value]
    if isinstance(value, dict) and isinstance(properties := schema.get("properties"), Mapping):
        return {name: _settled(part, properties.get(name), depth + 1) for name, part in value.items()}
    return value


def problem_with(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Why a tool cannot be called so, in words for the model; "" if nothing is wrong that can be seen from outside."""
    missing = [name for name in tool.required if name not in arguments]
    if missing:
        return f"{tool.name} needs the argument {missing[0]}"
    for name, value in arguments.items():
        if name not in tool.properties:
            known = ", ".join(tool.properties) or "none"
            return f"{tool.name} has no argument {shortened(name)}: it takes {known}"
        schema = tool.properties[name]
        kinds = types_of(schema)
        if kinds and not any(_is(value, kind) for kind in kinds):
            return f"{name} of {tool.name} is of the type {' or '.join(sorted(kinds))}, not {shortened(repr(value))}"
        if isinstance(values := schema.get("enum"), list) and value not in values:
            return f"{name} of {tool.name} is one of {shortened(json.dumps(values, ensure_ascii=False))}"
    return ""


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _KINDS.get(kind, (object,)))


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is too large")
    return value


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
