"""The text of a paragraph in Markdown, read word by word: which words are bold, code, a link.

A word is passed on when it has ended and what has begun in it has too. Bold words that do not end within WAIT_STYLE
characters are taken for bold and passed on, unless the mark is within a word, as in 2*3; a link or a piece of code that
does not within WAIT_SPAN is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar
from markdown_it.token import Token
from rich.default_styles import DEFAULT_STYLES
from rich.style import Style

WAIT_STYLE, WAIT_SPAN = 60, 300  # characters
LONGEST_WORD = 2000  # characters; what is longer is read in parts of this length

Span = tuple[str, Style]

_PLAIN = Style()
_WIDE = "\u2e80-\u2fff\u3001-\u303e\u3041-\u3098\u309b-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff60"
_JOINS = "\u0300-\u036f\u200d\u3099\u309a\ufe00-\ufe0f"  # belongs to the character before it
_UNIT = re.compile(
    rf"\s*(?:\S{{0,{LONGEST_WORD - 1}}}?[{_WIDE}](?=[^\s{_JOINS}])"  # Chinese and Japanese have no spaces
    rf"|\S{{1,{LONGEST_WORD - 1}}}(?=\s)|\S{{{LONGEST_WORD}}})"
)
_SPECIAL = re.compile(r"[`*_~\[\]\\&<!]")
_MARK = re.compile(r"\\.|\\$|`+|\[|<[^\s<>]*>|\*+|_+|~~+", re.DOTALL)
_STYLES = {"em_open": "em", "strong_open": "strong", "s_open": "s"}


def parser() -> MarkdownIt:
    """Markdown as Rich reads it; but HTML is text, for an answer may say vector<int>."""
    return MarkdownIt(options_update={"html": False}).enable("strikethrough").enable("table")


_parser = cache(parser)


class Inline:
    """Takes the text of one paragraph in pieces, and gives its words with their styles."""

    def __init__(self) -> None:
        self._text = ""  # words that have not ended
        self._words = ""  # have ended, but something that began in them has not
        self._before = ""  # the character before these, where no space is
        self._open: list[str] = []  # the marks of styles that are taken to end later

    def feed(self, piece: str) -> Iterator[Span]:
        """The words that this piece completes."""
        self._text += piece
        end = 0
        while unit := _UNIT.match(self._text, end):
            end = unit.end()
            self._words += unit[0]
            yield from self._completed()
        self._text = self._text[end:]

    def close(self) -> Iterator[Span]:
        """What is left at the end of the paragraph."""
        self._words += self._text.rstrip()
        self._text = ""
        while self._open and (found := self._end_of_style()):
            yield from self._until(*found)
        yield from self._parsed(self._words)
        self._words = ""

    @property
    def between_words(self) -> bool:
        """Whether all words that have come have ended, and are passed on."""
        return not self._words and self._text[:1].isspace()

    def _completed(self) -> Iterator[Span]:
        while True:
            if not self._open and not _SPECIAL.search(self._words):
                break
            if self._open and (found := self._end_of_style()):
                yield from self._until(*found)
                continue
            start = unclosed(self._words, self._before)
            if start is None:
                break
            mark = _MARK.match(self._words, start)
            assert mark is not None
            is_style = mark[0][0] in "*_~"
            in_word = self._words[start - 1 : start].isalnum() and not re.match(f"[{_WIDE}]", self._words[start - 1])
            if len(self._words) - start <= (WAIT_STYLE if is_style else WAIT_SPAN):
                return
            if is_style and not in_word:
                yield from self._until(start, mark.end())
                self._open.append(mark[0])
            else:
                literal = re.sub(r"([*_~`\[\\])", r"\\\1", mark[0])
                yield from self._parsed(self._words[:start] + literal)
                self._words, self._before = self._words[mark.end() :], ""
        yield from self._parsed(self._words)
        self._before = self._words[-1:] if re.match(f"[{_WIDE}]", self._words[-1:]) else ""
        self._words = ""

    def _until(self, start: int, end: int) -> Iterator[Span]:
        """Pass on the words before a mark, and leave out the mark; a style that ends there has ended."""
        yield from self._parsed(self._words[:start])
        if self._open and self._words[start:end] == self._open[-1]:
            self._open.pop()
        self._words, self._before = self._words[end:], ""

    def _end_of_style(self) -> tuple[int, int] | None:
        """Where the mark is that ends the style that is taken to be open."""
        mark = self._open[-1]
        for found in _MARK.finditer(self._words):
            if found[0] == mark and found.start() and not self._words[found.start() - 1].isspace():
                inside = self._words[: found.start()]
                if unclosed(inside, self._before) is None:
                    return found.span()
        return None

    def _parsed(self, text: str) -> Iterator[Span]:
        tokens: list[Token] = []
        markdown = _parser()
        markdown.inline.parse(self._before + text, markdown, {}, tokens)
        base = _PLAIN
        for mark in self._open:
            base += _style_of(mark)
        skip = len(self._before)
        for shown, style in spans(tokens, base):
            yield shown[skip:], style
            skip = 0


def spans(tokens: list[Token], base: Style = _PLAIN) -> Iterator[Span]:
    """The texts and styles of what the parser found in a paragraph; the address of a link stands after it."""
    styles = [base]
    links: list[tuple[str, str]] = []
    for token in tokens:
        text, style = token.content, styles[-1]
        if token.type in _STYLES:
            styles.append(style + named(_STYLES[token.type]))
        elif token.type in {"em_close", "strong_close", "s_close"}:
            styles.pop()
        elif token.type == "link_open":
            styles.append(style + named("link"))
            links.append((str(token.attrs.get("href", "")), ""))
        elif token.type == "link_close":
            styles.pop()
            yield from _address(*links.pop(), styles[-1])
        else:
            if token.type == "image":
                text = f"🌆 {text} ({token.attrs.get('src', '')})"
            elif token.type == "code_inline":
                style += named("code")
            text = {"softbreak": " ", "hardbreak": "\n"}.get(token.type, text)
            links = [(address, shown + text) for address, shown in links]
            yield text, style


def _address(address: str, shown: str, style: Style) -> Iterator[Span]:
    """The address of a link, unless it is what is shown already."""
    if address not in (shown, f"mailto:{shown}"):
        yield " (", style
        yield address, style + named("link_url")
        yield ")", style


def unclosed(text: str, before: str = "") -> int | None:
    """Where the first thing begins that has not ended in this text: a style, code, a link; None if all has."""
    opened: list[list[int | str]] = []  # the character of a style, how many of it, where
    at = 0
    while found := _MARK.search(text, at):
        mark, at = found[0], found.end()
        if mark == "\\":
            return found.start()
        if mark[0] == "`":
            code = re.compile(rf"(?<!`){mark}(?!`)").search(text, at)
            if not code:
                return _first(opened, found.start())
            at = code.end()
        elif mark == "[":
            end = _end_of_link(text, found.start())
            if end is None:
                return _first(opened, found.start())
            at = end
        elif mark[0] in "*_~":
            _take_mark(opened, mark, found.start(), text[found.start() - 1] if found.start() else before, text[at:][:1])
    return _first(opened, None)


def _first(opened: list[list[int | str]], otherwise: int | None) -> int | None:
    return int(opened[0][2]) if opened else otherwise


def _take_mark(opened: list[list[int | str]], mark: str, start: int, before: str, after: str) -> None:
    """Count one run of *, _ or ~ among what is open, by the rules of CommonMark for both of its sides."""
    kind, count = mark[0], len(mark)
    opens = _joined(after, before)
    closes = _joined(before, after)
    if kind == "_":
        opens, closes = opens and (not closes or _punctuation(before)), closes and (not opens or _punctuation(after))
    same = [index for index, one in enumerate(opened) if one[0] == kind]
    while closes and count and same:
        index = same.pop()
        del opened[index + 1 :]
        used = min(count, int(opened[index][1]))
        count -= used
        opened[index][1] = int(opened[index][1]) - used
        if not opened[index][1]:
            del opened[index]
    if opens and count:
        opened.append([kind, count, start])


def _joined(to: str, other: str) -> bool:
    """Whether a mark belongs to the character on one side, given the one on its other side."""
    if not to.strip():
        return False
    return not _punctuation(to) or not other.strip() or _punctuation(other)


def _punctuation(character: str) -> bool:
    return bool(character) and (isMdAsciiPunct(ord(character)) or isPunctChar(character))


def _end_of_link(text: str, start: int) -> int | None:
    """Where what begins with [ ends; None if it has not yet."""
    closing = _balanced(text, start, "[", "]")
    if closing is None or text[closing : closing + 1] != "(":
        return closing
    return _balanced(text, closing, "(", ")")


def _balanced(text: str, start: int, opening: str, closing: str) -> int | None:
    depth = 0
    for found in re.finditer(rf"\\.|\{opening}|\{closing}", text[start : start + 2 * WAIT_SPAN], re.DOTALL):
        depth += (found[0] == opening) - (found[0] == closing)
        if not depth:
            return start + found.end()
    return None


def _style_of(mark: str) -> Style:
    if mark[0] == "~":
        return named("s")
    style = named("strong") if len(mark) > 1 else _PLAIN
    return style + named("em") if len(mark) % 2 else style


@cache
def named(name: str) -> Style:
    """The style that Rich gives to a part of Markdown: em, strong, code, link, h1."""
    return DEFAULT_STYLES[f"markdown.{name}"]
