"""Counts, sizes and quantities in sentences and tables."""

from __future__ import annotations

import pytest

from qcli.errors import UsageError
from qcli.wording import counted, parse_size, quantity, size


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


def test_amounts_of_memory_are_read_as_people_write_them():
    written = {"24GB": 24 * 10**9, "2.8g": 2.8e9, "1 GiB": 1 << 30, "512m": 512e6, "1000": 1000, "3kib": 3072}
    assert {text: parse_size(text) for text in written} == written
    for text in ("", "lots", "-1G", "1.2.3G", "5 apples", "1e9"):
        with pytest.raises(UsageError, match="not an amount"):
            parse_size(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 5000 + "GB", "2000000TB", "1e400", "-1", "nan", "inf", ""])
def test_no_amount_of_memory_however_long(text):
    with pytest.raises(UsageError, match="is not an amount of memory") as caught:
        parse_size(text)
    assert len(caught.value.message) < 120
