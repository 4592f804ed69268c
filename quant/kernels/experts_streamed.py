"""Experts that are not all in memory: a plan stops where they are chosen, and goes on as they arrive.

For one token, the experts that are in memory are computed while the others are read. For many, experts are computed a few
at a time, in order. Sums are added in the order of `experts` and `experts_grouped`, so results have the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from quant.activation import row_addresses
from quant.jit import kernel
from quant.kernels.experts import (
    PRODUCTS_BYTES,
    GatedExperts,
    LayerExperts,
    add_down,
    count_blocks,
    gate_input,
    gate_up_blocks,
    gate_up_table,
    shared_gate_up,
)
from quant.kernels.experts_grouped import Choice, grouped_experts, shared_grouped
from quant.kernels.partition import COUNTER_WORDS, start_of
from quant.kernels.router import mark_touched, route_rows, routing_scratch_bytes
from quant.plan import BATCH, Activation, Ids, Plan, StageCallback
from quant.simd import load_i64
from quant.weights import Matrix


class ExpertProvider(ABC):
    """Brings experts into memory while a plan is replayed: a hook of a plan whose experts are not all there."""

    @abstractmethod
    def note_router(self, layer: GatedExperts, router: Matrix, h: Activation) -> None:
        """Hear which matrix chooses a layer's experts, and from which input, before the layer itself is traced."""

    @abstractmethod
    def of_token(
        self, layer: GatedExperts, chosen: Ids, loaded: Ids, missing: Ids
    ) -> tuple[StageCallback, StageCallback]:
        """For one token's choice, int64 [k]: what runs before experts that are in memory, and before the others.

        The first lists the places in `chosen` of both, int64 [1 + k] each: how many there are, then the places.
        """

    @abstractmethod
    def of_tokens(self, layer: GatedExperts, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids) -> StageCallback:
        """For the choices of a chunk, int64 [tokens, k]: yields for each set of neighbouring experts, in order.

        In pairs and starts are then those experts' tokens alone, see quant.kernels.assignments; counters become zero.
        """


@kernel
def mark_routed(rank, size, touched, experts, k, batch):
    """Note which experts tokens were routed to."""
    if rank == 0:
        mark_touched(touched, experts, load_i64(batch + BATCH.tokens) * k)


@kernel
def gate_up_listed(rank, size, places, experts, layer, x, out, scratch, scratch_stride):
    """f(gate x) * up x of the experts at listed places of a token's choice -> the same rows of out."""
    blocks, products = count_blocks(layer), scratch + rank * scratch_stride
    count = load_i64(places) * blocks
    first, last = start_of(rank, size, count), start_of(rank + 1, size, count)
    for j in range(first // blocks, (last + blocks - 1) // blocks):
        i = load_i64(places + 8 + 8 * j)
        y, q, _ = row_addresses(out, i)
        begin, end = max(first - j * blocks, 0), min(last - j * blocks, blocks)
        gate_up_blocks(layer, load_i64(experts + 8 * i), x, begin, end, y, q, products)


def _route(plan: Plan, layer: LayerExperts, logits: Activation) -> Choice:
    """Choose experts for every token; in order of expert they are not yet."""
    count, choice = layer.routed.up.count, Choice.buffers(plan, layer)
    routing, rows = layer.routing.table(plan, count, layer.scale), (logits.read("f32"), logits.stride("f32"))
    plan.keep(layer)
    plan.add(
        route_rows,
        *rows,
        routing,
        choice.experts,
        choice.weights,
        plan.batch,
        *plan.scratch(routing_scratch_bytes(count)),
    )
    plan.add(mark_routed, layer.touched, choice.experts, layer.routing.experts_per_token, plan.batch)
    return choice


def experts_step(
    plan: Plan,
    provider: ExpertProvider,
    layer: LayerExperts,
    h: Activation,
    logits: Activation,
    shared_gate: Activation | None,
    x: Activation,
) -> None:
    """As `quant.kernels.experts.experts_step`, with experts that the provider brings."""
    routed, k = layer.routed, layer.routing.experts_per_token
    plan.weight_bytes += layer.bytes_per_token
    choice = _route(plan, layer, logits)
    cached, missing = (plan.buffer(f"{name} places", k + 1, np.int64) for name in ("cached", "missing"))
    middle = plan.activation("middle", routed.up.rows, k)
    middle.read(routed.down.format.activation)
    before, after = provider.of_token(routed, choice.experts[0], cached, missing)
    plan.begin_stage(before)
    shared = shared_gate_up(plan, layer.shared, h) if layer.shared else None
    _add_gate_up(plan, routed, cached, choice.experts, h, middle)
    plan.begin_stage(after)
    _add_gate_up(plan, routed, missing, choice.experts, h, middle)
    add_down(plan, layer, (choice.experts, choice.weights), middle, shared, shared_gate, x)
    plan.begin_stage(None)


def _add_gate_up(plan: Plan, layer: GatedExperts, places: Ids, experts: Ids, h: Activation, middle: Activation) -> None:
    operands = gate_up_table(plan, layer), gate_input(layer, h), plan.output(middle)
    plan.add(gate_up_listed, places, experts, *operands, *plan.scratch(PRODUCTS_BYTES))


def experts_grouped(
    plan: Plan,
    provider: ExpertProvider,
    layer: LayerExperts,
    h: Activation,
    logits: Activation,
    shared_gate: Activation | None,
    x: Activation,
) -> None:
    """As `quant.kernels.experts_grouped.experts_grouped`, a few experts at a time."""
    choice = _route(plan, layer, logits)
    counters = plan.buffer("expert counters", (2, COUNTER_WORDS), np.int64)
    plan.begin_stage(provider.of_tokens(layer.routed, choice.experts, choice.pairs, choice.starts, counters))
    grouped_experts(plan, layer.routed, choice.assignments, h, x, counters)
    plan.begin_stage(None)
    if layer.shared:
        shared_grouped(plan, layer.shared, h, shared_gate, x, layer.scale)
