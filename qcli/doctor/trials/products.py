"""Matrices times rows: one row, a few, many, by each kernel that multiplies tiles, and a matrix for each head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from qcli.doctor.trials.trial import Experiment, Trial, error, experiment, new_plan, normal, quantized, result, unlike
from qcli.doctor.trials.weights import random_matrix, stacked
from qcli.doctor.twins import matmul as twin
from qcli.doctor.twins.functions import Array
from quant import formats
from quant.kernels.experts_grouped import down_grouped
from quant.kernels.few_rows import few_kernels
from quant.kernels.head_matmul import head_matmul, head_pairs, head_step
from quant.kernels.matmul import add_matmul, matmul, matmul_few, matmul_rows, matmul_step
from quant.kernels.multiply import multiply_kernel
from quant.kernels.panels import pack_panels
from quant.plan import Activation
from quant.tile import MANY
from quant.weights import Matrix

_COLUMNS, _ROWS, _OTHER_ROWS = 512, 40, 7  # no whole tiles of 16
_FEW: Final = 3
_TOKENS: Final = 17
_TOLERANCE: Final = 5e-6  # of the sum of all products by magnitude; float32 sums err by 1e-7


def _products(name: str, tokens: int, stepwise: bool) -> Experiment:
    """Two matrices times the same rows, one of which has a bias."""
    x, both = normal(1, tokens, _COLUMNS), [random_matrix(2, name, _ROWS, _COLUMNS)]
    both.append(random_matrix(3, name, _OTHER_ROWS, _COLUMNS, biased=True))
    plan, found = new_plan(tokens, stepwise=stepwise), [result(tokens, w.rows) for w in both]
    matmul(plan, quantized(plan, x), list(zip(both, found, strict=True)), 0.5)
    return experiment(plan, lambda: max(_wrong(y, x, w, 0.5) for w, y in zip(both, found, strict=True)))


def _wrong(y: Activation, x: Array, w: Matrix, scale: float) -> float:
    size = twin.size(x, w) + (0 if w.bias is None else np.abs(w.bias))
    return float((np.abs(y.values - twin.matmul(x, w, scale)) / size).max() / _TOLERANCE)


def _added_products() -> Experiment:
    """Rows and what quantizing leaves of them, added to what is there, by panels."""
    x, w, before = normal(1, _TOKENS, _COLUMNS), random_matrix(2, "Q8_0", _ROWS, _COLUMNS), normal(3, _TOKENS, _ROWS)
    plan, y = new_plan(_TOKENS), result(_TOKENS, _ROWS)
    rows = quantized(plan, x)
    add_matmul(plan, rows, w, y)
    y.values[:] = before
    words, layout = 3 * _COLUMNS // 8, rows.read("q8")
    panels = plan.buffer(f"dense {_COLUMNS} panels", (_TOKENS // MANY + 2) * MANY * 4 * words, np.uint8)

    def packed() -> float:
        """Word by word of MANY tokens, the last one repeated."""
        there = layout.view(np.uint32)[:, :words]
        tokens = np.minimum(np.arange(-(-_TOKENS // MANY) * MANY), _TOKENS - 1)
        expected = there[tokens].reshape(-1, MANY, words).swapaxes(1, 2)
        return unlike(panels.view(np.uint32)[: expected.size], expected.reshape(-1))

    def added() -> float:
        size = np.abs(before) + twin.size(x, w)
        return float((np.abs(y.values - before - twin.matmul(x, w, kind="residual")) / size).max() / _TOLERANCE)

    return experiment(plan, packed, added)


def _heads(tokens: int) -> Experiment:
    """Columns 16 to 48 of each of three heads."""
    heads, width = 3, 48
    matrices, x = [random_matrix(h, "F32", 32, 64) for h in range(heads)], normal(9, tokens * heads, 64)
    plan, y = new_plan(tokens, stepwise=tokens == _FEW), result(tokens, heads * width)
    head_matmul(plan, quantized(plan, x), stacked(matrices), y, 16)
    expected = np.zeros((tokens, heads, width))
    for head, w in enumerate(matrices):
        expected[:, head, 16:] = twin.matmul(x[head::heads], w)
    pairs = plan.buffer("head pairs", heads * tokens, np.int64)

    def paired() -> float:
        order = np.arange(heads * tokens).reshape(tokens, heads).T.reshape(-1)
        starts = plan.buffer("head starts", heads + 1, np.int64)
        return max(unlike(pairs, order), unlike(starts, np.arange(heads + 1) * tokens))

    def multiplied() -> float:
        return error(y.values, expected.reshape(tokens, -1))

    return experiment(plan, *([] if plan.stepwise else [paired]), multiplied)


def of_types(names: Sequence[str]) -> list[Trial]:
    """Of each kernel that one of these types asks for on this processor: for tiles, and for a few rows."""
    kinds = [formats.find(name) for name in names]
    common_last = sorted(kinds, key=lambda kind: kind.name.endswith("_K"))  # whose kernels are compiled most often
    tiles = {multiply_kernel(kind): kind.name for kind in common_last}
    by_tiles = [Trial((kernel,), partial(_products, name, _TOKENS, False)) for kernel, name in tiles.items()]
    steps = {kernels[0]: kind.name for kind in common_last if (kernels := few_kernels(kind))}
    few = [Trial((kernel,), partial(_products, name, _FEW, True)) for kernel, name in steps.items()]
    return by_tiles + few


TRIALS: Final = (
    Trial((matmul_step,), partial(_products, "F32", 1, True)),
    Trial((matmul_few,), partial(_products, "F32", _FEW, True)),
    Trial((matmul_rows,), partial(_products, "F32", _TOKENS, False)),
    Trial((pack_panels, matmul_rows), _added_products),
    Trial((head_step,), partial(_heads, _FEW)),
    Trial((head_pairs, down_grouped), partial(_heads, _TOKENS)),
)
