"""JSON Schema: read, checked, and made a grammar of compact JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from llguidance import LLMatcher

from qcli.constraints.check import reason
from qcli.constraints.reasons import TOO_LARGE
from qcli.errors import UsageError
from qcli.wording import shortened

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_DEEPEST: Final = 50  # levels of a schema; llguidance reads 127 levels of JSON
_MOST: Final = 10_000  # values in a schema
_SEARCHED: Final = 0.3  # seconds in which parts of a wrong schema are tried, to tell which it is
_OPTIONS: Final[JsonCompileOptions] = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
}  # white space can be endless
_DATA: Final = ("const", "enum", "default", "examples")  # whose values are no schemas
_BY_NAME: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_PUT_TOGETHER: Final = (
    "minProperties",
    "anyOf",
    "oneOf",
    "$ref",
    "$dynamicRef",
    "if",
    "patternProperties",
    "dependentSchemas",
)
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")


def parsed(text: str, where: str) -> Any:
    """A schema of its JSON; where: what the text is called. Raises UsageError with the line of what is no JSON."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise UsageError(f"{where}: is not valid JSON: {place}: {problem.msg}", "give a JSON Schema") from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as problem:
        raise UsageError(f"{where}: is not valid JSON: {problem}", "give a JSON Schema") from None


def grammar_of(schema: Any, where: str) -> str:
    """A grammar of JSON that fits a schema; where: what the schema is called. Raises UsageError with the place."""
    if not isinstance(schema, dict | bool):
        raise UsageError(f"{where}: a schema is an object", 'give one such as {"type": "object", "properties": {…}}')
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    _check_size(schema, where)
    for pointer, part in _parts(schema):
        for key in _REFERENCES:
            target = part.get(key)
            if isinstance(target, str) and not target.startswith("#") and target != schema.get("$id"):
                message = f"{where}: {_place(pointer)}: {key} to {shortened(target)}, which is outside of the schema"
                raise UsageError(message, "put what it names under $defs, and refer to it as #/$defs/NAME")
    try:
        grammar = _grammar(_closed(schema) if _can_be_closed(schema) else schema)
        why = reason(grammar)
        if why not in (None, TOO_LARGE):
            grammar = _grammar(schema)
            why = reason(grammar)
    except ValueError as problem:
        raise UsageError(f"{where}: {problem}", "give a JSON Schema") from None
    if why:
        place = "" if why == TOO_LARGE else f"{_place(_wrong_part(schema, why))}: "
        raise UsageError(f"{where}: {place}{why}", "put it right, or leave it out")
    return grammar


def _can_be_closed(schema: Any) -> bool:
    """Whether each of its objects stands for itself: none is put together of several schemas."""
    return not any(
        "allOf" in part or ("properties" in part and any(key in part for key in _PUT_TOGETHER))
        for _, part in _parts(schema)
    )


def _closed(schema: Any) -> Any:
    """The same schema, without properties that it does not name where it names some.

    Unless it says additionalProperties, any others may come, one after the other; nobody has asked for them.
    """
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: value
        if key in _DATA
        else {name: _closed(part) for name, part in value.items()}
        if key in _BY_NAME and isinstance(value, dict)
        else _closed(value)
        for key, value in schema.items()
    }
    return {**closed, "additionalProperties": False} if _names_all(schema) else closed


def _names_all(schema: dict[str, Any]) -> bool:
    properties, required = schema.get("properties"), schema.get("required", [])
    names = isinstance(properties, dict) and isinstance(required, list) and set(map(str, required)) <= {*properties}
    return bool(properties) and names and "additionalProperties" not in schema


def _grammar(schema: Any) -> str:
    grammar: str = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
    return grammar


def _check_size(schema: Any, where: str) -> None:
    """Raise UsageError for a schema that is too deep or too large, or holds something that is not JSON."""
    waiting, seen = [(schema, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST:
            raise _too_deep(where)
        if seen > _MOST:
            raise UsageError(f"{where} is too large: more than {_MOST:,} values", "give a smaller one")
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            waiting += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(part, depth + 1) for part in value]
        elif not isinstance(value, str | int | float | bool | None) or (
            isinstance(value, float) and not isfinite(value)
        ):
            raise UsageError(f"{where} holds something that is not JSON: {value!r:.60}", "give a JSON Schema")


def _parts(schema: Any, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and the schemas in it that are objects, each after the one that it is in, with JSON pointers."""
    if isinstance(schema, list):
        for i, part in enumerate(schema):
            yield from _parts(part, f"{pointer}/{i}")
    if not isinstance(schema, dict):
        return
    yield pointer, schema
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, dict):
            for name, part in value.items():
                yield from _parts(part, f"{pointer}/{key}/{name}")
        elif key not in _DATA:
            yield from _parts(value, f"{pointer}/{key}")


def _wrong_part(schema: Any, why: str) -> str:
    """The pointer of the innermost schema that cannot be followed for the same reason."""
    found = ""
    shared = {key: schema[key] for key in ("$defs", "definitions") if isinstance(schema, dict) and key in schema}
    until = monotonic() + _SEARCHED
    for pointer, part in _parts(schema):
        if monotonic() > until:
            break
        if pointer.startswith(found) and reason(_grammar({**shared, **part})) == why:
            found = pointer
    return found


def _place(pointer: str) -> str:
    return f"at {shortened('#' + pointer)}"


def _too_deep(where: str) -> UsageError:
    return UsageError(f"{where} is nested too deep: more than {_DEEPEST} levels", "name its parts under $defs")


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
