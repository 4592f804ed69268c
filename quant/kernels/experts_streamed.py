"""Experts that are not all in memory: a plan stops where they are chosen, and goes on as they arrive.

One token first meets those that are there, while the others are read; a chunk meets them a few at a time, in order. Sums
are made in the order of `experts` and `experts_grouped`, so the bits are theirs.
"""

from __future__ import annotations

import numpy as np

from quant.jit import kernel
from quant.kernels.experts import BLOCK, ExpertLayer, Gated, add_down, gate_operands, gate_up_blocks, gate_up_of_all
from quant.kernels.experts_grouped import gated_grouped, taken_by_all
from quant.kernels.router import mark, route_rows, spare_bytes
from quant.kernels.share import COUNTER_WORDS, first_of
from quant.plan import Activation, Ids, Operand, Plan
from quant.simd import load_i64


@kernel
def mark_chosen(rank, size, touched, experts, k, run):
    """Note which experts tokens were routed to."""
    if rank == 0:
        mark(touched, experts, load_i64(run) * k)


@kernel
def gate_up_listed(
    rank, size, places, experts, gate, up, finish, dot, row_bytes, columns, x, rows, y, y_stride, q, q_stride, scratch,
    scratch_stride,
):  # fmt: skip
    """f(gate x) * up x of the experts at listed places of a token's choice -> the same rows of y and q."""
    blocks, local = (rows + BLOCK - 1) // BLOCK, scratch + rank * scratch_stride
    count = load_i64(places) * blocks
    first, last = first_of(rank, size, count), first_of(rank + 1, size, count)
    for j in range(first // blocks, (last + blocks - 1) // blocks):
        i = load_i64(places + 8 + 8 * j)
        expert = load_i64(experts + 8 * i)
        begin, end = max(first - j * blocks, 0), min(last - j * blocks, blocks)
        w, v = load_i64(gate + 8 * expert), load_i64(up + 8 * expert)
        out, quantized = y + i * y_stride if y else 0, q + i * q_stride if q else 0
        gate_up_blocks(dot, w, v, finish, expert, row_bytes, columns, x, rows, begin, end, local, out, quantized)


def _route(plan: Plan, layer: ExpertLayer, logits: Activation) -> tuple[Ids, Operand]:
    """Choose experts for every token -> int64 [tokens, k] and their weights."""
    routing, spare = layer.routing.table(layer.routed.gate.count, layer.scale), spare_bytes(layer.routed.gate.count)
    shape = plan.tokens, layer.routing.chosen
    experts, weights = plan.buffer("experts", shape, np.int64), plan.buffer("weights", shape, np.float32)
    rows = logits.read("f32"), logits.stride("f32")
    plan.keep(layer)
    plan.add(route_rows, *rows, routing, experts, weights, plan.run, *plan.scratch(spare))
    plan.add(mark_chosen, layer.touched, experts, layer.routing.chosen, plan.run)
    return experts, weights


def experts_step(
    plan: Plan, layer: ExpertLayer, h: Activation, logits: Activation, shared_gate: Activation | None, x: Activation
) -> None:
    """As `quant.kernels.experts.experts_step`, with experts that the plan's supply brings."""
    assert plan.supply is not None
    routed, k = layer.routed, layer.routing.chosen
    plan.weight_bytes += layer.bytes_per_token
    experts, weights = _route(plan, layer, logits)
    here, late = (plan.buffer(f"{name} places", k + 1, np.int64) for name in ("here", "late"))
    middle = plan.rows("middle", routed.gate.rows, k)
    middle.read(routed.down.format.activation)
    before, after = plan.supply.of_token(routed, experts[0], here, late)
    plan.begin(before)
    own = gate_up_of_all(plan, layer.shared, h) if layer.shared else None
    _add_gate_up(plan, routed, here, experts, h, middle)
    plan.begin(after)
    _add_gate_up(plan, routed, late, experts, h, middle)
    add_down(plan, layer, experts, weights, middle, own, shared_gate, x)
    plan.begin(None)


def _add_gate_up(plan: Plan, layer: Gated, places: Ids, experts: Ids, h: Activation, middle: Activation) -> None:
    plan.add(
        gate_up_listed, places, experts, layer.gate.addresses, layer.up.addresses, layer.finish,
        *gate_operands(layer.gate, h), middle.written("f32"), middle.stride("f32"), middle.written("q8"),
        middle.stride("q8"), *plan.scratch(8 * BLOCK),
    )  # fmt: skip


def experts_grouped(
    plan: Plan, layer: ExpertLayer, h: Activation, logits: Activation, shared_gate: Activation | None, x: Activation
) -> None:
    """As `quant.kernels.experts_grouped.experts_grouped`, a few experts in a turn."""
    assert plan.supply is not None
    experts, weights = _route(plan, layer, logits)
    slots = plan.buffer("slots", experts.size, np.int64)
    starts = plan.buffer("starts", layer.routed.gate.count + 1, np.int64)
    counters = plan.buffer("expert counters", (2, COUNTER_WORDS), np.int64)
    plan.begin(plan.supply.of_tokens(layer.routed, experts, slots, starts, counters))
    gated_grouped(plan, layer.routed, layer.routing.chosen, (starts, slots, weights), h, x, counters)
    plan.begin(None)
    if layer.shared:
        taken_by_all(plan, layer.shared, h, shared_gate, x, layer.scale)
