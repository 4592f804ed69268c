"""Experts for many tokens: tokens are grouped by expert, and each expert's rows are unpacked once for all of its tokens.

Threads share rows, never experts, so that every result is added up in one order. See `assignments` for pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quant.activation import row_addresses
from quant.atomics import call
from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.assignments import ASSIGNMENTS, Assignments, pair_at, start_and_count
from quant.kernels.experts import (
    BLOCK,
    GATE_UP,
    PRODUCTS_BYTES,
    GatedExperts,
    LayerExperts,
    count_blocks,
    finish_block,
    gate_input,
    gate_up_table,
)
from quant.kernels.gates import add_scaled
from quant.kernels.multiply import entries_bytes, pad_entries, scratch_bytes, set_entry, tile_operands
from quant.kernels.observer import observe
from quant.kernels.panel_products import TILE_ROWS
from quant.kernels.panels import INPUT, first_panel, input_table, panel_bytes
from quant.kernels.partition import COUNTER_WORDS, start_of, take_next, take_piece
from quant.kernels.router import mark_touched, route_rows, routing_scratch_bytes
from quant.kernels.scalar import sigmoid1
from quant.plan import Activation, Ids, Operand, Plan
from quant.simd import bits_to_f32, load_f32, load_i64, store_f32, store_i64
from quant.tile import ENTRY
from quant.weights import MATRIX, ExpertMatrices, row_address

MICRO_BATCH = 1024  # tokens of a prompt that are grouped by expert together; 512: 15 % slower, 2048: no quicker
# Of down, each piece of which goes through the tokens of all experts: for each thread, of the tiles that are left; for each
# thread, of all tiles, at most; tiles of a piece, at least.
_PARTS, _MOST_PARTS, _LEAST = 2, 8, 4
# Tokens of an expert up to which rows are not worth unpacking: 16 of 2048 columns take 0.4 us, a dot 0.55 us.
_BY_ROW = 2


@kernel
def group_pairs(rank, size, experts, assignments, touched, counters, batch):
    """Pairs in order of expert, then token, and where each expert's begin; the first thread's work."""
    if rank:
        return
    count, starts = load_i64(assignments + ASSIGNMENTS.experts), load_i64(assignments + ASSIGNMENTS.starts)
    chosen = load_i64(batch + BATCH.tokens) * load_i64(assignments + ASSIGNMENTS.k)
    store_i64(counters, 0)
    store_i64(counters + 8 * COUNTER_WORDS, 0)
    for e in range(count + 1):
        store_i64(starts + 8 * e, 0)
    for pair in range(chosen):
        at = starts + 8 * load_i64(experts + 8 * pair) + 8
        store_i64(at, load_i64(at) + 1)
    for e in range(count):
        store_i64(starts + 8 * e + 8, load_i64(starts + 8 * e + 8) + load_i64(starts + 8 * e))
    pairs = load_i64(assignments + ASSIGNMENTS.pairs)
    for pair in range(chosen):
        at = starts + 8 * load_i64(experts + 8 * pair)
        store_i64(pairs + 8 * load_i64(at), pair)
        store_i64(at, load_i64(at) + 1)
    for e in range(count, 0, -1):
        store_i64(starts + 8 * e, load_i64(starts + 8 * e - 8))
    store_i64(starts, 0)
    mark_touched(touched, experts, chosen)


@kernel
def shared_pairs(rank, size, assignments, scale, gate, gate_stride, counter, batch):
    """The shared expert as an expert that every token chose, weighted by scale and, if it has a gate, its sigmoid."""
    tokens, starts = load_i64(batch + BATCH.tokens), load_i64(assignments + ASSIGNMENTS.starts)
    pairs, weights = load_i64(assignments + ASSIGNMENTS.pairs), load_i64(assignments + ASSIGNMENTS.weights)
    if rank == 0:
        store_i64(starts, 0)
        store_i64(starts + 8, tokens)
        store_i64(counter, 0)
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        store_i64(pairs + 8 * t, t)
        share = sigmoid1(load_f32(gate + t * gate_stride)) if gate else np.float32(1)
        store_f32(weights + 4 * t, bits_to_f32(scale) * share)


@inline
def _multiply_rows(matrix, expert, first, last, entries, tokens, offset, accumulate):
    """Rows first to last of one matrix for a few tokens, one after the other; results from `offset` bytes on."""
    w, columns, dot = (
        row_address(matrix, expert, first),
        load_i64(matrix + MATRIX.columns),
        load_i64(matrix + MATRIX.dot),
    )
    for i in range(tokens):
        entry = entries + i * ENTRY.bytes
        x, y = load_i64(entry + ENTRY.activation), load_i64(entry + ENTRY.result) + offset
        call(dot, (w, last - first, columns, x, y, load_f32(entry + ENTRY.factor), accumulate))


@inline
def _multiply_tiles(matrix, expert, first, last, entries, panels, tokens, offset, accumulate, scratch):
    """Rows first to last of one matrix, tile by tile; results from `offset` bytes on."""
    multiply = load_i64(matrix + MATRIX.multiply)
    for r in range(first, last, TILE_ROWS):
        w, rows, at = row_address(matrix, expert, r), min(TILE_ROWS, last - r), offset + 4 * (r - first)
        call(multiply, (matrix, w, rows, entries, panels, 0, tokens, at, accumulate, scratch))


@inline
def _multiply(matrix, expert, first, last, entries, panels, tokens, offset, accumulate, scratch):
    """Rows first to last of one matrix and all tokens of an expert, the quicker way."""
    if tokens <= _BY_ROW:
        _multiply_rows(matrix, expert, first, last, entries, tokens, offset, accumulate)
    else:
        _multiply_tiles(matrix, expert, first, last, entries, panels, tokens, offset, accumulate, scratch)


@kernel
def gate_up_grouped(rank, size, layer, assignments, x, out, counter, scratch, scratch_stride):
    """f(gate x) * up x of every expert for its pairs -> row `pair` of out; threads take experts, or share rows."""
    count, k = load_i64(assignments + ASSIGNMENTS.experts), load_i64(assignments + ASSIGNMENTS.k)
    most = load_i64(assignments + ASSIGNMENTS.most)
    gate, up = load_i64(layer + GATE_UP.gate), load_i64(layer + GATE_UP.up)
    rows, columns = load_i64(up + MATRIX.rows), load_i64(up + MATRIX.columns)
    source, stride, panels = load_i64(x + INPUT.rows), load_i64(x + INPUT.stride), load_i64(x + INPUT.panels)
    entries = scratch + rank * scratch_stride
    products = entries + entries_bytes(most)
    unused = products + most * PRODUCTS_BYTES
    memory = unused + PRODUCTS_BYTES
    blocks = count_blocks(layer)
    first_block, last_block = start_of(rank, size, blocks), start_of(rank + 1, size, blocks)
    if counter:
        first_block, last_block = 0, blocks
    expert = take_next(counter) if counter else 0
    while expert < count and first_block < last_block:
        start, tokens = start_and_count(assignments, expert)
        for i in range(tokens):
            t = pair_at(assignments, start + i) // k
            set_entry(entries, i, source + t * stride, products + PRODUCTS_BYTES * i, np.float32(1))
        pad_entries(entries, tokens, source, unused)
        panel = panels + first_panel(start, expert) * panel_bytes(columns) if panels else 0
        for block in range(first_block, last_block if tokens else first_block):
            first, last = block * BLOCK, min(rows, block * BLOCK + BLOCK)
            for part in range(0 if gate else 1, 2):
                matrix, at = (up, 4 * BLOCK) if part else (gate, 0)
                _multiply(matrix, expert, first, last, entries, panel, tokens, at, 0, memory)
            for i in range(tokens):
                product = products + PRODUCTS_BYTES * i
                y, q, _ = row_addresses(out, pair_at(assignments, start + i))
                finish_block(layer, expert, product, product + 4 * BLOCK, first, last - first, y, q)
        expert = take_next(counter) if counter else expert + 1


@inline
def _add_bias(matrix, expert, first, last, entries, tokens):
    """The bias of rows first to last, times each token's factor."""
    bias, rows = load_i64(matrix + MATRIX.bias), load_i64(matrix + MATRIX.rows)
    for i in range(tokens if bias else 0):
        entry = entries + i * ENTRY.bytes
        out, factor = load_i64(entry + ENTRY.result) + 4 * first, load_f32(entry + ENTRY.factor)
        add_scaled(out, bias + 4 * (expert * rows + first), factor, last - first)


