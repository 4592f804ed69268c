"""Experts in memory: of one token, of a few, and of many, grouped by expert."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from qcli.doctor.trials.expert_layer import CHOSEN, COUNT, WIDTH, Layer, middle_of
from qcli.doctor.trials.trial import Experiment, Trial, error, experiment, new_plan, unlike
from quant.kernels.experts import (
    dense_step,
    down_dense,
    down_step,
    experts_step,
    gate_up_shared,
    gate_up_step,
)
from quant.kernels.experts_few import (
    dense_few,
    down_dense_few,
    down_few,
    experts_few,
    gate_up_few,
    gate_up_shared_few,
)
from quant.kernels.experts_grouped import (
    dense_grouped,
    down_grouped,
    experts_grouped,
    gate_up_grouped,
    group_pairs,
    shared_pairs,
)

_FEW, _MANY = 3, 20
_LAYERS: Final = (  # type, activation, whether there are biases
    ("F32", "silu", False),
    ("F32", "clamped", True),
    ("Q8_0", "gelu", True),
    ("Q8_0", "relu2", False),
)


def _stepwise(name: str, activation: str, biased: bool, tokens: int) -> Experiment:
    """One token, or a few."""
    layer = Layer(name, activation, biased, tokens)
    plan = new_plan(tokens, stepwise=True)
    h, logits, gate, x = layer.inputs(plan)
    (experts_step if tokens == 1 else experts_few)(plan, layer.experts, h, logits, gate, x)
    routed, shared = middle_of(plan, tokens, CHOSEN), middle_of(plan, tokens, 1, "shared middle")

    def routed_error() -> float:
        marked = unlike(np.flatnonzero(layer.experts.touched), np.unique(layer.chosen))
        return max(layer.wrong_middle(routed.values, False), marked)

    return experiment(
        plan,
        routed_error,
        lambda: layer.wrong_middle(shared.values, True),
        lambda: layer.wrong_sum(x, routed.values, shared.values),
    )


def _grouped(name: str, activation: str, biased: bool) -> Experiment:
    layer = Layer(name, activation, biased, _MANY)
    plan = new_plan(_MANY)
    h, logits, gate, x = layer.inputs(plan)
    experts_grouped(plan, layer.experts, h, logits, gate, x)
    routed, shared = middle_of(plan, _MANY, CHOSEN), middle_of(plan, _MANY, 1)
    flat = layer.chosen.reshape(-1)
    starts, pairs = plan.buffer("starts", COUNT + 1, np.int64), plan.buffer("pairs", flat.size, np.int64)

    def grouped() -> float:
        order = np.argsort(flat, kind="stable")
        marked = unlike(np.flatnonzero(layer.experts.touched), np.unique(flat))
        return max(unlike(pairs, order), unlike(starts, np.searchsorted(flat[order], np.arange(COUNT + 1))), marked)

    def shared_by_all() -> float:
        weights = plan.buffer("shared weights", _MANY, np.float32)
        return max(error(weights, layer.factors[:, -1]), unlike(plan.buffer("shared starts", 2, np.int64), [0, _MANY]))

    def multiplied() -> float:
        return max(layer.wrong_middle(routed.values, False), layer.wrong_middle(shared.values, True))

    return experiment(
        plan, grouped, shared_by_all, multiplied, lambda: layer.wrong_sum(x, routed.values, shared.values)
    )


def _dense(trace: Callable[..., None], tokens: int) -> Experiment:
    """The shared expert alone, as a layer without others has it."""
    layer = Layer(tokens=tokens)
    layer.gate[:] = 0
    plan = new_plan(tokens, stepwise=tokens < _MANY)
    h, _, _, x = layer.inputs(plan)
    trace(plan, layer.experts.shared, h, x, layer.experts.scale / 2)  # half: the sigmoid of a gate of 0
    shared = middle_of(plan, tokens, 1, "shared middle" if plan.stepwise else "middle")
    nothing = np.zeros((tokens * CHOSEN, WIDTH), np.float32)
    return experiment(
        plan,
        lambda: layer.wrong_middle(shared.values, True),
        lambda: layer.wrong_sum(x, nothing, shared.values),
    )


TRIALS: Final = (
    *(Trial((gate_up_step, gate_up_shared, down_step), partial(_stepwise, *layer, 1)) for layer in _LAYERS),
    *(Trial((gate_up_few, gate_up_shared_few, down_few), partial(_stepwise, *layer, _FEW)) for layer in _LAYERS),
    *(
        Trial((group_pairs, shared_pairs, gate_up_grouped, down_grouped), partial(_grouped, *layer))
        for layer in _LAYERS
    ),
    Trial((gate_up_shared, down_dense), partial(_dense, dense_step, 1)),
    Trial((gate_up_shared_few, down_dense_few), partial(_dense, dense_few, _FEW)),
    Trial((gate_up_grouped, down_grouped), partial(_dense, dense_grouped, _MANY)),
)
