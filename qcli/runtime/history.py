"""How a text was computed: two that were cut into other pieces differ in the last bits, though their ids are the same.

Each id of a text has 32 bits that follow from all ids before it and from the chunks and steps that they came in: where two
texts have the same, their keys and values are the same, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import compress, count
from operator import ne

import numpy as np

_SPREAD = 0x9E3779B1  # an odd number, whose multiples are far apart


def extend(history: list[int], ids: Sequence[int], chunk: int, step: bool) -> None:
    """Append the history of ids that were added together, as Engine.prefill cuts them into chunks, or by a step."""
    first = 0
    while first < len(ids):
        part = ids[first : first + chunk - len(history) % chunk]
        last = _hash(history[-1] if history else 0, part, step)
        history += [(last ^ (i * _SPREAD)) & 0xFFFFFFFF for i in range(len(part) - 1, -1, -1)]
        first += len(part)


def of_prompt(ids: Sequence[int], chunk: int, cuts: Iterable[int]) -> list[int]:
    """The history of a prompt that is read from its beginning, in pieces that end at these places."""
    history: list[int] = []
    for end in sorted({*(cut for cut in cuts if cut < len(ids)), len(ids)}):
        extend(history, ids[len(history) : end], chunk, step=False)
    return history


def _hash(before: int, part: Sequence[int], step: bool) -> int:
    """32 bits of what was before and what is added; not a CRC, as that of two parts is that of both in one."""
    told = before.to_bytes(4, "little") + np.array(part, "<i4").tobytes()
    digest = hashlib.blake2b(told, digest_size=4, person=b"step" if step else b"chunk")
    return int.from_bytes(digest.digest(), "little")


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many numbers two sequences begin with in common."""
    return next(compress(count(), map(ne, a, b)), min(len(a), len(b)))
