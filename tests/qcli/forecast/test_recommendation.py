"""The file that a person would take: sizes of real repositories, on machines with as much memory as people have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcli.bench.shapes import find_shape
from qcli.forecast import glance
from qcli.forecast.known_shape import header_of_shape
from qcli.forecast.prospect import Offer, Prospect
from qcli.forecast.recommendation import recommended
from qcli.forecast.survey import survey

GB = 10**9
NEXT = "qwen3-next-80b-a3b", {"Q4_K_M": 48.4, "Q5_0": 55, "Q5_K_M": 56.7, "Q6_K": 65.5, "Q8_0": 84.8, "": 159.5}
CODER = "qwen3-next-80b-a3b", {"UD-IQ3_XXS": 32.7, "UD-Q4_K_M": 49.3, "UD-Q4_K_XL": 49.6, "Q8_0": 84.8}
QWEN30 = (
    "qwen3-30b-a3b",
    {"UD-TQ1_0": 8.1, "UD-IQ1_S": 9.1, "Q2_K": 11.3, "UD-Q2_K_XL": 11.8, "Q3_K_M": 14.7, "IQ4_XS": 16.4, "Q4_K_S": 17.5}
    | {"UD-Q4_K_XL": 17.7, "Q4_K_M": 18.5, "Q5_K_M": 21.7, "UD-Q5_K_XL": 21.8, "Q6_K": 25.1, "UD-Q6_K_XL": 26.3}
    | {"Q8_0": 32.5, "UD-Q8_K_XL": 36.0, "BF16": 61.1},
)
BYTESHAPE = "qwen3-30b-a3b", {"IQ3_S-2.69bpw": 10.3, "IQ4_XS-3.87bpw": 14.8, "IQ4_XS-4.67bpw": 17.8}

PEOPLE = [  # memory of the machine in GB, of which a fifteenth and 2 GB are taken
    (QWEN30, 8, "UD-TQ1_0", "the smallest"),
    (QWEN30, 16, "Q4_K_M", "streamed"),
    (QWEN30, 24, "IQ4_XS", "little to spare"),
    (QWEN30, 32, "Q4_K_M", "leaves some memory"),
    (QWEN30, 64, "Q6_K", "leaves some memory"),
    (QWEN30, 128, "Q8_0", "plenty"),
    (BYTESHAPE, 24, "IQ4_XS-3.87bpw", "the best that stays in memory"),
    (BYTESHAPE, 32, "IQ4_XS-4.67bpw", "leaves some memory"),
    (NEXT, 16, "Q4_K_M", "the smallest"),
    (NEXT, 32, "Q4_K_M", "streamed"),
    (NEXT, 64, "Q4_K_M", "little to spare"),
    (NEXT, 128, "Q6_K", "leaves some memory"),
    (CODER, 48, "UD-IQ3_XXS", "stays in memory"),
    (CODER, 96, "UD-Q4_K_M", "leaves some memory"),
]


@pytest.mark.parametrize(("repository", "memory", "quant", "reason"), PEOPLE)
def test_what_suits_whom(monkeypatch, repository, memory, quant, reason):
    monkeypatch.setattr(glance, "room", lambda _: round((memory * 14 / 15 - 2) * GB))
    shape, sizes = repository
    offers = [Offer(name, int(size * GB)) for name, size in sizes.items()]
    found = survey(header_of_shape(find_shape(shape)), offers)
    assert found.recommended is not None
    taken, why = found.recommended
    assert offers[taken].quant == quant
    assert reason in why


def one(quant: str, size: float, fit: str = "in memory", bits: float | None = None, **more) -> Prospect:
    return Prospect(quant, int(size * GB), bits or size, fit, int(size * GB), **more)


def taken(found: list[Prospect], memory: int = 99) -> tuple[int, str]:
    told = recommended(found, memory * GB)
    assert told is not None
    return told


def test_streaming_has_to_be_of_use():
    slow = [one("Q4_K_M", 4.8, "streamed", tok_per_s=4.0), one("IQ2_M", 2.7)]
    assert taken(slow, 4) == (1, "the best that stays in memory; so few bits cost knowledge")
    quick = [replace(slow[0], tok_per_s=7.4), slow[1]]
    assert taken(quick, 4)[0] == 0
    assert "at about 7 tok/s" in taken(quick, 4)[1]


def test_the_plain_name_goes_before_one_that_is_as_good():
    for odd in ("UD-Q5_K_XL", "Q5_1", "Q5_K_L"):
        assert taken([one(odd, 5.8), one("Q5_K_M", 5.7)])[0] == 1
    assert taken([one("Q4_1", 5.0), one("Q5_K_M", 5.7)])[0] == 1
    assert taken([one("UD-Q6_K_XL", 6.6), one("Q4_K_M", 4.8)])[0] == 0


def test_floats_alone_and_none_at_all():
    assert taken([one("F32", 32.0), one("BF16", 16.0)]) == (1, "the smallest, and it stays in memory")
    assert recommended([one("Q4_K_M", 5, "too large"), one("IQ2_KS", 2, "cannot run")], GB) is None
    assert recommended([], GB) is None
    unknown = [Prospect("", 9 * GB, None, "larger than memory"), Prospect("", 5 * GB, None, "larger than memory")]
    assert recommended(unknown, GB) == (1, "the smallest; none stays in memory")
