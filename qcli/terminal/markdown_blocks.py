"""What the lines of Markdown begin: headings, lists, quotes, rules, code, tables, by the rules of CommonMark."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARKERS = re.compile(r"(?:[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t])))*[ \t]*")
_UNDECIDED = re.compile(
    r"#{1,6}(?:[ \t].*)?|```.*|~~~.*|`{1,2}|~{1,2}|\|.*|([-*_])(?:[ \t]*\1)*[ \t]*|\+|=+[ \t]*|\d{1,9}[.)]?|", re.DOTALL
)
_CODE_IN_ITEM = re.compile(r"[-+*.)>](?: {5}| *\t)")
_QUOTE = re.compile(r" {0,3}> ?")
_ITEM = re.compile(r"( {0,3})([-+*]|(\d{1,9})([.)]))( +|$)")
_RULE = re.compile(r" {0,3}([-*_])(?: *\1){2,} *$")
_HEADING = re.compile(r" {0,3}(#{1,6})(?: |$)")
_UNDERLINE = re.compile(r" {0,3}(?:-+|=+) *$")
_FENCE = re.compile(r"( {0,3})(`{3,}(?=[^`]*$)|~{3,}) *(\S*).*$")
_HEADER_RULE = re.compile(r" {0,3}\|?(?: *:?-+:? *\|)* *:?-+:? *\|? *$")


@dataclass
class Container:
    """A quote, or an item of a list: what stands before its lines on the screen, and which lines belong to it."""

    kind: str  # > for a quote, - + * . or ) for an item
    number: int = 0
    indent: int = 0  # columns of the source that its lines begin with
    bare: bool = True  # whether nothing of it has been shown

    @property
    def marker(self) -> str:
        """What its first line begins with."""
        if self.kind == ">":
            return "▌ "
        return f" {self.number} " if self.is_numbered else " • "

    @property
    def is_numbered(self) -> bool:
        """Whether it is an item of a numbered list."""
        return self.kind in ".)"

    @property
    def cells(self) -> int:
        """By how much its text is narrower: Rich leaves two cells free beside a quote."""
        return 4 if self.kind == ">" else len(self.marker)

    def rest(self, line: str) -> str | None:
        """What a line holds within this container; None if it does not belong to it."""
        if self.kind == ">":
            found = _QUOTE.match(line)
            return line[found.end() :] if found else None
        if not line.strip():
            return ""
        return line[self.indent :] if indentation(line) >= self.indent else None


@dataclass
class Fence:
    """The opening line of fenced code."""

    indent: int
    mark: str
    language: str

    def is_closed_by(self, line: str) -> bool:
        """Whether a line ends the code."""
        found = re.fullmatch(r" {0,3}(`{3,}|~{3,})[ \t]*", line)
        return found is not None and found[1].startswith(self.mark)


def spread(line: str) -> str:
    """A line whose tabs before the text are spaces."""
    end = _MARKERS.match(line).end()  # type: ignore[union-attr]
    return line[:end].expandtabs(4) + line[end:]


def is_decided(line: str) -> bool:
    """Whether so much of a line tells what it begins, and that it is a paragraph, whose words need not wait."""
    markers = _MARKERS.match(line)
    assert markers is not None
    return not _UNDECIDED.fullmatch(line, markers.end()) and not _CODE_IN_ITEM.search(markers[0])


def indentation(line: str) -> int:
    """How many spaces a line begins with."""
    return len(line) - len(line.lstrip(" "))


def container(line: str, in_paragraph: bool) -> tuple[Container, str] | None:
    """The quote or item that a line begins, and the rest of the line; some numbers do not interrupt a paragraph."""
    if found := _QUOTE.match(line):
        return Container(">"), line[found.end() :]
    found = _ITEM.match(line)
    if not found or is_rule(line):
        return None
    number, rest, spaces = int(found[3] or 1), line[found.end() :], len(found[5])
    if in_paragraph and (not rest or number != 1):
        return None
    if not rest or spaces > 4:
        rest, spaces = " " * (spaces - 1) + rest if rest else "", 1
    indent = len(found[1]) + len(found[2]) + spaces
    return Container(found[4] or found[2], number, indent), rest


def is_rule(line: str) -> bool:
    """Whether a line is drawn across: three or more of - * _."""
    return bool(_RULE.match(line))


def is_underline(line: str) -> bool:
    """Whether a line makes a heading of the paragraph above it."""
    return bool(_UNDERLINE.match(line))


def heading(line: str) -> tuple[int, str] | None:
    """The level and the text of a heading."""
    found = _HEADING.match(line)
    if not found:
        return None
    text = line[found.end() :].strip()
    without = text.rstrip("#")  # those at its end are no part of it if a space stands before them
    return len(found[1]), text if without[-1:].strip() else without.rstrip()


def fence(line: str) -> Fence | None:
    """The fence that a line is."""
    found = _FENCE.match(line)
    return Fence(len(found[1]), found[2], found[3]) if found else None


def begins_block(line: str, in_paragraph: bool) -> bool:
    """Whether a line ends a paragraph or a table that it follows."""
    if indentation(line) > 3:
        return False
    return bool(is_rule(line) or heading(line) or fence(line) or container(line, in_paragraph))


def is_header_rule(line: str, header: str) -> bool:
    """Whether a line stands between the header of a table and its rows."""
    return "-" in line and bool(_HEADER_RULE.match(line)) and _cells(line) == _cells(header)


def _cells(row: str) -> int:
    return len(re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|")))
