"""Blocks that quantizers make: those without a search byte by byte, of the others how near they are to what they hold."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from qcli.doctor.trials.trial import Experiment, Trial, normal, unlike
from qcli.doctor.twins import quantize as twin
from quant import formats, quantizers
from quant.jit import Kernel
from quant.quantizers import Quantizer, _finite, is_finite, quantize_rows

_ROWS, _COLUMNS = 4, 1024
# Of normal numbers no b bits a number can lose less than 2^-b of the norm (rate-distortion); searches lose 1.4 to 1.9 times that.
_LOSS: Final = 2.5


def _blocks(kind: Quantizer) -> Experiment:
    x, plain = normal(1, _ROWS, _COLUMNS), getattr(twin, kind.name.lower(), None)
    weights = np.ones(_COLUMNS, np.float32) if kind.needs_importance else None

    def errors() -> list[float]:
        made = np.zeros((_ROWS, kind.row_bytes(_COLUMNS)), np.uint8)
        kind.quantize_into(made, x, weights)
        if plain:
            return [unlike(made, plain(x))]
        lost = np.linalg.norm(formats.find(kind.name).dequantize(made) - x) / np.linalg.norm(x)
        return [float(lost) / (_LOSS * 2.0 ** (-8 * kind.block.bytes / kind.block.columns))]

    return Experiment((kind.kernel, quantize_rows), errors)


def _numbers() -> Experiment:
    """Whether all are finite, with none and one that is not."""
    x = [normal(1, 64) for _ in range(3)]
    x[1][17], x[2][63] = np.nan, -np.inf
    return Experiment((_finite,), lambda: [unlike([is_finite(row) for row in x], [True, False, False])])


def _trial(kernel: Kernel, name: str) -> Trial:
    return Trial((kernel,), partial(_blocks, quantizers.find(name)))


def trials() -> list[Trial]:
    """Of every quantizer, and of what they share."""
    each = [_trial(quantizers.find(name).kernel, name) for name in quantizers.names()]
    return [*each, _trial(quantize_rows, "F32"), Trial((_finite,), _numbers)]
