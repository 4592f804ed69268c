"""The file of questions: lines of JSON, or rows of a table that a template is filled with."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.protocol.body import MOST_BYTES, parsed
from qcli.protocol.errors import RequestError
from qcli.wording import counted, shortened

_PLACES: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LONGEST_ID: Final = 512  # characters
_TABLES: Final = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Row:
    """A line of the file; of one that cannot be read, what is wrong with it."""

    id: str  # its custom_id, else made of its number: "line-7"
    identity: str  # from which its seed follows: the custom_id, else what it says, and how often that was said before
    values: dict[str, Any] = field(default_factory=dict)
    problem: QcliError | None = None
    place: str = ""  # the number of one that has a custom_id: "line-7"

    @property
    def digest(self) -> str:
        """24 digits by which its result shows whose it is: they follow from its id and from all that it says."""
        return _hashed([self.id, self.values])[:24]


class Source:
    """A file of questions; it is read anew by each iteration, a line at a time."""

    def __init__(self, path: Path, template: str | None = None) -> None:
        """template: a text for each row of a table, with the names of columns in braces.

        Raises ModelNotFoundError for no such file, UsageError for a template without a table, or a table without one.
        """
        self.path = path
        self._delimiter = _TABLES.get(path.suffix.lower())
        self._template = template
        if path.exists() and not path.is_file():
            hint = "write what comes into a file first" if not path.is_dir() else "name a file in it"
            raise UsageError(f"{path}: is {'a folder' if path.is_dir() else 'not a file, and is read twice'}", hint)
        if not path.is_file():
            raise ModelNotFoundError(f"{path}: no such file", "give the path of a file with a question on each line")
        if self._delimiter is None and template is not None:
            raise UsageError("--template is for a table: a .csv or .tsv file", "leave it out")
        if self._delimiter is not None and template is None:
            hint = 'give one, as in: --template "Is this review good or bad? {review}"'
            raise UsageError(f"{path}: a table needs a --template to make questions of its rows", hint)

    def digests(self) -> dict[str, str]:
        """The digests of all rows, by their ids. Raises UsageError if there are none, or two of the same custom_id."""
        seen: dict[str, str] = {}
        found: dict[str, str] = {}
        for row in self:
            place = (row.place or row.id).replace("-", " ")
            if row.id in seen:
                hint = "give each line a custom_id of its own: by it a run that was stopped goes on"
                raise UsageError(f"{self.path}: {seen[row.id]} and {place} are both called {shortened(row.id)}", hint)
            seen[row.id] = place
            found[row.id] = row.digest
        if not seen and self._delimiter is not None:
            raise UsageError(f"{self.path}: has no rows", "write some below the line with the names of columns")
        if not seen:
            raise UsageError(f"{self.path}: is empty", 'write a line such as {"prompt": "Why is the sky blue?"}')
        return found

    def __iter__(self) -> Iterator[Row]:
        try:
            if self._delimiter is None:
                with open(self.path, "rb") as file:
                    yield from self._of_lines(file)
            else:
                with open(self.path, encoding="utf-8-sig", newline="") as table:
                    yield from self._of_table(table, self._delimiter)
        except UnicodeDecodeError:
            hint = 'save it as UTF-8; spreadsheets call that "CSV UTF-8"'
            raise UsageError(f"{self.path}: is not text in UTF-8", hint) from None
        except OSError as problem:
            raise QcliError(f"{self.path}: cannot be read: {problem.strerror}", "check its permissions") from None

    def _of_lines(self, file: BinaryIO) -> Iterator[Row]:
        said: Counter[str] = Counter()
        for number, line in enumerate(_lines(file), 1):
            data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not data.strip():
                continue
            try:
                yield row_of(parsed(data), f"line-{number}", said)
            except RequestError as problem:
                told = RequestError(problem.message.replace("the body", "the line"), problem.hint)
                yield Row(f"line-{number}", "", problem=told)

    def _of_table(self, file: TextIO, delimiter: str) -> Iterator[Row]:
        csv.field_size_limit(MOST_BYTES)
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            columns = next(rows, [])
            fill = _filler(self._template or "", columns, str(self.path))
            said: Counter[str] = Counter()
            for number, cells in enumerate(rows, 1):
                if not cells:
                    continue
                id = f"row-{number}"
                if len(cells) != len(columns):
                    wrong = (
                        f"the row has {counted(len(cells), 'cell')}, and the table {counted(len(columns), 'column')}"
                    )
                    yield Row(id, "", problem=RequestError(wrong, "put it right"))
                    continue
                values = dict(zip(columns, cells, strict=True))
                named = {"custom_id": values["custom_id"]} if values.get("custom_id") else {}
                yield row_of({**named, "prompt": fill(values)}, id, said)
        except csv.Error as problem:
            raise UsageError(f"{self.path}: line {rows.line_num}: {problem}", "put the table right") from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines; of one that is too long, so much that it is known to be."""
    while line := file.readline(MOST_BYTES + 2):
        rest = line
        while len(rest) == MOST_BYTES + 2 and not rest.endswith(b"\n"):
            rest = file.readline(MOST_BYTES + 2)
        yield line.rstrip(b"\r\n")


def row_of(values: dict[str, Any], id: str, said: Counter[str]) -> Row:
    """What a row says; id: in place of a custom_id; said: how often each text has come before."""
    given = values.get("custom_id")
    if given is None:
        key = _hashed(values)
        said[key] += 1
        return Row(id, f"{key} {said[key]}", values)
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_ID:
        wrong = f"custom_id cannot be {shortened(repr(given))}"
        return Row(id, "", problem=RequestError(wrong, f"give a text of at most {_LONGEST_ID} characters"))
    return Row(given, given, values, place=id)


def _hashed(values: Any) -> str:
    """The SHA-256 of values, the same in every run; columns of a table may have some that JSON has not."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=_shown).encode()).hexdigest()


def _shown(value: Any) -> str:
    """A value that JSON has not; of one whose text may have an address in it, its type."""
    return repr(value) if isinstance(value, bytes | date | time | timedelta | Decimal) else type(value).__qualname__


def _filler(template: str, columns: list[str], where: str) -> Callable[[Mapping[str, str]], str]:
    """Fills a template with the cells of a row. Raises UsageError for a column that there is not, or that is there twice."""
    there = f"there are {', '.join(f'{{{column}}}' for column in columns[:12])}"
    names = []
    for place in _PLACES.finditer(template):
        if place[0] in ("{{", "}}"):
            continue
        if place[1] is None:
            raise UsageError(f"--template: a {place[0]} stands alone", f"write {2 * place[0]} for the character itself")
        if place[1] not in columns:
            raise UsageError(f"{where}: has no column {shortened(place[1])!r}", _hint(columns, there))
        names.append(place[1])
    if not names:
        raise UsageError("--template names no column: each row would be asked the same", _hint(columns, there))
    for name in (*names, "custom_id"):
        if columns.count(name) > 1:
            raise UsageError(f"{where}: two columns are called {shortened(name)!r}", "rename one of them")

    def filled(values: Mapping[str, str]) -> str:
        return _PLACES.sub(lambda place: place[0][0] if place[1] is None else values[place[1]], template)

    return filled


def _hint(columns: list[str], there: str) -> str:
    """What to do where a column is not found; there: the columns that there are."""
    if not columns:
        return "its first line has to name them"
    other = next((character for character in ";\t|" if len(columns) == 1 and character in columns[0]), None)
    return f"put commas between columns in place of {other!r}; with tabs, call it .tsv" if other else there
