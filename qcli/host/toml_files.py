"""TOML files that a user writes: read with complaints that name file and line; one key changed, and all else kept."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcli.errors import QcliError, UsageError
from qcli.host.atomic_files import AtomicFiles, output_errors
from qcli.host.named_files import resolved
from qcli.wording import shortened

_MOST = 1 << 20  # bytes
_LONG = 1000  # characters of a line, beyond which its comment is not looked for
_MARK = "\ufeff"  # with which some editors begin a text
_EXAMPLE = 'a line is KEY = VALUE, with quotes around a text, as in: model = "storyteller"'
_HEADER = re.compile(r"""\s*\[\s*(?:"(?P<quoted>[^"]*)"|'(?P<literal>[^']*)'|(?P<bare>[^\[\]"'\s]+))\s*\]""")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_AFTER_VALUE = re.compile(r"""=\s*(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^"'#\s\[{][^#]*?)(?P<rest>\s*(?:\#.*)?)$""")


@dataclass(frozen=True)
class TomlFile:
    """A file as it was read; one that is not there is empty."""

    path: Path
    text: str
    values: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Raises UsageError for what is no TOML, QcliError for a file that cannot be read."""
        text = _text_of(path)
        try:
            return cls(path, text, tomllib.loads(text.removeprefix(_MARK)))
        except tomllib.TOMLDecodeError as problem:
            raise _broken(path, text, str(problem)) from None
        except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
            raise UsageError(f"{path}: cannot be read as TOML", _EXAMPLE) from None

    def where(self, key: str, table: str = "") -> str:
        """The file, and the line in which the key stands, of a table or at the top, as messages name them."""
        line = self.line_of(key, table)
        return f"{self.path}, line {line}" if line else str(self.path)

    def line_of(self, key: str, table: str = "") -> int | None:
        """The line, from 1, in which a key stands; if it is not found, that of its table."""
        inside, found = "", None
        for number, line in enumerate(_lines(self.text.removeprefix(_MARK)), 1):
            if (name := _table_of(line)) is not None:
                inside = name
                found = number if table and inside == table else found
            elif inside == table and _begins(line, key):
                return number
        return found

    def write(self, key: str, literal: str | None) -> None:
        """Give a key at the top another value, written as in TOML, or none; the file appears whole, or stays as it is.

        What is a link stays one. Raises UsageError where the line cannot be told, OutputError.
        """
        self._replace(changed(self.text, key, literal))

    def add_table(self, name: str, key: str, literal: str) -> None:
        """Add a table with one key at the end of the file. Raises as `write` does."""
        self._replace(with_table(self.text, name, key, literal))

    def remove_table(self, name: str) -> None:
        """Take a table out of the file, with the comments in it. Raises as `write` does."""
        self._replace(without_table(self.text, name))

    def _replace(self, text: str) -> None:
        path = resolved(self.path)
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with AtomicFiles([path], overwrite=True, reads=()) as files:
            file = files.open(path)
            with output_errors(path):
                file.write(text.encode())
                if path.exists():
                    shutil.copymode(path, file.name)


def changed(text: str, key: str, literal: str | None) -> str:
    """A file's text in which a key at the top has another value, or none; comments and all other keys stay as they are.

    Every edit is read again: what does not come out as it is meant is not taken. Raises UsageError if none does.
    """
    mark, body = (_MARK, text[1:]) if text.startswith(_MARK) else ("", text)
    values = tomllib.loads(body)
    wanted = {name: value for name, value in values.items() if name != key}
    if literal is not None:
        wanted |= tomllib.loads(f"{key} = {literal}")
    lines = _lines(body)
    edits = _replaced(lines, key, literal) if key in values else _inserted(lines, f"{key} = {literal}")
    for edit in edits if wanted != values else [body]:
        try:
            if tomllib.loads(edit) == wanted:
                return mark + edit
        except tomllib.TOMLDecodeError:
            continue
    raise _not_from_here(key)


def with_table(text: str, name: str, key: str, literal: str) -> str:
    """A file's text with one more table, of one key, at its end. Raises UsageError if something has this name already."""
    values, lines = tomllib.loads(text.removeprefix(_MARK)), _lines(text)
    if name in values:
        raise UsageError(f"{name} is in the file already", "give another name, or take it out first")
    ending = _ending(lines)
    unfinished = ending if text and not text.endswith("\n") else ""
    apart = ending if lines and lines[-1].strip() else ""
    title = name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    edit = f"{text}{unfinished}{apart}[{title}]{ending}{key} = {literal}{ending}"
    return _as_meant(edit, values | {name: tomllib.loads(f"{key} = {literal}")}, name)


