"""Random JSON Schemas whose answers are short: the keywords that constraints know, nested and shared."""

from __future__ import annotations

import random
from typing import Any

NAMES = ("name", "age", "tags", "größe", 'a "b"', "x\\y", "items", "$ref", "type", "", "unit price")
PATTERNS = ("^[a-z]{2,5}$", "^\\d{3}-\\d{2}$", "^(yes|no)$", "^[A-F0-9]{4}$", "x", "^é?a+$")
FORMATS = ("date", "time", "date-time", "email", "uuid", "ipv4", "hostname", "uri", "duration")


def random_schema(seed: int) -> dict[str, Any]:
    """The schema of a seed."""
    drawn = random.Random(seed)
    schema = _schema(drawn, drawn.randint(1, 3))
    if drawn.random() < 0.3:
        schema = {"type": "object", "properties": {"one": {"$ref": "#/$defs/part"}}, "required": ["one"]}
        schema |= {"additionalProperties": False, "$defs": {"part": _tree(drawn)}}
    return schema


def _schema(drawn: random.Random, depth: int) -> dict[str, Any]:
    leaves = (_integer, _number, _string, _choice, _plain)
    return (
        drawn.choice(leaves)(drawn)
        if not depth
        else drawn.choice((_object, _object, _array, _any, *leaves[:4]))(*((drawn, depth) if depth else (drawn,)))
    )


def _integer(drawn: random.Random, depth: int = 0) -> dict[str, Any]:
    low = drawn.randint(-200, 200)
    schema = {"type": "integer", "minimum": low, "maximum": low + drawn.randint(0, 500)}
    if drawn.random() < 0.3:
        schema |= {"minimum": 0, "maximum": 1000, "multipleOf": drawn.choice((2, 5, 10, 7))}
    return schema


def _number(drawn: random.Random, depth: int = 0) -> dict[str, Any]:
    low = drawn.randint(-50, 50) / drawn.choice((1, 2, 4))
    kind = drawn.choice(("minimum", "exclusiveMinimum"))
    return {"type": "number", kind: low, drawn.choice(("maximum", "exclusiveMaximum")): low + drawn.randint(1, 90)}


def _string(drawn: random.Random, depth: int = 0) -> dict[str, Any]:
    kind = drawn.randrange(3)
    if kind == 0:
        return {"type": "string", "pattern": drawn.choice(PATTERNS), "maxLength": 12}
    if kind == 1:
        return {"type": "string", "format": drawn.choice(FORMATS)}
    low = drawn.randint(0, 5)
    return {"type": "string", "minLength": low, "maxLength": low + drawn.randint(0, 12)}


def _choice(drawn: random.Random, depth: int = 0) -> dict[str, Any]:
    values: list[Any] = [
        None,
        True,
        0,
        -1.5,
        "yes",
        "no",
        'say "hi"',
        "a\nb",
        {"k": [1, 2]},
        [],
        "<tool_call>",
        "</think>",
    ]
    return (
        {"enum": drawn.sample(values, drawn.randint(1, 5))} if drawn.random() < 0.7 else {"const": drawn.choice(values)}
    )


def _plain(drawn: random.Random, depth: int = 0) -> dict[str, Any]:
    return {"type": drawn.choice(("boolean", "null", ["boolean", "null"]))}


def _array(drawn: random.Random, depth: int) -> dict[str, Any]:
    low = drawn.randint(0, 2)
    schema = {
        "type": "array",
        "items": _schema(drawn, depth - 1),
        "minItems": low,
        "maxItems": low + drawn.randint(0, 2),
    }
    if drawn.random() < 0.25:
        first = [_schema(drawn, depth - 1) for _ in range(drawn.randint(1, 2))]
        schema |= {"prefixItems": first, "minItems": len(first), "maxItems": len(first) + 1}
    return schema


def _object(drawn: random.Random, depth: int) -> dict[str, Any]:
    names = drawn.sample(NAMES, drawn.randint(0, 4))
    schema: dict[str, Any] = {"type": "object", "properties": {name: _schema(drawn, depth - 1) for name in names}}
    schema["required"] = drawn.sample(names, drawn.randint(0, len(names)))
    schema["additionalProperties"] = drawn.choice((False, False, False, _schema(drawn, 0)))
    if schema["additionalProperties"] is not False:
        schema["maxProperties"] = len(names) + 1
    return schema


def _any(drawn: random.Random, depth: int) -> dict[str, Any]:
    return {drawn.choice(("anyOf", "anyOf", "oneOf")): [_schema(drawn, depth - 1) for _ in range(drawn.randint(1, 3))]}


def _tree(drawn: random.Random) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"value": _schema(drawn, 0), "more": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/part"}]}},
        "required": ["value", "more"],
        "additionalProperties": False,
    }
