"""What the repetitions of a streamed model took from its disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from qcli.streaming.cache import Traffic


@dataclass(frozen=True)
class Room:
    """What a streamed model has of the memory."""

    ram: int  # bytes that the process may use
    slots: int  # experts of a layer that stay in memory
    held: int  # that a layer has


@dataclass(frozen=True)
class Disk:
    """Medians over repetitions."""

    hit_rate: float | None  # of the experts that decoding asked for, those in memory; None for prompts
    bytes_per_token: float
    wait: float  # share of the time
    gb_per_s: float

    @classmethod
    def of(cls, traffic: Sequence[Traffic], seconds: Sequence[float], tokens: int) -> Disk:
        """Traffic and seconds of each repetition, which had so many tokens."""
        pairs = list(zip(traffic, seconds, strict=True))
        asked = all(one.hits + one.misses for one in traffic)
        return cls(
            median(one.hit_rate for one in traffic) if asked else None,
            median(one.bytes_read for one in traffic) / tokens,
            median(one.wait_s / s for one, s in pairs),
            median(one.bytes_read / s for one, s in pairs) / 1e9,
        )
