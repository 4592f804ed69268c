"""Random weights for trials: matrices, and those of several experts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcli.bench.random_blocks import random_blocks
from qcli.doctor.trials.trial import normal
from qcli.doctor.twins.functions import Array
from quant.formats import find
from quant.weights import ExpertMatrices, Matrix


def random_matrix(seed: int, name: str, rows: int, columns: int, biased: bool = False) -> Matrix:
    """Weights of about unit size of a type."""
    kind = find(name)
    blocks = random_blocks(np.random.default_rng(seed), name, rows * columns // kind.block.columns, spread=1.0)
    data = np.ascontiguousarray(blocks).reshape(rows, -1)
    return Matrix(data, kind, columns, normal(seed + 1, rows) if biased else None)


def stacked(matrices: Sequence[Matrix]) -> ExpertMatrices:
    """The same matrix of several experts, wherever each lies in memory."""
    first, addresses = matrices[0], np.array([each.address for each in matrices], np.int64)
    bias = None if first.bias is None else np.array([each.bias for each in matrices])
    return ExpertMatrices(addresses, first.format, first.rows, first.columns, matrices, bias=bias)


def numbers(matrix: Matrix) -> Array:
    """float64 [rows, columns]."""
    return matrix.format.dequantize(matrix.data).astype(np.float64)
