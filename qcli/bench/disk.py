"""What the repetitions of a streamed model read from the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from qcli.streaming.cache import Traffic


@dataclass(frozen=True)
class CacheSize:
    """How many experts of a streamed model stay in memory."""

    ram: int  # bytes that the process may use
    slots: int  # of the cache, in each layer
    experts_per_layer: int


@dataclass(frozen=True)
class DiskReads:
    """Medians over the repetitions of a case."""

    hit_rate: float | None  # experts found in memory among those that decoded tokens chose, 0 to 1; None for prompts
    bytes_per_token: float  # read from the disk
    wait_share: float  # of the time, waiting for reads, 0 to 1
    gb_per_s: float  # read from the disk, 10^9 bytes a second

    @classmethod
    def of(cls, traffic: Sequence[Traffic], seconds: Sequence[float], tokens: int) -> DiskReads:
        """From the traffic and the seconds of each repetition; tokens: of one repetition."""
        pairs = list(zip(traffic, seconds, strict=True))
        decoded = all(one.hits + one.misses for one in traffic)
        return cls(
            median(one.hit_rate for one in traffic) if decoded else None,
            median(one.bytes_read for one in traffic) / tokens,
            median(one.wait_s / s for one, s in pairs),
            median(one.bytes_read / s for one, s in pairs) / 1e9,
        )
