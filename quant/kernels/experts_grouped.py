"""Experts for many tokens: tokens are grouped by expert, and each expert's rows are unpacked once for all of its tokens.

A slot is a (token, choice) pair. Threads share rows, never experts, so that every result is added up in one order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.atomics import call
from quant.jit import inline, kernel
from quant.kernels.delta_net import sigmoid1
from quant.kernels.experts import BLOCK, ExpertLayer, Gated, finish_block
from quant.kernels.gates import add_scaled
from quant.kernels.multiply import ROWS, multiply_kernel, pad_table, scratch_bytes, set_entry, table_bytes
from quant.kernels.panels import first_panel, pack, panel_bytes
from quant.kernels.router import mark, route_rows, spare_bytes
from quant.kernels.share import COUNTER_WORDS, first_of, take
from quant.plan import Activation, Groups, Operand, Plan
from quant.simd import bits_to_f32, load_f32, load_i64, store_f32, store_i64
from quant.tile import ENTRY_BYTES
from quant.weights import Experts

MICRO_BATCH = 1024  # tokens of a prompt that are grouped by expert together; 512: 15 % slower, 2048: no quicker
_TURNS = 2  # pieces of down that each thread takes on average: each piece goes through all experts
_BY_ROW = (
    2  # tokens of an expert up to which rows are not worth unpacking: 16 of 2048 columns take 0.4 us, a dot 0.55 us
)


@kernel
def group_slots(rank, size, experts, k, count, starts, slots, touched, counters, run):
    """Slots in order of expert, then token: int64 slots [tokens * k], starts [count + 1]; the first thread's work."""
    if rank:
        return
    tokens = load_i64(run)
    store_i64(counters, 0)
    store_i64(counters + 8 * COUNTER_WORDS, 0)
    for e in range(count + 1):
        store_i64(starts + 8 * e, 0)
    for s in range(tokens * k):
        at = starts + 8 * load_i64(experts + 8 * s) + 8
        store_i64(at, load_i64(at) + 1)
    for e in range(count):
        store_i64(starts + 8 * e + 8, load_i64(starts + 8 * e + 8) + load_i64(starts + 8 * e))
    for s in range(tokens * k):
        at = starts + 8 * load_i64(experts + 8 * s)
        store_i64(slots + 8 * load_i64(at), s)
        store_i64(at, load_i64(at) + 1)
    for e in range(count, 0, -1):
        store_i64(starts + 8 * e, load_i64(starts + 8 * e - 8))
    store_i64(starts, 0)
    mark(touched, experts, tokens * k)


@kernel
def shared_slots(rank, size, starts, slots, weights, scale, gate, gate_stride, run):
    """The shared expert as an expert that every token chose, weighted by scale and, if it has a gate, its sigmoid."""
    tokens = load_i64(run)
    if rank == 0:
        store_i64(starts, 0)
        store_i64(starts + 8, tokens)
    for t in range(first_of(rank, size, tokens), first_of(rank + 1, size, tokens)):
        store_i64(slots + 8 * t, t)
        share = sigmoid1(load_f32(gate + t * gate_stride)) if gate else np.float32(1)
        store_f32(weights + 4 * t, bits_to_f32(scale) * share)


@inline
def _dot_each(dot, w, row_bytes, first, last, columns, table, tokens, offset, accumulate):
    """Rows first to last of one matrix for a few tokens, one after the other; results from `offset` bytes on."""
    for i in range(tokens):
        entry = table + i * ENTRY_BYTES
        x, y = load_i64(entry), load_i64(entry + 8) + offset
        call(dot, (w + first * row_bytes, last - first, columns, x, y, load_f32(entry + 16), accumulate))


@inline
def _meet_rows(
    multiply, unpack, w, row_bytes, first, last, columns, group, table, panels, tokens, offset, accumulate, scratch
):
    """Rows first to last of one matrix, tile by tile; results from `offset` bytes on."""
    for r in range(first, last, ROWS):
        rows, at = min(ROWS, last - r), offset + 4 * (r - first)
        tile = (unpack, w + r * row_bytes, row_bytes, rows, columns, group)
        call(multiply, (*tile, table, panels, 0, tokens, at, accumulate, scratch))


