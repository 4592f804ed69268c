"""Experts that are not all in memory: multiplied as they arrive.

For one token nothing stops: what is missing is asked for by `quant.kernels.expert_requests`, the shared expert and the
experts that are in memory are computed first, and each of the others as soon as an I/O thread has read it. For many tokens,
a plan stops where experts are chosen, and they are computed a few at a time, in order. Sums are added in the order of
`experts` and `experts_grouped`, so results have the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from quant.activation import row_addresses
from quant.jit import kernel
from quant.kernels.expert_loads import ARRIVALS, end_load
from quant.kernels.expert_requests import (
    FOLLOWING,
    arrival,
    guess_logits,
    guess_scratch_bytes,
    read_guesses,
    request_experts,
)
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
from quant.kernels.partition import COUNTER_WORDS, take_next
from quant.kernels.router import mark_touched, route_rows, routing_scratch_bytes
from quant.plan import BATCH, Activation, Ids, Operand, Plan, StageCallback
from quant.simd import load_i64
from quant.weights import MATRIX, Matrix, operands_of

BOOKKEEPING = "bookkeeping"  # the part of a model, as profiles name it, that looks experts up and asks for them


class ExpertProvider(ABC):
    """Brings experts into memory while a plan is replayed: a hook of a plan whose experts are not all there."""

    @abstractmethod
    def of_token(self, layer: GatedExperts, k: int) -> Ids:
        """The table of quant.kernels.expert_loads.CACHED of a layer of which one token chooses k experts."""

    @abstractmethod
    def of_tokens(self, layer: GatedExperts, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids) -> StageCallback:
        """For the choices of a chunk, int64 [tokens, k]: yields for each set of neighbouring experts, in order.

        In pairs and starts are then those experts' tokens alone, see quant.kernels.assignments; counters become zero.
        """


@dataclass
class StreamedLayers:
    """The layers of a plan for one token, in order: a layer's records need to know the next one's router."""

    inputs: list[Activation] = field(default_factory=list)
    following: list[Operand] = field(default_factory=list)  # tables of FOLLOWING, each for the layer before it

    def add(self, plan: Plan, layer: LayerExperts, router: Matrix, h: Activation, cached: Ids) -> None:
        """Add the next layer, its router and the input of both."""
        before, count = self.inputs[-1] if self.inputs else h, layer.routed.gate.count
        table = plan.table(
            FOLLOWING,
            layer=cached,
            router=plan.table(MATRIX, **operands_of(router)),
            weights=router.data,
            routing=layer.routing.table(plan, count),
            x=before.read(router.format.activation),
            logits=plan.activation("guessed router", count).read("f32"),
        )
        self.inputs.append(h)
        self.following.append(table)

    def after_last(self) -> Operand:
        """An operand: the table of the layer that will be added next, or 0 if none will be."""
        place = len(self.following)
        return lambda: self.following[place] if place < len(self.following) else 0


@kernel
def mark_routed(rank, size, touched, experts, k, batch):
    """Note which experts tokens were routed to."""
    if rank == 0:
        mark_touched(touched, experts, load_i64(batch + BATCH.tokens) * k)


@kernel
def gate_up_arriving(rank, size, cached, arrivals, experts, k, layer, x, out, scratch, scratch_stride):
    """f(gate x) * up x of a token's experts -> rows [k, width] of out; shares take blocks, of experts as they arrive."""
    blocks, products = count_blocks(layer), scratch + rank * scratch_stride
    item = take_next(arrivals + ARRIVALS.taken, 1)
    while item < k * blocks:
        block = item % blocks
        place = arrival(cached, arrivals, item // blocks, block == 0)
        y, q, _ = row_addresses(out, place)
        gate_up_blocks(layer, load_i64(experts + 8 * place), x, block, block + 1, y, q, products)
        item = take_next(arrivals + ARRIVALS.taken, 1)


def _route(plan: Plan, layer: LayerExperts, logits: Activation) -> Choice:
    """Choose experts for every token; in order of expert they are not yet."""
    count, choice = layer.routed.gate.count, Choice.buffers(plan, layer)
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
    return choice


def experts_step(
    plan: Plan,
    provider: ExpertProvider,
    layer: LayerExperts,
    router: Matrix,
    h: Activation,
    logits: Activation,
    shared_gate: Activation | None,
    x: Activation,
) -> None:
    """As `quant.kernels.experts.experts_step`, with experts that the provider brings; router: of logits from h."""
    routed, k = layer.routed, layer.routing.experts_per_token
    plan.weight_bytes += layer.bytes_per_token
    choice = _route(plan, layer, logits)
    arrivals = plan.buffer("arrivals", ARRIVALS.bytes // 8 + k, np.int64)
    middle = plan.activation("middle", routed.gate.rows, k)
    middle.read(routed.down.format.activation)
    cached = _request(plan, provider, layer, router, h, choice, arrivals)
    shared = shared_gate_up(plan, layer.shared, h) if layer.shared else None
    operands = gate_up_table(plan, routed), gate_input(routed, h), plan.output(middle)
    plan.add(gate_up_arriving, cached, arrivals, choice.experts, k, *operands, *plan.scratch(PRODUCTS_BYTES))
    add_down(plan, layer, (choice.experts, choice.weights), middle, shared, shared_gate, x)


def _request(
    plan: Plan,
    provider: ExpertProvider,
    layer: LayerExperts,
    router: Matrix,
    h: Activation,
    choice: Choice,
    arrivals: Ids,
) -> Ids:
    """Ask for experts that are missing, and for those that the next layer may choose; gives the layer's table of CACHED."""
    count, k = layer.routed.gate.count, layer.routing.experts_per_token
    cached = provider.of_token(layer.routed, k)
    layers: StreamedLayers = plan.once(StreamedLayers, StreamedLayers)
    layers.add(plan, layer, router, h, cached)
    following = layers.after_last()
    scratch = plan.scratch(guess_scratch_bytes(k) + routing_scratch_bytes(count))
    plan.use(end_load)
    part, plan.part = plan.part, BOOKKEEPING
    plan.add(request_experts, cached, choice.experts, k, arrivals, layer.touched)
    plan.add(guess_logits, following, arrivals)
    plan.add(read_guesses, following, arrivals, *scratch)
    plan.part = part
    return cached


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
    plan.add(mark_routed, layer.touched, choice.experts, layer.routing.experts_per_token, plan.batch)
    counters = plan.buffer("expert counters", (2, COUNTER_WORDS), np.int64)
    plan.begin_stage(provider.of_tokens(layer.routed, choice.experts, choice.pairs, choice.starts, counters))
    grouped_experts(plan, layer.routed, choice.assignments, h, x, counters)
    plan.begin_stage(None)
    if layer.shared:
        shared_grouped(plan, layer.shared, h, shared_gate, x, layer.scale)
