"""Which of a model's files suits a machine.

1. The best up to Q6_K that stays in memory and leaves a sixth of it free; 8 bits if that takes less than a third of the memory.
2. Else the smallest from 4 bits on that stays in memory; else the best of 3 to 4 bits that does.
3. Else the one nearest to Q4_K_M that is streamed at a usable speed.
4. Else the best that stays in memory at all, or the smallest that runs.
5. Among those that are as good within a twentieth, the plain name goes before one that few know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qcli.forecast.prospect import Prospect
from qcli.hub.quant_names import plain, type_of
from qcli.quantize.mixes import MIXES

USABLE: Final = 5.0  # tok/s, about as fast as one reads
_THREE, _FOUR, _SIX, _EIGHT = 3.2, 4.2, 6.8, 9.0  # bits a weight: IQ3_XXS, IQ4_XS, up to Q6_K, up to Q8_0
_USUAL = 4.85  # bits a weight of Q4_K_M
_ALIKE = 0.05  # of the bits
_HELD = 1 / 3  # of a streamed model's experts in memory: usable, where the speed is not known


def recommended(found: Sequence[Prospect], free: int) -> tuple[int, str] | None:
    """Which one to take, and why in half a line; None if none runs. free: bytes of memory for weights and context."""
    for chosen, reason in _rules([one for one in found if one.fit not in ("too large", "cannot run")], free):
        if chosen is not None:
            return next(i for i, one in enumerate(found) if one is chosen), reason
    return None


def _rules(runs: list[Prospect], free: int) -> list[tuple[Prospect | None, str]]:
    """What each rule would take, in their order."""
    inside = [one for one in runs if one.fit == "in memory"]
    whole = _between(inside, _FOUR, _SIX)
    streamed = [one for one in _between(runs, _THREE, _SIX) if one.fit == "streamed" and _is_usable(one)]
    return [
        (_best([one for one in _between(inside, _SIX, _EIGHT) if 3 * _needed(one) <= free]), "memory is plenty"),
        (_best([one for one in whole if 6 * _needed(one) <= 5 * free]), "the best that leaves some memory free"),
        (_smallest(whole), "stays in memory, with little to spare"),
        (_best(_between(inside, _THREE, _FOUR)), "the best that stays in memory"),
        (_nearest(streamed), _how_streamed(_nearest(streamed))),
        (_best(_between(inside, 0, _THREE)), "the best that stays in memory; so few bits cost knowledge"),
        (_smallest(inside), "the smallest, and it stays in memory"),
        (_smallest(runs), "the smallest; none stays in memory"),
    ]


def _between(found: Sequence[Prospect], least: float, most: float) -> list[Prospect]:
    return [one for one in found if one.bits is not None and least <= one.bits < most]


def _best(found: Sequence[Prospect]) -> Prospect | None:
    """Of those whose bits are the most, or nearly so, the plainest."""
    most = max((one.bits or 0 for one in found), default=0)
    alike = [one for one in found if (one.bits or 0) >= (1 - _ALIKE) * most]
    return min(alike, key=lambda one: (_oddity(one.quant), -(one.bits or 0)), default=None)


def _nearest(found: Sequence[Prospect]) -> Prospect | None:
    """The one whose bits are nearest to those of Q4_K_M, or nearly so, and plain."""
    distances = {id(one): abs((one.bits or 0) - _USUAL) for one in found}
    least = min(distances.values(), default=0)
    alike = [one for one in found if distances[id(one)] <= least + _ALIKE * _USUAL]
    return min(alike, key=lambda one: (_oddity(one.quant), distances[id(one)]), default=None)


def _smallest(found: Sequence[Prospect]) -> Prospect | None:
    least = min((one.bytes or 0 for one in found), default=0)
    alike = [one for one in found if (one.bytes or 0) <= (1 + _ALIKE) * least]
    return min(alike, key=lambda one: (_oddity(one.quant), one.bytes or 0), default=None)


def _oddity(quant: str) -> tuple[bool, bool, bool]:
    """False before True: of no special maker, a mix of llama.cpp's own, of the K types."""
    name = type_of(quant)
    return plain(quant) != name, name.upper().replace("-", "_") not in MIXES, "-k" not in name


def _needed(one: Prospect) -> int:
    return one.needed if one.needed is not None else one.bytes or 0


def _is_usable(one: Prospect) -> bool:
    return one.in_memory >= _HELD if one.tok_per_s is None else one.tok_per_s >= USABLE


def _how_streamed(one: Prospect | None) -> str:
    speed = f" at about {one.tok_per_s:.0f} tok/s" if one and one.tok_per_s else ""
    return f"none of 3 bits or more stays in memory, and this is streamed{speed}"
