"""What may follow once a call has begun, part by part: texts that a grammar allows, and texts that have to come.

A grammar cannot hold tokens that are no text, as <arg_key> is; so a call of a family that has such is made of parts.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qcli.tools import grammars
from qcli.tools.arguments import types_of
from qcli.tools.gemma_calls import QUOTE
from qcli.tools.notation import Notation
from qcli.tools.tool import Tool, Tools


@dataclass(frozen=True)
class Held:
    """A text that a grammar allows, up to one of some markers, if there are any; markers alone where there is no grammar."""

    grammar: str | None
    then: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """A text that has to come, with its special tokens."""

    text: str


Plan = Generator[Held | Given, tuple[str, str], None]  # is sent the text of each part, and the marker that ended it


def plan_of(notation: Notation, tools: Tools, only: str = "", before_channel: bool = False) -> Plan:
    """The parts of a call's rest; only: the name of the tool that is to be called; before_channel: of a header of harmony."""
    allowed = [tool for tool in tools if only in ("", tool.name)]
    match notation.family:
        case "pairs":
            return _pairs(allowed, notation.gap)
        case "mistral":
            return _named(allowed)
        case "harmony":
            return _message(allowed, before_channel)
        case "gemma":
            return _gemma(allowed, notation.end)
    return _whole(notation, allowed)


def _whole(notation: Notation, tools: list[Tool]) -> Plan:
    yield Held(grammars.whole_call(notation, tools))
    if notation.family == "python":
        yield Given(notation.end)


def _named(tools: list[Tool]) -> Plan:
    name, _ = yield Held(grammars.names(tools), ("[ARGS]",))
    yield Held(grammars.arguments(_called(name, tools)))


def _message(tools: list[Tool], before_channel: bool) -> Plan:
    after = "<|channel|>commentary json<|message|>" if before_channel else " <|constrain|>json<|message|>"
    name, _ = yield Held(grammars.names(tools), (after,))
    yield Held(grammars.arguments(_called(name, tools)))
    yield Given("<|call|>")


def _pairs(tools: list[Tool], gap: str) -> Plan:
    names = [tool.name for tool in tools]
    if any(other != name and other.startswith(name) for name in names for other in names):
        names = [f"{name}\n" for name in names]  # so that it is known where a name ends
    else:
        names = [name + gap for name in names]
    name, _ = yield Held(grammars.words(names))
    tool = _called(name, tools)
    missing, left = set(tool.required), dict(tool.properties)
    _, marker = yield Held(None, _next(left, missing))
    while marker != "</tool_call>":
        key, _ = yield Held(grammars.words(left), ("</arg_key>",))
        yield Given(f"{gap}<arg_value>")
        schema: Any = left.pop(key.strip(), {})
        yield Held(grammars.bare_value(schema), ("</arg_value>",))
        missing.discard(key.strip())
        if gap:
            yield Given(gap)
        _, marker = yield Held(None, _next(left, missing))


def _gemma(tools: list[Tool], end: str) -> Plan:
    name, _ = yield Held(grammars.words([f"call:{tool.name}{{" for tool in tools]))
    tool = _called(name.removeprefix("call:").removesuffix("{"), tools)
    yield from _members(tool.properties, tool.required)
    yield Given(end)


def _members(properties: Mapping[str, Any], required: Iterable[str]) -> Plan:
    """Keys and values of an object of Gemma's, and the bracket that closes it."""
    left, missing = dict(properties), set(required) & properties.keys()
    sign, _ = yield Held(grammars.words([*(f"{key}:" for key in left), *([] if missing else ["}"])]))
    while sign != "}":
        key = sign.removesuffix(":")
        schema = left.pop(key)
        missing.discard(key)
        may_follow = (*((",",) if left else ()), *(() if missing else ("}",)))
        sign = yield from _gemma_value(schema, may_follow)
        if sign == ",":
            sign, _ = yield Held(grammars.words([f"{key}:" for key in left]))


def _gemma_value(schema: Any, may_follow: tuple[str, ...]) -> Generator[Held | Given, tuple[str, str], str]:
    """A value and the sign after it, which is returned; of what is no text and no object, as JSON writes it."""
    schema = schema if isinstance(schema, Mapping) else {}
    kinds, values = types_of(schema), schema.get("enum")
    if kinds == {"object"} and isinstance(properties := schema.get("properties"), Mapping) and properties:
        yield Given("{")
        yield from _members(properties, [name for name in schema.get("required", []) if isinstance(name, str)])
    elif not kinds or "string" in kinds:
        _, begun = yield Held(None, (QUOTE, *(("null",) if "null" in kinds else ())))
        if begun == QUOTE:
            texts = [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
            yield Held(grammars.words(texts) if texts else grammars.bare_value({}), (QUOTE,))
    else:
        _, sign = yield Held(grammars.value(schema), may_follow)
        return sign
    _, sign = yield Held(None, may_follow)
    return sign


def _next(left: Collection[str], missing: Collection[str]) -> tuple[str, ...]:
    """The markers of another argument and of the end, as far as they may come."""
    return (*(("<arg_key>",) if left else ()), *(() if missing else ("</tool_call>",)))


def _called(name: str, tools: list[Tool]) -> Tool:
    return next((tool for tool in tools if tool.name == name.strip()), tools[0])
