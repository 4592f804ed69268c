"""The plain twin of quant.kernels.short_conv: the whole text at once, in float64."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array


def short_conv(bcx: Array, weight: Array) -> Array:
    """bcx [tokens, (b, c, x)], weight [taps, n] -> [tokens, n], from an empty state."""
    b, c, x = np.split(np.asarray(bcx, np.float64), 3, axis=1)
    taps = len(weight)
    padded = np.concatenate([np.zeros((taps - 1, b.shape[1])), b * x])
    return c * sum(weight[i] * padded[i : i + len(b)] for i in range(taps))
