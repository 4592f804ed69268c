"""The schemas that a JSON Schema is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

DEFINITIONS: Final = ("$defs", "definitions")
_DATA: Final = ("const", "enum", "default", "examples")  # whose values are no schemas
_BY_NAME: Final = (*DEFINITIONS, "properties", "patternProperties", "dependentSchemas")


def parts_of(schema: Any, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and the schemas in it that are objects, each after the one that it is in, with JSON pointers."""
    if isinstance(schema, list):
        for i, part in enumerate(schema):
            yield from parts_of(part, f"{pointer}/{i}")
    if not isinstance(schema, dict):
        return
    yield pointer, schema
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, dict):
            for name, part in value.items():
                yield from parts_of(part, f"{pointer}/{key}/{name}")
        elif key not in _DATA:
            yield from parts_of(value, f"{pointer}/{key}")


def changed(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A schema with each of its schemas that is an object as `change` gives it back, the innermost first."""
    if isinstance(schema, list):
        return [changed(part, change) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {
        key: value
        if key in _DATA
        else {name: changed(part, change) for name, part in value.items()}
        if key in _BY_NAME and isinstance(value, dict)
        else changed(value, change)
        for key, value in schema.items()
    }
    return change(inner)
