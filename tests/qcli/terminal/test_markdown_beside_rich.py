"""Answers on the screen, compared line for line with what Rich shows of the whole."""

from __future__ import annotations

import random
import re

import pytest
from rendered import by_rich, lines, screen

LONG = """# Überschrift mit 漢字

Some prose with **bold and *nested* words**, `code spans`, 你好，世界。这是一个很长的句子，没有空格，需要换行。**粗体**再见。
Then 👩‍👩‍👧‍👦 a family, ❤️ a heart, é in two parts. It goes on, with words and * stars *, snake_case_name, 2*3 and a_b.

- a first item whose text is long enough for more than one line on a narrow terminal
  - nested *item* with 日本語のテキストがここにあります。とても長いので折り返します。
    1. deep
    2. deeper, with so many words that these are wrapped too
  - back
- second

  and its other paragraph

3. three
4. four
   > quoted in a list
   > goes on

> A quote with **bold** words, long enough for more than one line on a narrow terminal
> - a list in it
>   - and one in that

***

| Name | 値 | Note |
|:-----|:--:|-----:|
| a | 漢字 | a long note that is wrapped if the window is narrow |
| `b` | **x** | [y](http://z) |

## Links

A [link](http://example.org/path), ~~gone~~ words, **“引号”** 。
A hard break\x20\x20
and\\
another. https://example.org/a/long/address/that/does/not/fit/on/a/line/of/forty/columns
"""
CODE = re.compile(r" (?= *code\(\d\)$)")  # what Rich has at the left of code
WORDS = """word **bold** *it* `code` 漢字仮名 ，。 don't 👩‍👩‍👧 snake_case 2*3*4 [l](http://u) ~~s~~ a\\*b &amp; <b>
(**x**) “**x**” é __u__ ***both*** 。**太字**です""".split()
WORDS += ["**bold words here**", "*a **b** c*", "`two  words`"]


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_long_answer_stands_there_as_rich_shows_it(columns: int) -> None:
    assert lines(screen(LONG, columns)) == lines(by_rich(LONG, columns))


@pytest.mark.parametrize("seed", range(40))
def test_any_document_stands_there_as_rich_shows_it(seed: int) -> None:
    text = "\n".join(Document(seed).blocks())
    for columns in (30, 72):
        rich = [CODE.sub("", line, count=1) for line in lines(by_rich(text, columns))]
        assert lines(screen(text, columns)) == rich, text


class Document:
    """Writes blocks within blocks, at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def blocks(self) -> list[str]:
        """The lines of several blocks, most with a blank line after them."""
        return [line for _ in range(5) for line in (*self._block(0), *[""] * self._random.choice([0, 1, 1, 1]))]

    def _words(self) -> str:
        return " ".join(self._random.choices(WORDS, k=self._random.randint(1, 8)))

    def _prose(self) -> list[str]:
        return [self._words() for _ in range(self._random.randint(1, 3))]

    def _block(self, depth: int) -> list[str]:
        kinds = [self._prose, self._heading, self._code, self._table, lambda: ["---"]]
        if depth < 3:
            kinds += [lambda: self._list(depth), lambda: self._numbered(depth), lambda: self._quote(depth)] * 2
        return self._random.choice(kinds)()

    def _inner(self, depth: int) -> list[str]:
        return [self._words(), "", *self._block(depth + 1)]

    def _list(self, depth: int) -> list[str]:
        mark = self._random.choice("-+*")
        return [line for _ in range(3) for line in _indented(f"{mark} ", self._inner(depth))]

    def _numbered(self, depth: int) -> list[str]:
        items = [line for number in (1, 2, 3) for line in _indented(f"{number}. ", self._inner(depth))]
        return [*items, "", "after which no longer list goes on"]

    def _quote(self, depth: int) -> list[str]:
        return [f"> {line}" for line in self._inner(depth)]

    def _heading(self) -> list[str]:
        return [f"{'#' * self._random.randint(1, 6)} {self._words()}"]

    def _code(self) -> list[str]:
        return ["```python", "code(1)", "", "  code(2)", "```"]

    def _table(self) -> list[str]:
        return ["| a | b |", "|---|--:|", f"| 1 | {self._random.choice(WORDS)} |", "| two | 2 |"]


def _indented(mark: str, inner: list[str]) -> list[str]:
    return [mark + inner[0], *(line and " " * len(mark) + line for line in inner[1:])]