def without_table(text: str, name: str) -> str:
    """A file's text without a table; what is said of the next one stays. Raises UsageError if it cannot be told apart."""
    lines = _lines(text)
    wanted = {key: value for key, value in tomllib.loads(text.removeprefix(_MARK)).items() if key != name}
    start = next((number for number, line in enumerate(lines) if _table_of(line.removeprefix(_MARK)) == name), None)
    if start is None:
        raise _not_from_here(name)
    end = next((n for n in range(start + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    while start + 1 < end < len(lines) and lines[end - 1].lstrip().startswith("#"):
        end -= 1
    mark = _MARK if lines[start].startswith(_MARK) else ""
    return _as_meant(mark + "".join(lines[:start] + lines[end:]), wanted, name)


def _as_meant(edit: str, wanted: dict[str, Any], name: str) -> str:
    """An edit, if it says what is wanted when it is read again."""
    with suppress(tomllib.TOMLDecodeError):
        if tomllib.loads(edit.removeprefix(_MARK)) == wanted:
            return edit
    raise _not_from_here(name)


def _not_from_here(name: str) -> UsageError:
    return UsageError(
        f"{name} stands in the file in a way that cannot be changed from here", "change it with an editor"
    )


def _table_of(line: str) -> str | None:
    """The name of the table that begins in a line."""
    header = _HEADER.match(line)
    return next(name for name in header.groups() if name is not None) if header else None


def _replaced(lines: list[str], key: str, literal: str | None) -> Iterator[str]:
    """Texts in which a line that begins with the key, or that and some of the next, are replaced: the likeliest first."""
    for start in (number for number, line in enumerate(lines) if _begins(line, key)):
        rest = _AFTER_VALUE.search(lines[start].rstrip("\r\n")) if len(lines[start]) < _LONG else None
        ending = _ending(lines[start:])
        for after in (rest["rest"] if rest else "", ""):
            new = "" if literal is None else f"{key} = {literal}{after}{ending}"
            yield "".join([*lines[:start], new, *lines[start + 1 :]])
        for end in range(start + 2, min(len(lines), start + 100) + 1):
            yield "".join([*lines[:start], new, *lines[end:]])


def _inserted(lines: list[str], line: str) -> Iterable[str]:
    """Texts with another line: before the first table, else at the beginning."""
    first = next((number for number, each in enumerate(lines) if each.lstrip().startswith("[")), len(lines))
    while 0 < first < len(lines) and lines[first - 1].lstrip().startswith("#"):
        first -= 1  # what is said of the table
    ending = _ending(lines)
    before = "".join(lines[:first])
    before += ending if before and not before.endswith(("\n", "\r")) else ""
    return [f"{before}{line}{ending}{''.join(lines[first:])}", f"{line}{ending}{''.join(lines)}"]


def _lines(text: str) -> list[str]:
    """The lines of TOML, which knows fewer ends of them than Python, with their ends."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _ending(lines: list[str]) -> str:
    return "\r\n" if lines and lines[0].endswith("\r\n") else "\n"


def _begins(line: str, key: str) -> bool:
    return re.match(rf"""\s*(?:{re.escape(key)}|"{re.escape(key)}"|'{re.escape(key)}')\s*=""", line) is not None


def _text_of(path: Path) -> str:
    try:
        if not path.exists():
            return ""
    except OSError:  # a folder that this user may not enter, and where nothing can be set
        return ""
    if not path.is_file():
        raise QcliError(f"{path}: is not a file that can be read", "move it away")
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
    except OSError as problem:
        raise QcliError(f"{path}: cannot be read: {problem.strerror or problem}", "check its permissions") from None
    if len(data) > _MOST:
        raise UsageError(f"{path}: is too large for a file of settings", "move it away")
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: is not text in UTF-8", "save it as UTF-8 with an editor") from None


def _broken(path: Path, text: str, said: str) -> UsageError:
    reason, _, where = said.partition(" (at ")
    reason = reason[:1].lower() + reason[1:]
    lines = _lines(text)
    found = re.match(r"line (\d+)", where)
    number = int(found[1]) if found else max(1, len(lines))
    line = lines[number - 1].strip() if number <= len(lines) else ""
    return UsageError(f"{path}, line {number}: cannot be read: {shortened(line)} ({reason})", _EXAMPLE)
