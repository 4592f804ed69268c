"""Experts in a latent space: what leads into it and out of it, and the shared expert beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from kernel_helpers import float_matrix, new_plan, random_rows, replay, source, stacked

from qcli.doctor.twins.router import choose
from qcli.layers.feed_forward import MLP, Latent, MoE
from quant.batch import Batch
from quant.kernels.experts import GatedExperts, LayerExperts
from quant.kernels.router import Routing
from quant.plan import Activation, Plan, aligned

N, LATENT, WIDTH, OWN, COUNT = (
    128,
    64,
    96,
    160,
    6,
)  # columns: of x, of the latent space, of an expert, of the shared one


def values(matrix):
    return matrix.format.dequantize(matrix.data).astype(np.float64)


def relu2(x):
    return np.maximum(x, 0) ** 2


@dataclass
class Weights:
    """Of one layer: a router, experts, the shared expert, and the matrices around the latent space."""

    router: object
    up: list
    down: list
    shared: tuple
    latent: tuple
    routing: Routing
    scale: float

    @classmethod
    def random(cls, name):
        rng = np.random.default_rng(0)
        up, down = (
            [random_rows(rng, name, *shape) for _ in range(COUNT)] for shape in ((WIDTH, LATENT), (LATENT, WIDTH))
        )
        own = random_rows(rng, name, OWN, N), random_rows(rng, name, N, OWN)
        around = random_rows(rng, name, LATENT, N), random_rows(rng, name, N, LATENT)
        router = float_matrix("F32", rng.standard_normal((COUNT, N)) / 8)
        return cls(router, up, down, own, around, Routing(2, scores="sigmoid", normalised=True), 0.5)

    def layer(self) -> MoE:
        routed = GatedExperts(None, stacked(self.up), stacked(self.down), "relu2")
        shared = GatedExperts(None, *(stacked([m]) for m in self.shared), "relu2")
        experts = LayerExperts(routed, None, self.routing, aligned(COUNT, np.uint8), self.scale)
        return MoE(self.router, None, experts, Latent(*self.latent), MLP(shared, self.scale))

    def expected(self, h):
        """Every token, float64 [tokens, n]."""
        into, out_of = (values(m) for m in self.latent)
        own_up, own_down = (values(m) for m in self.shared)
        rows = []
        for x in h.astype(np.float64):
            inside, total = into @ x, np.zeros(LATENT)
            for expert, weight in zip(*choose(values(self.router) @ x, self.routing), strict=True):
                total += weight * values(self.down[expert]) @ relu2(values(self.up[expert]) @ inside)
            rows.append(out_of @ total + own_down @ relu2(own_up @ x))
        return self.scale * np.array(rows)


@pytest.mark.parametrize(("name", "limit"), [("F32", 3e-6), ("Q8_0", 2e-2)])
@pytest.mark.parametrize("tokens", [1, 7])
def test_latent_experts_and_a_shared_one_that_is_not(name, limit, tokens):
    """Twice, since what experts add to must be empty each time; several threads give the same bits."""
    weights, h = Weights.random(name), np.random.default_rng(1).standard_normal((tokens, N)).astype(np.float32)
    found = []
    for threads in (1, 3):
        plan, x = new_plan(tokens, threads), Activation(tokens, N)
        given = source(plan, h)
        for _ in range(2):
            weights.layer().trace(plan, given, x)
        replay(plan)
        found.append(x.values.copy())
    expected = 2 * weights.expected(h)
    assert np.linalg.norm(found[0] - expected) < limit * np.linalg.norm(expected)
    assert np.array_equal(*found)


@pytest.mark.parametrize("name", ["F32", "Q8_0"])
def test_a_few_tokens_of_a_step_have_the_bits_of_one_each(name):
    weights, h = Weights.random(name), np.random.default_rng(1).standard_normal((3, N)).astype(np.float32)
    found = []
    for rows in (h, *h[:, None]):
        plan, x = Plan(len(rows), 2, Batch(), stepwise=True), Activation(len(rows), N)
        weights.layer().trace(plan, source(plan, rows), x)
        replay(plan)
        found.append(x.values.copy())
    assert np.array_equal(found[0], np.vstack(found[1:]))
