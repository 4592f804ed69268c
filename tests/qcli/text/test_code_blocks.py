"""Blocks of code: of a whole text, and the first one of a text that comes in pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcli.text.code_blocks import FirstBlock, code_blocks, opened


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("none", []),
        ("a\n```py\nx = 1\n\n```\nb\n~~~\ny\n~~~", ["x = 1\n\n", "y\n"]),
        ("  ```\n  x\n    y\n z\n  ```\n", ["x\n  y\nz\n"]),
        ("````\n```\nx\n```\n````\n", ["```\nx\n```\n"]),
        ("```x```\nno block\n", []),
        ("```\r\nx\r\n```\r\n", ["x\r\n"]),
        ("```\nx\x0c\x1cy", ["x\x0c\x1cy"]),
        ("```\n```\n", [""]),
    ],
)
def test_blocks(text, blocks):
    assert code_blocks(text) == blocks


@given(st.text("`~ a\n", max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_the_first_one_is_the_same_however_the_text_is_cut(text, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    first = FirstBlock()
    closed = any([first.push(text[a:b]) for a, b in pairwise(places)])
    blocks = code_blocks(text)
    if closed:
        assert first.found == blocks[0]
    assert first.end() == (blocks[0] if blocks else None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("one\n```py\na = 1\n", "```py\n"),
        ("```\na\n```\nb", ""),
        ("```\na\n```\n~~~ sh\nls", "~~~ sh\n"),
        ("- one\n  ```c\n  int", "  ```c\n"),
        ("```py", "```py"),
    ],
)
def test_the_block_in_whose_midst_a_text_ends(text, line):
    assert opened(text) == line
