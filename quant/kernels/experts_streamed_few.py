"""Experts that are not all in memory, for a few tokens of a stepwise plan: as `experts_streamed`, with the sums of `experts_few`.

An expert that several of the tokens are routed to is read once, and multiplied with all of them as soon as it is there.
"""

from __future__ import annotations

import numpy as np

from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.expert_loads import ARRIVALS, CACHED
from quant.kernels.expert_pairs import end_of_group, sort_pairs
from quant.kernels.expert_requests import (
    arrival,
    guess,
    guess_scratch_bytes,
    pieces_to_guess,
    request,
)
from quant.kernels.expert_slots import add_usage
from quant.kernels.experts import LayerExperts, count_blocks
from quant.kernels.experts_few import (
    CHOICE,
    PARTS,
    add_down_few,
    choice_table,
    gate_up_pairs,
    parts_table,
    scratch_bytes,
)
from quant.kernels.experts_streamed import BOOKKEEPING, ExpertProvider, streamed_layers
from quant.kernels.partition import take_next
from quant.kernels.router import mark_touched, route_token
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import load_f32, load_i64, store_i64
from quant.weights import Matrix

UNION = Layout(  # the experts of a few tokens, each once
    "choice",  # table of CHOICE
    "places",  # memory, int64 [experts of the layer]
    "order",  # int64 [tokens * k]: pairs of token and choice by expert, then by token
    "experts",  # int64 [tokens * k], different ones, ascending
    "starts",  # int64 [tokens * k + 1], where the pairs of each begin in `order`; behind the last one, how many pairs there are
)
_WORK = Layout(
    "routed",  # table of PARTS
    "shared",  # likewise, of the shared expert; 0: there is none
    "following",  # table of FOLLOWING; 0 for the last layer
)


@inline
def _unite(union, count):
    """Fill UNION with the choices of so many pairs; gives how many experts they are."""
    chosen, order = load_i64(load_i64(union + UNION.choice) + CHOICE.experts), load_i64(union + UNION.order)
    experts, starts = load_i64(union + UNION.experts), load_i64(union + UNION.starts)
    every = load_i64(load_i64(union + UNION.choice) + CHOICE.count)
    sort_pairs(chosen, count, every, order, load_i64(union + UNION.places))
    different, first = 0, 0
    while first < count:
        store_i64(experts + 8 * different, load_i64(chosen + 8 * load_i64(order + 8 * first)))
        store_i64(starts + 8 * different, first)
        first = end_of_group(chosen, count, order, first)
        different += 1
    store_i64(starts + 8 * different, count)
    return different


@inline
def _count_experts(union, count):
    """How many different experts there are, if so many pairs chose them."""
    starts, different = load_i64(union + UNION.starts), 0
    while load_i64(starts + 8 * different) < count:
        different += 1
    return different


@inline
def _k_of(union):
    return load_i64(load_i64(union + UNION.choice) + CHOICE.k)


@kernel
def request_experts_few(rank, size, layer, logits, stride, routing, union, arrivals, batch, scratch, scratch_stride):
    """Choose every token's experts and weights, and have the former in memory, or on their way; one share does it.

    layer: table of CACHED; arrivals: of ARRIVALS, whose places are in the experts of UNION.
    """
    if rank == 0:
        choice, tokens = load_i64(union + UNION.choice), load_i64(batch + BATCH.tokens)
        k, experts = load_i64(choice + CHOICE.k), load_i64(choice + CHOICE.experts)
        weights, slots = load_i64(choice + CHOICE.weights), load_i64(layer + CACHED.slots)
        for t in range(tokens):
            route_token(logits + t * stride, routing, scratch, experts + 8 * t * k, weights + 4 * t * k)
            add_usage(slots, experts + 8 * t * k, 0, k, load_f32(layer + CACHED.growth))
        mark_touched(load_i64(choice + CHOICE.touched), experts, tokens * k)
        request(layer, load_i64(union + UNION.experts), _unite(union, tokens * k), arrivals)


