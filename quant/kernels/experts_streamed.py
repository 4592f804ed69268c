"""Experts that are not all in memory: multiplied as they arrive.

For one token, or a few (`experts_streamed_few`), nothing stops: what is missing is asked for by
`quant.kernels.expert_requests`, the shared expert and the experts that are in memory are computed first, and each of the
others as soon as an I/O thread has read it. For many tokens, a plan stops where experts are chosen, and they are computed a
few at a time, in order. Sums are added in the order of `experts`, `experts_few` and `experts_grouped`, so results have the
same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from quant import read_queue
from quant.activation import row_addresses
from quant.batch import BATCH, Batch
from quant.jit import inline, kernel
from quant.kernels import expert_loads, expert_slots
from quant.kernels.expert_loads import ARRIVALS
from quant.kernels.expert_requests import (
    FOLLOWING,
    arrival,
    guess,
    guess_scratch_bytes,
    pieces_to_guess,
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
)
from quant.kernels.experts_grouped import Choice, grouped_experts, shared_grouped
from quant.kernels.partition import COUNTER_WORDS, take_next
from quant.kernels.router import mark_touched, route_rows, routing_scratch_bytes
from quant.layout import Layout
from quant.plan import Activation, Ids, Operand, Plan, StageCallback
from quant.simd import load_i64
from quant.weights import MATRIX, Matrix, operands_of

BOOKKEEPING = "bookkeeping"  # the part of a model, as profiles name it, that looks experts up and asks for them

_CALLED = (*read_queue.KERNELS, *expert_slots.KERNELS, *expert_loads.KERNELS)  # by I/O threads, and by Python
WORK = Layout(  # of a token in a layer, besides its choice
    "layer",  # table of GATE_UP
    "x",  # the row that its experts are multiplied with
    "out",  # table of quant.activation.OUTPUT: rows [k, width]
    "shared",  # the same of the shared expert; 0: there is none
    "shared_x",
    "shared_out",
    "following",  # table of FOLLOWING; 0 for the last layer
)


class ExpertProvider(ABC):
    """Brings experts into memory while a plan is replayed: a hook of a plan whose experts are not all there."""

    @abstractmethod
    def of_token(self, layer: GatedExperts, k: int) -> Ids:
        """The table of quant.kernels.expert_loads.CACHED of a layer of which one token chooses k experts."""

    @abstractmethod
    def of_tokens(
        self, layer: GatedExperts, batch: Batch, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids
    ) -> StageCallback:
        """For the choices of a batch's tokens, int64 [tokens, k]: yields for each set of neighbouring experts, in order.

        In pairs and starts are then those experts' tokens alone, see quant.kernels.assignments; counters become zero.
        """


@dataclass
class StreamedLayers:
    """The layers of a stepwise plan, in order: a layer's records need to know the next one's router."""

    inputs: list[Activation] = field(default_factory=list)
    following: list[Operand] = field(default_factory=list)  # tables of FOLLOWING, each for the layer before it

    def add(self, plan: Plan, layer: LayerExperts, router: Matrix, h: Activation, cached: Ids) -> None:
        """Add the next layer, its router and the router's input."""
        before, count = self.inputs[-1] if self.inputs else h, layer.routed.up.count
        table = plan.table(
            FOLLOWING,
            layer=cached,
            router=plan.table(MATRIX, **operands_of(router)),
            weights=router.data,
            routing=layer.routing.table(plan, count),
            x=before.read(router.format.activation),
            logits=plan.activation("guessed router", count).read("f32"),
            then=read_guesses,
        )
        self.inputs.append(h)
        self.following.append(table)

    def after_last(self) -> Operand:
        """An operand: the table of the layer that will be added next, or 0 if none will be."""
        place = len(self.following)
        return lambda: self.following[place] if place < len(self.following) else 0


def streamed_layers(plan: Plan) -> StreamedLayers:
    """Those of a plan, whose records will call what reads experts."""

    def begin() -> StreamedLayers:
        plan.keep(*map(plan.use, _CALLED))
        return StreamedLayers()

    layers: StreamedLayers = plan.once(StreamedLayers, begin)
    return layers


@kernel
def mark_routed(rank, size, touched, experts, k, batch):
    """Note which experts tokens were routed to."""
    if rank == 0:
        mark_touched(touched, experts, load_i64(batch + BATCH.tokens) * k)


@inline
def _shared_blocks(work):
    shared = load_i64(work + WORK.shared)
    return count_blocks(shared) if shared else 0


@inline
def _gate_up(experts, expert, block, x, out, row, products):
    """A block of f(gate x) * up x of an expert -> a row of out."""
    y, q, _ = row_addresses(out, row)
    gate_up_blocks(experts, expert, x, block, block + 1, y, q, products)


@inline
def _gate_up_arrived(cached, arrivals, experts, work, item, scratch):
    """A block of one of the chosen experts, waiting for it if need be."""
    layer, x, out = load_i64(work + WORK.layer), load_i64(work + WORK.x), load_i64(work + WORK.out)
    blocks = count_blocks(layer)
    i, block = item // blocks, item % blocks
    place = arrival(cached, arrivals, i, block == 0)
    _gate_up(layer, load_i64(experts + 8 * place), block, x, out, place, scratch)


