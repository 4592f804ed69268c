"""Whether blocks hold the numbers that they were made of: their scales are float16 mostly, so that no type reaches far.

Beyond its reach a type gives infinities, NaN, zeros or numbers cut short. Within it, numbers and the same numbers a power
of two smaller lose as much, so that the loss of the smaller ones tells what to expect.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant import formats, quantizers

SURE = 1024.0  # every type holds numbers up to here
_ALL = 0.99  # of the root of the sum of squares: nothing was kept
_MORE = 1.25  # times the error of smaller numbers: beyond that, it is not that of rounding


def largest(values: NDArray[np.float32]) -> float:
    """The largest magnitude of finite numbers of any shape."""
    return max(float(values.max()), -float(values.min()))


def holds(
    kind: str, values: NDArray[np.float32], importance: NDArray[np.float32] | None, converted: NDArray[np.uint8]
) -> bool:
    """Whether `converted`, uint8 [rows, bytes per row] of a type, is what `values`, finite float32 [rows, columns], are.

    importance: float32 [columns], with which they were made.
    """
    reach = largest(values)
    if reach <= SURE and importance is None:
        return True
    error = _error(kind, values, converted)
    if reach <= SURE or not math.isfinite(error):
        return math.isfinite(error)
    if error >= _ALL * _norm(values):
        return False
    smaller = values * np.float32(2.0 ** -math.frexp(reach)[1])
    usual = _error(kind, smaller, quantizers.find(kind).quantize(smaller, importance))
    return math.ldexp(error, -math.frexp(reach)[1]) <= _MORE * usual


def _error(kind: str, values: NDArray[np.float32], converted: NDArray[np.uint8]) -> float:
    """The root of the sum of squares of what was lost; infinite or NaN if a number of the blocks is."""
    with np.errstate(invalid="ignore", over="ignore"):
        return _norm(formats.find(kind).dequantize(converted).astype(np.float64) - values)


def _norm(numbers: NDArray[Any]) -> float:
    return float(np.sqrt(np.square(numbers, dtype=np.float64).sum()))
