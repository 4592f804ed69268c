"""`multipleOf`: a grammar keeps remainders, one state for each, before the first character is there."""

from __future__ import annotations

from decimal import Decimal
from math import lcm
from typing import Any, Final

from qcli.constraints.schema_parts import parts_of

MOST: Final = 100_000  # remainders: half a second to two; ten times as many take 13 s, and 290 MB
_WITH_OTHERS: Final = ("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "patternProperties", "dependentSchemas")


def remainders(schema: Any) -> int:
    """How many remainders a grammar may have to tell apart; a bound, as schemas that meet are not looked for."""
    numbers, meet = [], False
    for _, part in parts_of(schema):
        if (number := _digits(part.get("multipleOf"))) > 1:
            numbers.append(number)
        meet = meet or "allOf" in part or (len(part) > 1 and any(key in part for key in _WITH_OTHERS))
    return len(numbers) * _common(numbers) if meet else sum(numbers)


def _common(numbers: list[int]) -> int:
    """The least common multiple, or one of some of them, if that is too large."""
    together = 1
    for number in numbers:
        if together <= MOST:
            together = lcm(together, number)
    return together


def _digits(value: Any) -> int:
    """A number without its point and without zeros at its end, which cost nothing; 1 for what is no number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return 1
    return int("".join(map(str, Decimal(str(value)).as_tuple().digits)).strip("0"))