@kernel
def gate_up_arriving(rank, size, cached, arrivals, experts, k, work, scratch, scratch_stride):
    """f(gate x) * up x of the shared expert and the k chosen ones, these in the order in which they arrive in memory.

    Shares take pieces of the work, one after the other: of a guess first, as the disk is to have something to do.
    """
    following, memory = load_i64(work + WORK.following), scratch + rank * scratch_stride
    pieces, shared = pieces_to_guess(following, arrivals), _shared_blocks(work)
    others = pieces + shared
    count = others + k * count_blocks(load_i64(work + WORK.layer))
    item = take_next(arrivals + ARRIVALS.taken)
    while item < count:
        if item < pieces:
            guess(following, arrivals, item, memory)
        elif item < others:
            x, out = load_i64(work + WORK.shared_x), load_i64(work + WORK.shared_out)
            _gate_up(load_i64(work + WORK.shared), 0, item - pieces, x, out, 0, memory)
        else:
            _gate_up_arrived(cached, arrivals, experts, work, item - others, memory)
        item = take_next(arrivals + ARRIVALS.taken)


def experts_step(
    plan: Plan,
    provider: ExpertProvider,
    layer: LayerExperts,
    router: tuple[Matrix, Activation],
    h: Activation,
    logits: Activation,
    shared_gate: Activation | None,
    x: Activation,
) -> None:
    """As `quant.kernels.experts.experts_step`, with experts that the provider brings.

    router: the matrix of the logits, and what it was multiplied with.
    """
    routed, k, count = layer.routed, layer.routing.experts_per_token, layer.routed.up.count
    plan.weight_bytes += layer.bytes_per_token
    experts, weights = plan.buffer("experts", k, np.int64), plan.buffer("weights", k, np.float32)
    arrivals = plan.buffer("arrivals", ARRIVALS.bytes // 8 + k, np.int64)
    cached = provider.of_token(routed, k)
    layers = streamed_layers(plan)
    layers.add(plan, layer, *router, cached)
    plan.keep(layer)
    scratch = plan.scratch(max(PRODUCTS_BYTES, guess_scratch_bytes(k, count)))
    routing = logits.read("f32"), layer.routing.table(plan, count, layer.scale), experts, weights
    part, plan.part = plan.part, BOOKKEEPING
    plan.add(request_experts, cached, *routing, arrivals, layer.touched, *scratch)
    plan.part = part
    work, middle, shared = _work(plan, layer, h, layers.after_last())
    plan.add(gate_up_arriving, cached, arrivals, experts, k, work, *scratch)
    add_down(plan, layer, (experts, weights), middle, shared, shared_gate, x)


def _work(
    plan: Plan, layer: LayerExperts, h: Activation, following: Operand
) -> tuple[Operand, Activation, Activation | None]:
    """The table of WORK, and where its results are: of the chosen experts, and of the shared one."""
    k, shared = layer.routing.experts_per_token, layer.shared
    middle = plan.activation("middle", layer.routed.up.rows, k)
    middle.read(layer.routed.down.format.activation)
    fields = _gate_up_fields(plan, layer.routed, h, middle)
    shared_middle = None
    shared_fields: dict[str, Operand] = dict.fromkeys(("shared", "shared_x", "shared_out"), 0)
    if shared:
        shared_middle = plan.activation("shared middle", shared.up.rows)
        shared_middle.read(shared.down.format.activation)
        own = _gate_up_fields(plan, shared, h, shared_middle)
        shared_fields = {"shared": own["layer"], "shared_x": own["x"], "shared_out": own["out"]}
    return plan.table(WORK, **fields, **shared_fields, following=following), middle, shared_middle


def _gate_up_fields(plan: Plan, layer: GatedExperts, h: Activation, out: Activation) -> dict[str, Operand]:
    return {"layer": gate_up_table(plan, layer), "x": gate_input(layer, h), "out": plan.output(out)}


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
    count, choice = layer.routed.up.count, Choice.buffers(plan, layer)
    routing, rows = layer.routing.table(plan, count, layer.scale), (logits.read("f32"), logits.stride("f32"))
    scratch = plan.scratch(routing_scratch_bytes(count))
    plan.keep(layer)
    plan.add(route_rows, *rows, routing, choice.experts, choice.weights, plan.batch, *scratch)
    plan.add(mark_routed, layer.touched, choice.experts, layer.routing.experts_per_token, plan.batch)
    counters = plan.buffer("expert counters", (2, COUNTER_WORDS), np.int64)
    sorted_by = choice.pairs, choice.starts, counters
    plan.begin_stage(provider.of_tokens(layer.routed, plan.batch, choice.experts, *sorted_by))
    grouped_experts(plan, layer.routed, choice.assignments, h, x, (counters[0], counters[1]))
    plan.begin_stage(None)
    if layer.shared:
        shared_grouped(plan, layer.shared, h, shared_gate, x, layer.scale)
