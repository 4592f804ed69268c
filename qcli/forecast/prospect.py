"""What can be told of a model's file that is not here: how large it is, whether it fits, how fast it would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Fit = Literal["in memory", "streamed", "too large", "larger than memory", "cannot run"]


@dataclass(frozen=True)
class Options:
    """What a model would be run with; None for the usual."""

    threads: int | None = None
    ctx: int | None = None
    kv_type: str | None = None
    ram: int | None = None
    mtp: bool = True  # with its head of multi-token prediction, if it has one


USUAL: Final = Options()


@dataclass(frozen=True)
class Offer:
    """One of a model's files, as a list tells of it."""

    quant: str  # as it is published; "" where no name tells it
    bytes: int | None  # None where nobody tells it
    own: bool = False  # whether it is the file whose header is here


@dataclass(frozen=True)
class Prospect:
    """How a file would run."""

    quant: str
    bytes: int | None  # as the list tells it, else as its types do
    bits: float | None  # a weight
    fit: Fit  # "larger than memory": by the size alone, where no header was to be had
    needed: int | None = None  # bytes of memory, to stay in it with its context
    in_memory: float = 0.0  # share of its experts, 0 to 1
    tok_per_s: float | None = None  # None where it is not known
    estimated: bool = False  # the speed, from that of another file