@kernel
def down_grouped(rank, size, down, assignments, middle, x, x_stride, adds, counter, scratch, scratch_stride):
    """x[pair // k] += weight * down middle[pair], experts in order; threads take, or share, rows of the result.

    Without `adds` the result replaces what was there, for one expert a row of x.
    """
    count, k = load_i64(assignments + ASSIGNMENTS.experts), load_i64(assignments + ASSIGNMENTS.k)
    weights, panels = load_i64(assignments + ASSIGNMENTS.weights), load_i64(middle + INPUT.panels)
    y, y_stride = load_i64(middle + INPUT.rows), load_i64(middle + INPUT.stride)
    rows, columns = load_i64(down + MATRIX.rows), load_i64(down + MATRIX.columns)
    entries = scratch + rank * scratch_stride
    unused = entries + entries_bytes(load_i64(assignments + ASSIGNMENTS.most))
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    memory = unused + 4 * TILE_ROWS * tiles
    least = max(_LEAST, tiles // (_MOST_PARTS * size))
    share = start_of(rank, size, tiles), start_of(rank + 1, size, tiles)
    begin, end = take_piece(counter, tiles, _PARTS * size, least) if counter else share
    while begin < end:
        first, last = begin * TILE_ROWS, min(rows, end * TILE_ROWS)
        for expert in range(count):
            start, tokens = start_and_count(assignments, expert)
            for i in range(tokens):
                pair = pair_at(assignments, start + i)
                set_entry(entries, i, y + pair * y_stride, x + pair // k * x_stride, load_f32(weights + 4 * pair))
            pad_entries(entries, tokens, y, unused)
            panel = panels + first_panel(start, expert) * panel_bytes(columns)
            if tokens:
                _multiply(down, expert, first, last, entries, panel, tokens, 4 * first, adds, memory)
            _add_bias(down, expert, first, last, entries, tokens)
        begin, end = take_piece(counter, tiles, _PARTS * size, least) if counter else (end, end)


def grouped_experts(
    plan: Plan,
    layer: GatedExperts,
    assignments: Assignments,
    h: Activation,
    x: Activation,
    counters: tuple[Operand, Operand],
) -> None:
    """Gate and up of a set of experts, then down: h [tokens, n]; x [tokens, n] += the weighted sum of each token's pairs.

    Counters, of gate and up and of down: threads take what is next, all rows of an expert or some of all of them. Where one
    is 0, each has its share of the rows.
    """
    up, down, most = layer.up, layer.down, plan.tokens
    pairs = most * assignments.k
    middle, by_pair = plan.activation("middle", up.rows, pairs), replace(assignments, k=1)
    table = assignments.table(plan)
    gate_scratch = entries_bytes(most) + (most + 1) * PRODUCTS_BYTES + scratch_bytes(up.columns)
    scratch = plan.scratch(max(gate_scratch, down_scratch(most, down)))
    plan.keep(layer)
    gate_input(layer, h)
    source = input_table(plan, h, up.format.activation, f"grouped {up.count}", assignments, pairs)
    observe(plan, [part.name for part in layer.matrices[:-1]], h, assignments)
    operands = gate_up_table(plan, layer, tile_operands), table, source, plan.output(middle)
    plan.add(gate_up_grouped, *operands, counters[0], *scratch)
    middle.read(down.format.activation)
    source = input_table(plan, middle, down.format.activation, f"middle {up.count}", by_pair, pairs)
    observe(plan, [down.name], middle, by_pair)
    matrix = plan.table(MATRIX, **tile_operands(down))
    plan.add(down_grouped, matrix, table, source, x.read("f32"), x.stride("f32"), 1, counters[1], *scratch)


def down_scratch(tokens: int, down: ExpertMatrices) -> int:
    """Scratch memory that `down_grouped` needs for at most so many tokens of an expert."""
    size: int = entries_bytes(tokens) + 4 * (down.rows + TILE_ROWS) + scratch_bytes(down.columns)
    return size


def experts_grouped(
    plan: Plan, layer: LayerExperts, h: Activation, logits: Activation, shared_gate: Activation | None, x: Activation
) -> None:
    """h [tokens, n], logits [tokens, experts], shared_gate [tokens, 1]: x [tokens, n] += the experts' sum."""
    count = layer.routed.up.count
    choice = Choice.buffers(plan, layer)
    routing = layer.routing.table(plan, count, layer.scale)
    route = logits.read("f32"), logits.stride("f32"), routing, choice.experts, choice.weights, plan.batch
    plan.add(route_rows, *route, *plan.scratch(routing_scratch_bytes(count)))
    counters = plan.buffer("expert counters", (2, COUNTER_WORDS), np.int64)
    plan.add(group_pairs, choice.experts, choice.assignments.table(plan), layer.touched, counters, plan.batch)
    grouped_experts(plan, layer.routed, choice.assignments, h, x, (counters[0], counters[1]))
    if layer.shared:
        shared_grouped(plan, layer.shared, h, shared_gate, x, layer.scale)


class Choice(NamedTuple):
    """What many tokens choose: int64 experts and float32 weights [tokens, k], and its pairs in order of expert."""

    experts: Ids
    weights: NDArray[np.float32]
    starts: Ids
    pairs: Ids

    @classmethod
    def buffers(cls, plan: Plan, layer: LayerExperts) -> Choice:
        """Where the choice of a layer is left until its experts are added: memory that all layers share."""
        shape = plan.tokens, layer.routing.experts_per_token
        experts, weights = plan.buffer("experts", shape, np.int64), plan.buffer("weights", shape, np.float32)
        starts = plan.buffer("starts", layer.routed.up.count + 1, np.int64)
        return cls(experts, weights, starts, plan.buffer("pairs", experts.size, np.int64))

    @property
    def assignments(self) -> Assignments:
        """The same, as kernels are given it."""
        most, k = self.experts.shape
        return Assignments(len(self.starts) - 1, k, self.starts, self.pairs, self.weights, most)


def dense_grouped(plan: Plan, layer: GatedExperts, h: Activation, x: Activation, scale: float = 1.0) -> None:
    """An expert that every token takes: h [tokens, n]; x [tokens, n] += scale * its result."""
    shared_grouped(plan, layer, h, None, x, scale)


def shared_grouped(
    plan: Plan, layer: GatedExperts, h: Activation, gate: Activation | None, x: Activation, scale: float
) -> None:
    """The same, times scale and, if gate [tokens, 1] is given, its sigmoid."""
    starts, pairs = plan.buffer("shared starts", 2, np.int64), plan.buffer("shared pairs", plan.tokens, np.int64)
    weights = plan.buffer("shared weights", plan.tokens, np.float32)
    assignments = Assignments(1, 1, starts, pairs, weights, plan.tokens)
    gate_rows, stride = (gate.read("f32"), gate.stride("f32")) if gate else (0, 0)
    factor = float(scale) * layer.down_scale
    counter = plan.buffer("shared counter", COUNTER_WORDS, np.int64)
    plan.add(shared_pairs, assignments.table(plan), factor, gate_rows, stride, counter, plan.batch)
    grouped_experts(plan, layer, assignments, h, x, (0, counter))
