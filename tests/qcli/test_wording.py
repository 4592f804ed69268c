"""Counts in sentences."""

from __future__ import annotations

import pytest

from qcli.wording import counted


@pytest.mark.parametrize(
    ("n", "words", "said"),
    [
        (0, ("chunk",), "0 chunks"),
        (1, ("chunk",), "1 chunk"),
        (2, ("chunk",), "2 chunks"),
        (2048, ("token",), "2,048 tokens"),
        (1, ("matrix", "matrices"), "1 matrix"),
        (3, ("matrix", "matrices"), "3 matrices"),
    ],
)
def test_one_and_many(n, words, said):
    assert counted(n, *words) == said
