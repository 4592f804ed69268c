"""JSON schemas of the types that Python functions write at their parameters, read from the source and never run."""

from __future__ import annotations

import ast
from typing import Any, Final

TYPES: Final = 'str, int, float, bool, list[…], dict[str, …], Literal[…], Annotated[…, "what it is"], … | None'
_PLAIN: Final[dict[str, dict[str, Any]]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "tuple": {"type": "array"},
    "set": {"type": "array"},
    "dict": {"type": "object"},
    "None": {"type": "null"},
    "Any": {},
}
_LISTS: Final = ("list", "List", "Sequence", "Iterable", "set")
_TABLES: Final = ("dict", "Dict", "Mapping")
_OF_JSON: Final = {str: "string", int: "integer", bool: "boolean", float: "number", type(None): "null"}


class UnknownTypeError(Exception):
    """A type that has no JSON schema here; its text is the type as it is written."""


def schema_of(annotation: ast.expr) -> dict[str, Any]:
    """The JSON schema of a type. Raises UnknownTypeError."""
    match annotation:
        case ast.Constant(value=None):
            return {"type": "null"}
        case ast.Constant(value=str(text)):
            try:
                return schema_of(ast.parse(text, mode="eval").body)
            except (SyntaxError, ValueError):
                raise UnknownTypeError(text) from None
        case ast.BinOp(op=ast.BitOr()):
            return _any_of([annotation.left, annotation.right])
        case ast.Subscript():
            return _subscripted(annotation)
    name = _name(annotation)
    if name not in _PLAIN:
        raise UnknownTypeError(ast.unparse(annotation))
    return dict(_PLAIN[name])


def _subscripted(annotation: ast.Subscript) -> dict[str, Any]:
    name = _name(annotation.value)
    inner = [*annotation.slice.elts] if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if name == "Literal":
        return _enum(annotation, inner)
    if name == "Annotated":
        told = [part.value for part in inner[1:] if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        return {**schema_of(inner[0]), **({"description": told[0]} if told else {})}
    if name == "Optional" and len(inner) == 1:
        return _any_of([inner[0], ast.Constant(None)])
    if name == "Union":
        return _any_of(inner)
    if name in _LISTS and len(inner) == 1:
        return {"type": "array", "items": schema_of(inner[0])}
    if name == "tuple" and len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...:
        return {"type": "array", "items": schema_of(inner[0])}
    if name in _TABLES and len(inner) == 2 and _name(inner[0]) == "str":
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    raise UnknownTypeError(ast.unparse(annotation))


def _enum(annotation: ast.Subscript, inner: list[ast.expr]) -> dict[str, Any]:
    try:
        values = [ast.literal_eval(part) for part in inner]
        types = list(dict.fromkeys(_OF_JSON[type(value)] for value in values))
    except (ValueError, KeyError):
        raise UnknownTypeError(ast.unparse(annotation)) from None
    return {"type": types[0] if len(types) == 1 else types, "enum": values}


def _any_of(parts: list[ast.expr]) -> dict[str, Any]:
    """One of several types; simple ones are listed, as more models have seen that than anyOf."""
    schemas = [schema_of(part) for part in parts]
    flat = [inner for schema in schemas for inner in schema.get("anyOf", [schema])]
    if all(schema.keys() == {"type"} for schema in flat):
        types = list(
            dict.fromkeys(kind for s in flat for kind in ([s["type"]] if isinstance(s["type"], str) else s["type"]))
        )
        return {"type": types[0] if len(types) == 1 else types}
    return {"anyOf": flat}


def _name(annotation: ast.expr) -> str:
    """The last part of a name: List of typing.List."""
    if isinstance(annotation, ast.Attribute):
        return annotation.attr
    return annotation.id if isinstance(annotation, ast.Name) else ""