@kernel
def gate_up_grouped(
    rank, size, count, k, starts, slots, gate, up, finish, dot, multiply, unpack, row_bytes, columns, group, x, x_stride, panels,
    rows, y, y_stride, q, q_stride, most, counter, scratch, scratch_stride,
):  # fmt: skip
    """f(gate x) * up x of every expert for its slots -> y and q [slots, rows]; threads take experts, or share rows."""
    table = scratch + rank * scratch_stride
    products = table + table_bytes(most)
    spare = products + most * 8 * BLOCK
    memory = spare + 8 * BLOCK
    blocks = (rows + BLOCK - 1) // BLOCK
    first_block, last_block = first_of(rank, size, blocks), first_of(rank + 1, size, blocks)
    if counter:
        first_block, last_block = 0, blocks
    expert = take(counter, 1) if counter else 0
    while expert < count and first_block < last_block:
        start = load_i64(starts + 8 * expert)
        tokens = load_i64(starts + 8 * expert + 8) - start
        for i in range(tokens):
            t = load_i64(slots + 8 * (start + i)) // k
            set_entry(table, i, x + t * x_stride, products + 8 * BLOCK * i, np.float32(1))
        pad_table(table, tokens, x, spare)
        panel = panels + first_panel(start, expert) * panel_bytes(columns) if panels else 0
        w, v = load_i64(gate + 8 * expert), load_i64(up + 8 * expert)
        for block in range(first_block, last_block if tokens else first_block):
            first, last = block * BLOCK, min(rows, block * BLOCK + BLOCK)
            for part in range(2):
                weights, at = (v, 4 * BLOCK) if part else (w, 0)
                if tokens <= _BY_ROW:
                    _dot_each(dot, weights, row_bytes, first, last, columns, table, tokens, at, 0)
                else:
                    _meet_rows(
                        multiply, unpack, weights, row_bytes, first, last, columns, group, table, panel, tokens, at, 0,
                        memory,
                    )  # fmt: skip
            for i in range(tokens):
                slot, product = load_i64(slots + 8 * (start + i)), products + 8 * BLOCK * i
                out, quantized = y + slot * y_stride if y else 0, q + slot * q_stride if q else 0
                finish_block(finish, expert, product, product + 4 * BLOCK, last - first, rows, first, out, quantized)
        expert = take(counter, 1) if counter else expert + 1


