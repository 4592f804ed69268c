"""Types of Python as schemas, and answers as objects of them: pydantic models, dataclasses, and what they are made of."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

from qcli.constraints.schema_parts import changed
from qcli.errors import QcliError, UsageError
from qcli.text.thoughts import Thought

_PLAIN: Final[dict[Any, str]] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_SPELLED: Final[dict[Any, tuple[dict[str, str], Callable[[Any], Any]]]] = {  # type -> its schema, and how it is made
    date: ({"type": "string", "format": "date"}, date.fromisoformat),
    datetime: ({"type": "string", "format": "date-time"}, datetime.fromisoformat),
    time: ({"type": "string", "format": "time"}, time.fromisoformat),
    UUID: ({"type": "string", "format": "uuid"}, UUID),
    Decimal: ({"type": "number"}, lambda value: Decimal(str(value))),
}
_LISTS: Final[dict[Any, Callable[[list[Any]], Any]]] = {list: list, Sequence: list, set: set, frozenset: frozenset}


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type. Raises UsageError for a type that has none."""
    if hasattr(kind, "model_json_schema"):
        found: dict[str, Any] = changed(kind.model_json_schema(), _without_unique)
        return found
    definitions: dict[str, Any] = {}
    schema = _schema(kind, definitions)
    return {**schema, "$defs": definitions} if definitions else schema


def _without_unique(part: dict[str, Any]) -> dict[str, Any]:
    """A schema of a set without saying so, which no grammar can follow: what comes twice is in a set once."""
    return {key: value for key, value in part.items() if key != "uniqueItems"}


def object_of(kind: Any, value: Any) -> Any:
    """What a value of JSON is as an object of a type. Raises QcliError if it is none."""
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    try:
        return _object(kind, value)
    except (_UnfitError, TypeError, ValueError) as problem:
        raise QcliError(f"the answer is no {_name(kind)}: {problem}", "ask for another type") from None


def parsed(kind: Any, answer: Iterable[str], fits: Callable[[], bool | None]) -> Any:
    """An answer of JSON as an object of a type; fits: whether it is whole, asked once it was read. Raises QcliError."""
    text = "".join(piece for piece in answer if not isinstance(piece, Thought))
    if not fits():
        raise QcliError("the answer was cut before its end", "give more max_tokens, or a larger ctx")
    return object_of(kind, json.loads(text))


class _UnfitError(Exception):
    """A value is not of a type."""


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _PLAIN or kind is None:
        return {"type": _PLAIN.get(kind, "null")}
    if kind is Any:
        return {}
    if origin is Annotated:
        return _schema(parts[0], definitions)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(part, definitions) for part in parts]}
    if origin is Literal:
        return {"enum": list(parts)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if kind in _SPELLED:
        return dict(_SPELLED[kind][0])
    if (origin or kind) in _LISTS or (origin is tuple and parts[1:] == (Ellipsis,)):
        return {"type": "array", "items": _schema(parts[0] if parts else Any, definitions)}
    if origin is tuple and Ellipsis not in parts:
        items = [_schema(part, definitions) for part in parts]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if kind is dict or (origin in (dict, Mapping) and parts[0] is str):
        return {"type": "object", "additionalProperties": _schema(parts[1] if parts else Any, definitions)}
    if isinstance(kind, type) and (is_dataclass(kind) or is_typeddict(kind)):
        if kind.__qualname__ not in definitions:
            definitions[kind.__qualname__] = {}  # it may have parts of its own type
            definitions[kind.__qualname__] = _object_schema(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__qualname__}"}
    raise UsageError(f"{_name(kind)} has no JSON", "give a dataclass, a pydantic model, or types such as list[str]")


def _object_schema(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _schema(part, definitions) for name, part in _members(kind).items()},
        "required": sorted(_required(kind), key=list(_members(kind)).index),
        "additionalProperties": False,
    }


def _members(kind: type) -> dict[str, Any]:
    """The names of an object's parts, and their types."""
    hints = get_type_hints(kind)
    if is_dataclass(kind):
        return {field.name: hints[field.name] for field in fields(kind) if field.init}
    return hints


def _required(kind: type) -> set[str]:
    if is_dataclass(kind):
        have = [field for field in fields(kind) if field.init]
        return {field.name for field in have if field.default is MISSING and field.default_factory is MISSING}
    hints = get_type_hints(kind, include_extras=True)  # __required_keys__ has those that are written as strings, too
    return {name for name, part in hints.items() if get_origin(part) is not NotRequired and name in _total(kind)}


def _total(kind: type) -> frozenset[str]:
    required: frozenset[str] = kind.__required_keys__  # type: ignore[attr-defined]
    return required


def _object(kind: Any, value: Any) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if kind in _PLAIN or kind is None:
        return _plain(type(None) if kind is None else kind, value)
    if origin is Annotated:
        return _object(parts[0], value)
    if origin in (Union, types.UnionType):
        return _first_that_fits(parts, value)
    if origin is Literal:
        return _checked(value, value in parts)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind in _SPELLED:
        return _SPELLED[kind][1](value)
    if (origin or kind) in _LISTS or (origin is tuple and parts[1:] == (Ellipsis,)):
        made = _LISTS.get(origin or kind, tuple)
        return made([_object(parts[0] if parts else Any, part) for part in _checked(value, isinstance(value, list))])
    if origin is tuple:
        return tuple(map(_object, parts, _checked(value, isinstance(value, list) and len(value) == len(parts))))
    _checked(value, isinstance(value, dict))
    if kind is dict or origin in (dict, Mapping):
        return {name: _object(parts[1] if parts else Any, part) for name, part in value.items()}
    members = _members(kind)
    return kind(**{name: _object(members[name], part) for name, part in value.items() if name in members})


def _plain(kind: type, value: Any) -> Any:
    if kind is float:
        return float(_checked(value, isinstance(value, int | float) and not isinstance(value, bool)))
    if kind is int and isinstance(value, float) and value.is_integer():  # 1.0 is an integer to JSON Schema
        return int(value)
    return _checked(value, type(value) is kind)


def _first_that_fits(kinds: Sequence[Any], value: Any) -> Any:
    for kind in kinds:
        try:
            return _object(kind, value)
        except (_UnfitError, TypeError, ValueError):
            continue
    raise _UnfitError(f"{value!r:.60}")


def _checked(value: Any, fits: bool) -> Any:
    if not fits:
        raise _UnfitError(f"{value!r:.60}")
    return value


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
