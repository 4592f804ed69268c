"""A layer of experts for trials, and what the twin makes of it: of one token, a few or many, in memory or read from a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from qcli.doctor.trials.trial import error, given, normal, quantized
from qcli.doctor.trials.weights import numbers, random_matrix, stacked
from qcli.doctor.twins.activation import seen
from qcli.doctor.twins.experts import middle
from qcli.doctor.twins.functions import Array, sigmoid
from qcli.doctor.twins.router import choose
from quant.kernels.experts import GatedExperts, LayerExperts
from quant.kernels.gates import UNGATED
from quant.kernels.router import Routing
from quant.plan import Activation, Plan, aligned
from quant.weights import Matrix

COUNT, CHOSEN = 6, 2
N, WIDTH = 64, 96
_SCALE: Final = 0.75


@dataclass
class Layer:
    """Random experts of a type, a shared one beside them, and rows for some tokens; the second expert is nobody's."""

    name: str = "F32"
    activation: str = "silu"
    biased: bool = False
    tokens: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self.h, self.before = normal(self.seed + 1, self.tokens, N), normal(self.seed + 2, self.tokens, N)
        self.logits, self.gate = normal(self.seed + 3, self.tokens, COUNT), normal(self.seed + 4, self.tokens, 1)
        self.logits[:, 1] = -9

    @cached_property
    def matrices(self) -> list[list[Matrix]]:
        """Gate, up and down of each expert, the shared one last."""
        shapes, found = ((WIDTH, N), (WIDTH, N), (N, WIDTH)), []
        for part, shape in enumerate(shapes):
            seeds = (self.seed + 100 * part + 10 * expert for expert in range(COUNT + 1))
            found.append([random_matrix(seed, self.name, *shape, self.biased) for seed in seeds])
        return found

    @cached_property
    def experts(self) -> LayerExperts:
        """As kernels have them."""
        gate, up, down = (stacked(part[:COUNT]) for part in self.matrices)
        own_gate, own_up, own_down = (stacked(part[COUNT:]) for part in self.matrices)
        without = self.activation in UNGATED
        routed = GatedExperts(None if without else gate, up, down, self.activation)
        shared = GatedExperts(None if without else own_gate, own_up, own_down, self.activation)
        return LayerExperts(routed, shared, Routing(CHOSEN), aligned(COUNT, np.uint8), _SCALE)

    @cached_property
    def chosen(self) -> Array:
        """int [tokens, CHOSEN]."""
        return np.array([choose(row, Routing(CHOSEN))[0] for row in self.logits])

    @property
    def factors(self) -> Array:
        """What the result of each choice is multiplied with, and that of the shared expert last: [tokens, CHOSEN + 1]."""
        weights = np.array([choose(row, Routing(CHOSEN))[1] for row in self.logits])
        return _SCALE * np.hstack([weights, sigmoid(self.gate.astype(np.float64))])

    def inputs(self, plan: Plan) -> tuple[Activation, Activation, Activation, Activation]:
        """h, logits, the shared expert's gate, and x, which experts are added to."""
        x = given(self.before)
        return quantized(plan, self.h), given(self.logits), given(self.gate), x

    def wrong_middle(self, found: Array, shared: bool) -> float:
        """The error of f(gate h) * up h, of chosen experts [tokens * CHOSEN, WIDTH], or of the shared one [tokens, WIDTH]."""
        experts = [[COUNT]] * self.tokens if shared else self.chosen
        expected = [
            middle(self.h[t], *self._of(expert), self._kind, self.activation)
            for t, row in enumerate(experts)
            for expert in row
        ]
        return error(found, expected)

    def wrong_sum(self, x: Activation, found: Array, shared: Array) -> float:
        """The error of x, given what is found of the middles of the chosen experts and of the shared one."""
        each, own = found.reshape(self.tokens, CHOSEN, WIDTH), shared[:, None]
        expected = self.before.astype(np.float64)
        for t, rows in enumerate(np.concatenate([each, own], axis=1)):
            for row, expert, factor in zip(rows, [*self.chosen[t], COUNT], self.factors[t], strict=True):
                weights, biases = self._of(expert)
                expected[t] += factor * (weights[2] @ seen(row, self._kind) + biases[2])
        return error(x.values, expected)

    @property
    def _kind(self) -> str:
        return self.matrices[0][0].format.activation

    def _of(self, expert: int) -> tuple[list[Array], list[Array]]:
        """Weights and biases of gate, up and down."""
        three = [part[expert] for part in self.matrices]
        return [numbers(w) for w in three], [np.zeros(w.rows) if w.bias is None else w.bias for w in three]


def middle_of(plan: Plan, tokens: int, choices: int, name: str = "middle") -> Activation:
    """What a plan has between gate and down, [tokens * choices, WIDTH]; its float32 rows are written, too."""
    rows = plan.activation(name, WIDTH, tokens * choices)
    rows.read("f32")
    return rows
