"""Predicts how often a token's experts are found in the cache, from their usage in earlier runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcli.streaming.slots import HALF_LIFE

_MAX_USAGE = HALF_LIFE / np.log(2)  # of all experts of a layer together, after a long time


def hit_rate(usage: NDArray[np.float32] | None, experts: int, slots: int) -> float:
    """Hits among the experts chosen in one layer, 0 to 1; usage: float32 [experts], None if there was no earlier run.

    The most used have slots, but some were used much by chance, and will be used less: rates are shrunk towards their mean by
    the part of their variance that is noise, which for counts with decay is down to half of that for plain counts.
    Of the embedded model's experts, 5, 8 or 11 of 16 in memory after half of the fables, that says 46, 65 and 80 %; the other
    half found 45, 65 and 81 %. Without usage, a third, half or 70 % of random weights' experts were as many of those chosen.
    """
    share = min(1.0, slots / experts)
    if usage is not None and len(usage) == experts and usage.any():
        counts = usage.astype(np.float64)
        mean, total = counts.mean(), counts.sum()
        noise = mean * (1 - min(1.0, total / _MAX_USAGE) / 2)
        signal = max(0.0, 1 - noise / max(counts.var(), 1e-9))
        rates = mean + signal * (counts - mean)
        share = min(1.0, float(np.sort(rates)[::-1][:slots].sum() / total))
    return share
