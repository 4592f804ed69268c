"""Counts, sizes and quantities in sentences and tables."""

from __future__ import annotations

import pytest

from qcli.wording import counted, quantity, size


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


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [(0, "0 kB"), (340_000, "340 kB"), (24_200_000, "24 MB"), (999_000_000, "999 MB"), (48_400_000_000, "48.4 GB")],
)
def test_sizes(n_bytes, said):
    assert size(n_bytes) == said


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "0 "),
        (999, "999 "),
        (1000, "1.00 k"),
        (12_345, "12.3 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (38_433_376, "38.4 M"),
        (81_300_000_000, "81.3 G"),
        (10**13, "10.0 T"),
    ],
)
def test_quantities_have_three_digits(n, said):
    assert quantity(n) == said


def test_quantities_of_bytes():
    assert [quantity(n, "B") for n in (204, 15_200_000)] == ["204 B", "15.2 MB"]