@kernel
def down_grouped(
    rank, size, count, k, starts, slots, weights, down, bias, dot, multiply, unpack, row_bytes, columns, group, y, y_stride,
    panels, rows, x, x_stride, adds, most, counter, scratch, scratch_stride,
):  # fmt: skip
    """x[slot // k] += weight * down y[slot], experts in order; threads take, or share, rows of the result.

    Without `adds` the result replaces what was there, for one expert a row of x.
    """
    table = scratch + rank * scratch_stride
    spare = table + table_bytes(most)
    memory = spare + 4 * ROWS * ((rows + ROWS - 1) // ROWS)
    tiles = (rows + ROWS - 1) // ROWS
    grain = tiles // (size * _TURNS) + 1 if counter else (tiles + size - 1) // size
    begin = take(counter, grain) if counter else rank * grain
    while begin < tiles:
        first, last = begin * ROWS, min(rows, (begin + grain) * ROWS)
        for expert in range(count):
            start = load_i64(starts + 8 * expert)
            tokens = load_i64(starts + 8 * expert + 8) - start
            for i in range(tokens):
                slot = load_i64(slots + 8 * (start + i))
                set_entry(table, i, y + slot * y_stride, x + slot // k * x_stride, load_f32(weights + 4 * slot))
            pad_table(table, tokens, y, spare)
            w, panel = load_i64(down + 8 * expert), panels + first_panel(start, expert) * panel_bytes(columns)
            if 0 < tokens <= _BY_ROW:
                _dot_each(dot, w, row_bytes, first, last, columns, table, tokens, 4 * first, adds)
            elif tokens:
                _meet_rows(
                    multiply, unpack, w, row_bytes, first, last, columns, group, table, panel, tokens, 4 * first, adds, memory
                )  # fmt: skip
            for i in range(tokens if bias else 0):
                entry = table + i * ENTRY_BYTES
                out = load_i64(entry + 8) + 4 * first
                add_scaled(out, bias + 4 * (expert * rows + first), load_f32(entry + 16), last - first)
        begin = take(counter, grain) if counter else tiles


def gated_grouped(
    plan: Plan, layer: Gated, k: int, grouping: tuple[Operand, Operand, Operand], h: Activation, x: Activation,
    counters: NDArray[np.int64] | None,
) -> None:  # fmt: skip
    """One set of experts: gate and up, then down; `grouping` is starts, slots and weights.

    With counters, for gate and up and for down, threads take what is next; else each has its share.
    """
    gate, down = layer.gate, layer.down
    starts, slots, weights = grouping
    middle, most = plan.rows("middle", gate.rows, plan.tokens * k), plan.tokens
    inner, kind = gate.format.activation, down.format.activation
    order: dict[str, Any] = {"sets": gate.count, "starts": starts, "slots": slots, "places": plan.tokens * k}
    packed = pack(plan, f"grouped {gate.count}", h, "q8", k=k, **order) if inner == "q8" else 0
    inner_scratch = table_bytes(most) + (most + 1) * 8 * BLOCK + scratch_bytes(gate.columns)
    scratch = plan.scratch(max(inner_scratch, down_scratch(most, down)))
    plan.keep(layer)
    plan.watch([gate.name, layer.up.name], h, Groups(gate.count, k, starts, slots))
    plan.add(
        gate_up_grouped, gate.count, k, starts, slots, gate.addresses, layer.up.addresses, layer.finish,
        *multiply_operands(gate), h.read(inner), h.stride(inner), packed, gate.rows, middle.written("f32"),
        middle.stride("f32"), middle.written("q8"), middle.stride("q8"), most, 0 if counters is None else counters[0], *scratch,
    )  # fmt: skip
    inputs = middle.read(kind), middle.stride(kind)
    packed = pack(plan, f"middle {gate.count}", middle, "q8", **order) if kind == "q8" else 0
    plan.watch([down.name], middle, Groups(down.count, 1, starts, slots))
    plan.add(
        down_grouped, down.count, k, starts, slots, weights, down.addresses, layer.down_bias, *multiply_operands(down),
        *inputs, packed, down.rows, x.read("f32"), x.stride("f32"), 1, most, 0 if counters is None else counters[1],
        *scratch,
    )  # fmt: skip


def down_scratch(tokens: int, down: Experts) -> int:
    """Scratch memory that `down_grouped` needs for at most so many tokens of an expert."""
    size: int = table_bytes(tokens) + 4 * (down.rows + ROWS) + scratch_bytes(down.columns)
    return size


def multiply_operands(experts: Experts) -> tuple[Operand, ...]:
    """dot_rows, multiply, unpack_tile, row bytes, columns, group of a matrix."""
    kind = experts.format
    return kind.dot_rows, multiply_kernel(kind), kind.unpack_tile, experts.row_bytes, experts.columns, kind.group


def experts_grouped(
    plan: Plan, layer: ExpertLayer, h: Activation, logits: Activation, shared_gate: Activation | None, x: Activation
) -> None:
    """h [tokens, n], logits [tokens, experts], shared_gate [tokens, 1]: x [tokens, n] += the experts' sum."""
    k, count, tokens = layer.routing.chosen, layer.routed.gate.count, plan.tokens
    experts, weights = plan.buffer("experts", (tokens, k), np.int64), plan.buffer("weights", (tokens, k), np.float32)
    starts, slots = plan.buffer("starts", count + 1, np.int64), plan.buffer("slots", tokens * k, np.int64)
    routing = layer.routing.table(count, layer.scale)
    plan.keep(layer.routing)
    route = logits.read("f32"), logits.stride("f32"), routing, experts, weights, plan.run
    plan.add(route_rows, *route, *plan.scratch(spare_bytes(count)))
    counters = plan.buffer("expert counters", (2, COUNTER_WORDS), np.int64)
    plan.add(group_slots, experts, k, count, starts, slots, layer.touched, counters, plan.run)
    gated_grouped(plan, layer.routed, k, (starts, slots, weights), h, x, counters)
    if layer.shared:
        taken_by_all(plan, layer.shared, h, shared_gate, x, layer.scale)


def dense_grouped(plan: Plan, layer: Gated, h: Activation, x: Activation) -> None:
    """An expert that every token takes: h [tokens, n]; x [tokens, n] += its result."""
    taken_by_all(plan, layer, h, None, x, 1.0)


def taken_by_all(plan: Plan, layer: Gated, h: Activation, gate: Activation | None, x: Activation, scale: float) -> None:
    starts, slots = plan.buffer("shared starts", 2, np.int64), plan.buffer("shared slots", plan.tokens, np.int64)
    weights = plan.buffer("shared weights", plan.tokens, np.float32)
    gate_rows, stride = (gate.read("f32"), gate.stride("f32")) if gate else (0, 0)
    plan.add(shared_slots, starts, slots, weights, float(scale), gate_rows, stride, plan.run)
    gated_grouped(plan, layer, 1, (starts, slots, weights), h, x, None)
