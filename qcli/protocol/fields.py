"""The fields of a request's object, each of the type that it must have; null is as good as not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qcli.protocol.errors import RequestError
from qcli.wording import shortened


class Fields:
    """An object of a body; where: how it is called in errors, as `messages[2]`."""

    def __init__(self, values: Any, where: str = "") -> None:
        """Raises RequestError for what is no object."""
        if not isinstance(values, dict):
            raise RequestError(f"{where} cannot be {shown(values)}", "give an object", param=where)
        self.values, self._where = values, where

    def path(self, name: str) -> str:
        """What errors call a field."""
        return f"{self._where}.{name}" if self._where else name

    def has(self, name: str) -> bool:
        """Whether a field is there, and not null."""
        return self.values.get(name) is not None

    def wrong(self, name: str, hint: str) -> RequestError:
        """The error that says that a field cannot be what it is."""
        if not self.has(name):
            return RequestError(f"{self.path(name)} is missing", hint, param=self.path(name))
        return RequestError(f"{self.path(name)} cannot be {shown(self.values[name])}", hint, param=self.path(name))

    def text(self, name: str, default: str | None = None) -> str:
        """A text; without a default it has to be there."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.wrong(name, "give a text")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.values.get(name)
        if not isinstance(value, bool | None):
            raise self.wrong(name, "give true or false")
        return default if value is None else value

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number of a range; None where it is not there."""
        value = self.values.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise self.wrong(name, f"give a whole number from {least:,} to {most:,}")
        return value

    def word(self, name: str, words: Sequence[str]) -> str | None:
        """One of some words; None where it is not there."""
        value = self.values.get(name)
        if value is not None and value not in words:
            raise self.wrong(name, f"give {', '.join(words)}")
        return value

    def table(self, name: str) -> Fields | None:
        """An object; None where it is not there."""
        return Fields(self.values[name], self.path(name)) if self.has(name) else None

    def each(self, name: str, most: int) -> Iterator[Fields]:
        """The objects of a list; of none where it is not there."""
        values = self.values.get(name)
        if not isinstance(values, list | None):
            raise self.wrong(name, "give a list")
        if values and len(values) > most:
            raise RequestError(f"{self.path(name)} has {len(values):,} entries", f"give at most {most:,}", param=name)
        for number, value in enumerate(values or ()):
            yield Fields(value, f"{self.path(name)}[{number}]")


def shown(value: Any) -> str:
    """A value in an error, on a line and not too long of it."""
    if isinstance(value, bool):
        return "true" if value else "false"  # as JSON has it
    return shortened(repr(value) if isinstance(value, str | bool | int | float) else f"{value!r:.200}")
