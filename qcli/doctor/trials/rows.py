"""Norms, gates and copies of rows, and residual streams."""

from __future__ import annotations

from typing import Final

import numpy as np

from qcli.doctor.trials.trial import (
    TOKENS,
    Experiment,
    Floats,
    Trial,
    error,
    experiment,
    given,
    new_plan,
    normal,
    result,
    unlike,
)
from qcli.doctor.twins import activation
from qcli.doctor.twins.functions import gelu, sigmoid, silu
from qcli.doctor.twins.hyper_connections import add_to_streams as add_to_streams_twin
from qcli.doctor.twins.hyper_connections import mean_streams as mean_streams_twin
from qcli.doctor.twins.norm import rms_norm as rms_norm_twin
from quant.activation import scales_of
from quant.formats import find
from quant.kernels import columns, gate_columns, head_gates, hyper_connections
from quant.kernels.assignments import Assignments
from quant.kernels.cap_logits import cap_logits, cap_rows
from quant.kernels.embed import embed, embed_rows
from quant.kernels.input_squares import InputSquares, add_squares
from quant.kernels.norm import add_rms_norm, add_rms_norm_rows, rms_norm, rms_norm_rows, rms_norm_step
from quant.kernels.observer import observe
from quant.weights import Matrix

_COLUMNS: Final = 96
_EPS: Final = 1e-6
_STREAMS: Final = 3


def _norm(rows: int) -> Experiment:
    """Of every token's row, or of the last one alone."""
    x, weight = normal(1, TOKENS, _COLUMNS), normal(2, _COLUMNS)
    plan, out = new_plan(TOKENS), result(rows, _COLUMNS)
    rms_norm(plan, given(x), weight, _EPS, out)
    return experiment(plan, lambda: error(out.values, rms_norm_twin(x, weight, _EPS)[-rows:]))


