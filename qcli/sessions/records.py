"""What a line of a conversation's file holds: one JSON object, which is checked as if it came from a stranger.

    {"version": 1, "created": 1795905600.0, "model": "storyteller", …}
    {"id": 1, "parent": null, "role": "user", "text": "Hi", "time": …}
    {"id": 2, "parent": 1, "role": "assistant", "text": "Hello.", "ids": [9906, 13], "finish_reason": "stop", …}
    {"head": 2, "name": "greeting", "title": "Hi", "model": "storyteller", "messages": 2, "changed": …}

The first line is a header; {"header": {…}} changes it. A mark ends every addition: what stands after the last one was cut
off in the writing. A mark also holds all that a list shows, so that a list reads the last line alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, NoReturn, TypeGuard

from qcli.sessions.session import ROLES, Message, Session

VERSION: Final = 1
MAX_NAME = 60  # characters
_MODEL = 100  # characters of a model's name in a mark
_MOST_ID = 1 << 53
_LATEST = 250_000_000_000.0  # seconds since 1970: in the year 9892
_TEXTS = ("model", "path", "fingerprint", "template")  # of a header


@dataclass(frozen=True)
class Mark:
    """Where a conversation stands, and what a list shows of it."""

    head: int | None
    name: str
    title: str
    model: str
    messages: int  # of its branch
    changed: float  # seconds since 1970


def encoded(record: Mapping[str, Any]) -> bytes:
    """A record as a line."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # a lone surrogate becomes \udcff, as JSON writes it


def header_line(header: Mapping[str, Any]) -> bytes:
    """The first line of a file."""
    return encoded({"version": VERSION, **_without_nan(header)})


def header_change_line(changes: Mapping[str, Any]) -> bytes:
    """The line that changes keys of the header."""
    return encoded({"header": _without_nan(changes)})


def message_line(message: Message) -> bytes:
    """A message as a line, without the fields that are empty."""
    record = {part.name: getattr(message, part.name) for part in fields(Message)}
    record |= {"sampling": _without_nan(message.sampling), "figures": _without_nan(message.figures)}
    needed = ("id", "parent", "role", "text")
    return encoded({name: value for name, value in record.items() if value or name in needed})


def mark_line(session: Session) -> bytes:
    """The line that ends an addition."""
    shown = {"name": session.name, "title": session.title, "model": session.model[:_MODEL]}
    return encoded({"head": session.head, **shown, "messages": len(session.branch()), "changed": session.changed})


def parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None if it is damaged."""
    try:
        value = json.loads(line.decode("utf-8"), parse_float=_finite, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def header_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The header of a record; keys that qcli writes are of the kinds that it writes, and all values are flat."""
    header = {name: value for name, value in _flat(record).items() if name != "version"}
    header |= {name: _text(record, name) for name in _TEXTS if name in record}
    return header | ({"created": _time(record["created"])} if "created" in record else {})


def message_of(record: Mapping[str, Any]) -> Message | None:
    """The message of a record; None if a field is missing, or of another kind than it should be."""
    given = {name: value for name, value in record.items() if name in _KINDS}
    if not {"id", "role", "text"} <= given.keys() or not all(_KINDS[name](value) for name, value in given.items()):
        return None
    given |= {name: _flat(given[name]) for name in ("sampling", "figures") if name in given}
    given |= {name: tuple(given.get(name, ())) for name in ("ids", "calls")} | {"time": _time(given.get("time"))}
    return Message(**{"parent": None, **given})


def mark_of(record: Mapping[str, Any]) -> Mark | None:
    """The mark of a record; None without a head. All else that is of another kind than it should be counts as not given."""
    head, name, count = record.get("head"), _text(record, "name"), record.get("messages")
    if head is not None and not _is_id(head):
        return None
    return Mark(
        head=head,
        name=name if is_name(name) else "",
        title=_text(record, "title"),
        model=_text(record, "model"),
        messages=count if _is_id(count) else 0,
        changed=_time(record.get("changed")),
    )


def is_name(value: str) -> bool:
    """Whether a conversation may have this name: printable, no path, no number, no option."""
    return (
        0 < len(value) <= MAX_NAME
        and value.isprintable()
        and value == value.strip()
        and not value.startswith("-")
        and not value.isdecimal()
        and not set(value) & set("/\\")
    )


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _refused(text: str) -> NoReturn:
    raise ValueError(text)  # NaN and Infinity are not JSON


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON knows them: a figure that is no number is none."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Words, figures and lists of them: nothing is so deep that it could not be shown."""
    return {
        name: value
        for name, value in values.items()
        if not any(isinstance(part, list | dict) for part in (value if isinstance(value, list) else [value]))
    }


def _time(value: Any) -> float:
    return float(value) if type(value) in (int, float) and 0 <= value < _LATEST else 0.0


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 < value < _MOST_ID


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(id) is int and 0 <= id < 1 << 31 for id in value)


def _is_calls(value: Any) -> bool:
    keys = {"id", "name", "arguments"}
    return isinstance(value, list) and all(
        isinstance(call, dict) and call.keys() == keys and all(map(_is_text, call.values())) for call in value
    )


_KINDS: dict[str, Callable[[Any], bool]] = {
    "id": _is_id,
    "parent": lambda value: value is None or _is_id(value),
    "role": lambda value: isinstance(value, str) and value in ROLES,
    "text": _is_text,
    "thoughts": _is_text,
    "ids": _is_ids,
    "finish_reason": _is_text,
    "sampling": _is_table,
    "figures": _is_table,
    "time": lambda value: True,
    "calls": _is_calls,
    "call": _is_text,
}
