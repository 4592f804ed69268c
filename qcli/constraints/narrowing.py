"""JSON schemas narrowed to what people mean by them: whatever fits what comes of one fits the schema itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qcli.constraints.schema_parts import changed, parts_of

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
_OTHER_KINDS: Final = ("type", "enum", "const", "items", "prefixItems", "pattern", "format", "minimum", "maximum")
_STRICT_FORMATS: Final = frozenset(  # which validators may check; others, such as password, are remarks
    (
        *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "regex"),
        *("idn-email", "idn-hostname", "uri-reference", "iri", "iri-reference", "uri-template"),
        *("json-pointer", "relative-json-pointer"),
    )
)


def without_remarks(schema: Any) -> Any:
    """The same schema, without the formats that are none of JSON Schema's, which constrain nothing."""
    return changed(schema, _without_remark)


def _without_remark(part: dict[str, Any]) -> dict[str, Any]:
    told = part.get("format")
    return {key: part[key] for key in part if key != "format" or not isinstance(told, str) or told in _STRICT_FORMATS}


def closed(schema: Any) -> Any:
    """The same schema, whose objects have no properties that it does not name where it names some.

    Unless it says additionalProperties, any others may come, one after the other; nobody has asked for them. Where it
    names properties and no type, a number would do as well. As it is, if an object is put together of several schemas.
    """
    return changed(schema, _closed_part) if _can_be_closed(schema) else schema


def _can_be_closed(schema: Any) -> bool:
    """Whether each of its objects stands for itself: none is put together of several schemas."""
    return not any(
        "allOf" in part or ("properties" in part and any(key in part for key in _PUT_TOGETHER))
        for _, part in parts_of(schema)
    )


def _closed_part(part: dict[str, Any]) -> dict[str, Any]:
    properties, required = part.get("properties"), part.get("required", [])
    if not isinstance(properties, dict) or not properties or not isinstance(required, list):
        return part
    if not any(key in part for key in _OTHER_KINDS):
        part = {"type": "object", **part}
    names_all = set(map(str, required)) <= {*properties}
    return {**part, "additionalProperties": False} if names_all and "additionalProperties" not in part else part


def without_branches(schema: Any, can_be_followed: Callable[[dict[str, Any]], bool]) -> Any:
    """The same schema, without the branches of anyOf that cannot be followed where others can."""

    def chosen(part: dict[str, Any]) -> dict[str, Any]:
        branches = part.get("anyOf")
        if not isinstance(branches, list):
            return part
        kept = [branch for branch in branches if not isinstance(branch, dict) or can_be_followed(branch)]
        return {**part, "anyOf": kept or branches}

    return changed(schema, chosen)