@inline
def _gate_up_arrived(cached, arrivals, union, parts, item, k, entries):
    """A block of one of the experts, for all that chose it, waiting for it if need be."""
    blocks = count_blocks(load_i64(parts + PARTS.layer))
    i, block = item // blocks, item % blocks
    place = arrival(cached, arrivals, i, block == 0)
    first = load_i64(load_i64(union + UNION.starts) + 8 * place)
    count = load_i64(load_i64(union + UNION.starts) + 8 * place + 8) - first
    expert, pairs = load_i64(load_i64(union + UNION.experts) + 8 * place), load_i64(union + UNION.order) + 8 * first
    gate_up_pairs(parts, expert, pairs, count, k, block, block + 1, entries)


@kernel
def gate_up_arriving_few(rank, size, cached, arrivals, union, work, batch, scratch, scratch_stride):
    """f(gate x) * up x of the shared expert and of all chosen ones, these in the order in which they arrive in memory.

    Shares take pieces of the work, one after the other: of a guess first, which is made for the first token.
    """
    memory, tokens = scratch + rank * scratch_stride, load_i64(batch + BATCH.tokens)
    routed, shared, k = load_i64(work + _WORK.routed), load_i64(work + _WORK.shared), _k_of(union)
    following = load_i64(work + _WORK.following)
    pieces = pieces_to_guess(following, arrivals)
    others = pieces + (count_blocks(load_i64(shared + PARTS.layer)) if shared else 0)
    count = others + _count_experts(union, tokens * k) * count_blocks(load_i64(routed + PARTS.layer))
    item = take_next(arrivals + ARRIVALS.taken)
    while item < count:
        if item < pieces:
            guess(following, arrivals, item, memory)
        elif item < others:
            gate_up_pairs(shared, 0, 0, tokens, 1, item - pieces, item - pieces + 1, memory)
        else:
            _gate_up_arrived(cached, arrivals, union, routed, item - others, k, memory)
        item = take_next(arrivals + ARRIVALS.taken)


def experts_few(
    plan: Plan,
    provider: ExpertProvider,
    layer: LayerExperts,
    router: tuple[Matrix, Activation],
    h: Activation,
    logits: Activation,
    shared_gate: Activation | None,
    x: Activation,
) -> None:
    """As `quant.kernels.experts_few.experts_few`, with experts that the provider brings.

    router: the matrix of the logits, and what it was multiplied with.
    """
    routed, k, count = layer.routed, layer.routing.experts_per_token, layer.routed.up.count
    pairs = plan.tokens * k
    plan.weight_bytes += layer.bytes_per_token
    experts, weights = plan.buffer("experts", pairs, np.int64), plan.buffer("weights", pairs, np.float32)
    cached, layers = provider.of_token(routed, k), streamed_layers(plan)
    layers.add(plan, layer, *router, cached)
    union = plan.table(
        UNION,
        choice=choice_table(plan, layer, experts, weights),
        places=plan.buffer("places of experts", count, np.int64),
        order=plan.buffer("pairs in order", pairs, np.int64),
        experts=plan.buffer("different experts", pairs, np.int64),
        starts=plan.buffer("starts of experts", pairs + 1, np.int64),
    )
    arrivals = plan.buffer("arrivals", ARRIVALS.bytes // 8 + pairs, np.int64)
    ups = (routed.up,) if layer.shared is None else (routed.up, layer.shared.up)
    scratch = plan.scratch(max(scratch_bytes(plan, plan.tokens, *ups), guess_scratch_bytes(k, count)))
    routing = logits.read("f32"), logits.stride("f32"), layer.routing.table(plan, count, layer.scale)
    part, plan.part = plan.part, BOOKKEEPING
    plan.add(request_experts_few, cached, *routing, union, arrivals, plan.batch, *scratch)
    plan.part = part
    middle, shared_middle = plan.activation("middle", routed.up.rows, pairs), None
    middle.read(routed.down.format.activation)
    shared: Operand = 0
    if layer.shared:
        shared_middle = plan.activation("shared middle", layer.shared.up.rows)
        shared_middle.read(layer.shared.down.format.activation)
        shared = parts_table(plan, layer.shared, h, shared_middle)
    work = plan.table(_WORK, routed=parts_table(plan, routed, h, middle), shared=shared, following=layers.after_last())
    plan.add(gate_up_arriving_few, cached, arrivals, union, work, plan.batch, *scratch)
    choice = choice_table(plan, layer, experts, weights)
    add_down_few(plan, layer, choice, middle, shared_middle, shared_gate, x)
