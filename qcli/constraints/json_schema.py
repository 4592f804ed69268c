"""JSON Schema: read, checked, and made a grammar of compact JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from llguidance import LLMatcher

from qcli.constraints.check import reason
from qcli.errors import UsageError
from qcli.wording import shortened

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_DEEPEST: Final = 50  # levels of a schema; llguidance reads 127 levels of JSON
_MOST: Final = 20_000  # values in a schema
_SEARCHED: Final = 2_000  # parts of a wrong schema that are tried, to tell which it is
_OPTIONS: Final[JsonCompileOptions] = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
}  # white space can be endless
_DATA: Final = ("const", "enum", "default", "examples")  # whose values are no schemas
_BY_NAME: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")


def parsed(text: str, where: str) -> Any:
    """A schema of its JSON; where: what the text is called. Raises UsageError with the line of what is no JSON."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise UsageError(f"{where}: no JSON: {place}: {problem.msg}", "give a JSON Schema") from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as problem:
        raise UsageError(f"{where}: no JSON: {problem}", "give a JSON Schema") from None


def grammar_of(schema: Any, where: str) -> str:
    """The grammar of the JSON that fits a schema; where: what the schema is called. Raises UsageError with the place."""
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
        grammar = _grammar(schema)
    except ValueError as problem:
        raise UsageError(f"{where}: {problem}", "give a JSON Schema") from None
    if why := reason(grammar):
        raise UsageError(f"{where}: {_place(_wrong_part(schema, why))}: {why}", "put it right, or leave it out")
    return grammar


def _grammar(schema: Any) -> str:
    grammar: str = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
    return grammar


def _check_size(schema: Any, where: str) -> None:
    """Raise UsageError for a schema that is too deep or too large, or holds what is no JSON."""
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
            raise UsageError(f"{where} holds what is no JSON: {value!r:.60}", "give a JSON Schema")


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
    for tried, (pointer, part) in enumerate(_parts(schema)):
        if tried >= _SEARCHED:
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