def _added_norm() -> Experiment:
    x, y, weight = normal(1, TOKENS, _COLUMNS), normal(2, TOKENS, _COLUMNS), normal(3, _COLUMNS // 2)
    plan, to, added = new_plan(TOKENS), given(x), given(y)
    add_rms_norm(plan, added, weight, _EPS, to, 0.5)
    normed = rms_norm_twin(y.reshape(TOKENS, 2, -1), weight, _EPS).reshape(x.shape)

    def wrong() -> float:
        return max(error(to.values, 0.5 * (x + normed)), unlike(added.values, 0 * y))

    return experiment(plan, wrong)


def _place() -> Experiment:
    x = normal(1, TOKENS, 4 * 32)
    plan, y = new_plan(TOKENS), result(TOKENS, 4 * 48)
    columns.place(plan, given(x), 4, 16, 16, y, 32)
    expected = np.zeros((TOKENS, 4, 48), np.float32)
    expected[..., 32:] = x.reshape(TOKENS, 4, 32)[..., 16:]
    return experiment(plan, lambda: unlike(y.values, expected.reshape(TOKENS, -1)))


def _take() -> Experiment:
    """Heads as rows, in every layout."""
    x = normal(1, TOKENS, 4 * 48)
    plan, y = new_plan(TOKENS), result(4 * TOKENS, 32)
    layouts = [y.read(kind) for kind in ("q8", "residual")]
    columns.rows_of_heads(plan, given(x), 4, 16, 32, y)
    expected = x.reshape(-1, 48)[:, 16:]

    def wrong() -> float:
        rounded, rest = (_dequantized(layout, 32) for layout in layouts)
        both = activation.seen(expected, "q8"), activation.seen(expected, "residual")
        return max(unlike(y.values, expected), error(rounded, both[0]), error(rounded + rest, both[1]))

    return experiment(plan, wrong)


def _dequantized(layout: np.ndarray, width: int) -> np.ndarray:
    """The numbers of q8 rows, float64 [rows, width]."""
    q, first = layout[:, :width].view(np.int8).astype(np.float64), scales_of(0, width)
    scales = np.ascontiguousarray(layout[:, first : first + width // 8]).view(np.float32)
    return q * np.repeat(scales.astype(np.float64), 32, axis=1)


def _clear() -> Experiment:
    plan, x = new_plan(TOKENS), given(normal(1, TOKENS, _COLUMNS))
    columns.clear(plan, x)
    return experiment(plan, lambda: unlike(x.values, np.zeros((TOKENS, _COLUMNS))))


def _cap() -> Experiment:
    x = 40 * normal(1, TOKENS, _COLUMNS)
    plan, logits = new_plan(TOKENS), given(x)
    cap_logits(plan, logits, 30.0)
    return experiment(plan, lambda: error(logits.values, 30 * np.tanh(x / 30.0)))


def _gated_columns() -> Experiment:
    gate, x = normal(1, TOKENS, 48), normal(2, TOKENS, _COLUMNS)
    plan, out = new_plan(TOKENS), result(TOKENS, 48)
    gate_columns.gate_columns(plan, given(gate), given(x), 32, out, "gelu")
    return experiment(plan, lambda: error(out.values, gelu(gate.astype(np.float64)) * x[:, 32:80]))


def _gated_heads() -> Experiment:
    x, gates = normal(1, TOKENS, _COLUMNS), normal(2, TOKENS, 6)
    plan, out = new_plan(TOKENS), result(TOKENS, _COLUMNS)
    head_gates.gate_heads(plan, given(x), given(gates), out)
    return experiment(plan, lambda: error(out.values, x * np.repeat(sigmoid(gates.astype(np.float64)), 16, axis=1)))


def _streams() -> tuple[Floats, Floats]:
    """Two residual streams, as rows."""
    return normal(1, TOKENS, _STREAMS * 64), normal(2, TOKENS, _STREAMS * 64)


def _normed_streams() -> Experiment:
    (x, _), weight = _streams(), normal(3, _STREAMS, 64)
    plan, out = new_plan(TOKENS), result(TOKENS, _STREAMS * 64)
    hyper_connections.norm_streams(plan, given(x), weight, _EPS, out)
    expected = rms_norm_twin(x.reshape(TOKENS, _STREAMS, -1), weight, _EPS)
    return experiment(plan, lambda: error(out.values, expected.reshape(x.shape)))


def _silu() -> Experiment:
    x = normal(1, TOKENS, _COLUMNS)
    plan, out = new_plan(TOKENS), result(TOKENS, _COLUMNS)
    hyper_connections.silu_activation(plan, given(x), out)
    return experiment(plan, lambda: error(out.values, silu(x.astype(np.float64))))


def _mean_of_streams() -> Experiment:
    x, gate = _streams()
    plan, out = new_plan(TOKENS), result(TOKENS, 64)
    hyper_connections.mean_streams(plan, given(x), given(gate), out)
    apart = (part.astype(np.float64).reshape(TOKENS, _STREAMS, -1) for part in (x, gate))
    expected = mean_streams_twin(*apart)
    return experiment(plan, lambda: error(out.values, expected))


def _added_to_streams() -> Experiment:
    (x, _), y, inject = _streams(), normal(3, TOKENS, 64), normal(4, TOKENS, _STREAMS)
    plan, to, added = new_plan(TOKENS), given(x), given(y)
    hyper_connections.add_to_streams(plan, to, added, given(inject))
    expected = add_to_streams_twin(x.reshape(TOKENS, _STREAMS, -1), y, inject.astype(np.float64))

    def wrong() -> float:
        return max(error(to.values, expected.reshape(x.shape)), unlike(added.values, 0 * y))

    return experiment(plan, wrong)


def _embedding() -> Experiment:
    table, ids = normal(1, 9, _COLUMNS), np.arange(TOKENS)[::-1].copy()
    plan, out = new_plan(TOKENS), result(TOKENS, _COLUMNS)
    embed(plan, ids, Matrix(table.view(np.uint8), find("F32"), _COLUMNS), out, 3.0)
    return experiment(plan, lambda: error(out.values, 3 * table[ids]))


def _squares() -> Experiment:
    """Of three experts; the first two tokens chose the last one, the others the first."""
    observer, x = InputSquares(), normal(1, TOKENS, _COLUMNS)
    plan, starts, pairs = new_plan(TOKENS, observer), np.array([0, 3, 3, 5]), np.array([2, 3, 4, 0, 1])
    observe(plan, ["w"], given(x), Assignments(3, 1, starts, pairs))
    squares = x.astype(np.float64) ** 2
    expected = [squares[2:].sum(axis=0), 0 * squares[0], squares[:2].sum(axis=0)]

    def wrong() -> float:
        found = observer.squares["w"]
        return max(error(found.sums, expected), unlike(found.counts, [3, 0, 2]))

    return experiment(plan, wrong)


TRIALS: Final = (
    Trial((rms_norm_rows,), lambda: _norm(TOKENS)),
    Trial((rms_norm_step,), lambda: _norm(1)),
    Trial((add_rms_norm_rows,), _added_norm),
    Trial((columns.place_columns,), _place),
    Trial((columns.take_rows,), _take),
    Trial((columns.clear_rows,), _clear),
    Trial((cap_rows,), _cap),
    Trial((gate_columns.gate_rows,), _gated_columns),
    Trial((head_gates.gate_rows,), _gated_heads),
    Trial((hyper_connections.norm_streams_rows,), _normed_streams),
    Trial((hyper_connections.silu_rows,), _silu),
    Trial((hyper_connections.mean_streams_rows,), _mean_of_streams),
    Trial((hyper_connections.add_to_streams_rows,), _added_to_streams),
    Trial((embed_rows,), _embedding),
    Trial((add_squares,), _squares),
)
