"""A layer of experts for a few tokens of a stepwise plan: to each is added what a step of its own would add, bit by bit.

As `experts`, and by the same sums. An expert that several of the tokens are routed to is read once.
"""

from __future__ import annotations

import numpy as np

from quant.activation import row_addresses
from quant.atomics import call
from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.expert_pairs import end_of_group, sort_pairs
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
from quant.kernels.few_rows import FEW_ROWS, few_operands, few_scratch_bytes, multiply_few
from quant.kernels.gates import add_scaled
from quant.kernels.multiply import set_entry
from quant.kernels.partition import shares_of, start_of
from quant.kernels.router import mark_touched, route_rows, routing_scratch_bytes
from quant.kernels.scalar import sigmoid1
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import load_f32, load_i64, store_i64
from quant.tile import ENTRY
from quant.weights import MATRIX, ExpertMatrices, Matrix, row_address

CHOICE = Layout(
    "k",  # experts of a token
    "count",  # experts of the layer
    "experts",  # int64 [tokens, k]
    "weights",  # float32 [tokens, k]
    "touched",  # uint8 [experts], see LayerExperts
)
ADDED = Layout(  # what is added to every token: scale * sigmoid(gate) * (down middle)
    "down",  # table of MATRIX
    "middle",
    "middle_stride",
    "gate",  # float32, a column of rows; 0 for none, and no sigmoid
    "gate_stride",
    "scale",  # float32
)
PARTS = Layout("layer", "x", "stride", "out")  # a table of GATE_UP, rows that it multiplies, and a table of OUTPUT
PAIR_BYTES = (
    ENTRY.bytes + PRODUCTS_BYTES
)  # of scratch memory, for each row that a block of an expert is multiplied with


@inline
def _gate_up(parts, expert, block, entries, products, count):
    """A block of the rows of gate and up of an expert, times `count` activation rows -> products [count, 2, BLOCK]."""
    layer = load_i64(parts + PARTS.layer)
    gate, up = load_i64(layer + GATE_UP.gate), load_i64(layer + GATE_UP.up)
    rows, row_bytes = load_i64(up + MATRIX.rows), load_i64(up + MATRIX.row_bytes)
    first = block * BLOCK
    some = min(BLOCK, rows - first)
    for half in range(0 if gate else 1, 2):
        matrix = up if half else gate
        for i in range(count):
            place = products + i * PRODUCTS_BYTES + 4 * BLOCK * half
            store_i64(entries + i * ENTRY.bytes + ENTRY.result, place)
        w, memory = row_address(matrix, expert, 0) + first * row_bytes, products + count * PRODUCTS_BYTES
        multiply_few(matrix, w, some, entries, count, count, 0, memory)
    return first, some


@inline
def _pair(pairs, i):
    return load_i64(pairs + 8 * i) if pairs else i


@inline
def gate_up_pairs(parts, expert, pairs, count, k, low, high, entries):
    """Blocks low to high of f(gate x) * up x of an expert, for each of `count` pairs that chose it -> a row of `out` each.

    pairs int64 [count], sorted; 0, with a k of 1: the first `count` tokens. entries: memory, see `scratch_bytes`.
    """
    layer, out, products = load_i64(parts + PARTS.layer), load_i64(parts + PARTS.out), entries + count * ENTRY.bytes
    x, stride = load_i64(parts + PARTS.x), load_i64(parts + PARTS.stride)
    for i in range(count):
        set_entry(entries, i, x + _pair(pairs, i) // k * stride, 0, np.float32(1))
    for block in range(low, high):
        row, some = _gate_up(parts, expert, block, entries, products, count)
        for i in range(count):
            y, q, _ = row_addresses(out, _pair(pairs, i))
            product = products + i * PRODUCTS_BYTES
            finish_block(layer, expert, product, product + 4 * BLOCK, row, some, y, q)


@kernel
def gate_up_few(rank, size, choice, parts, rows, scratch, scratch_stride):
    """f(gate x) * up x of each token's experts -> a row of `out` for each choice; threads share blocks of the experts."""
    k, experts, every = load_i64(choice + CHOICE.k), load_i64(choice + CHOICE.experts), load_i64(choice + CHOICE.count)
    count = load_i64(rows + BATCH.tokens) * k
    if rank == 0:
        mark_touched(load_i64(choice + CHOICE.touched), experts, count)
    order = scratch + rank * scratch_stride
    places = order + 8 * count
    entries = places + 8 * every
    sort_pairs(experts, count, every, order, places)
    groups, first = 0, 0
    while first < count:
        first = end_of_group(experts, count, order, first)
        groups += 1
    blocks = count_blocks(load_i64(parts + PARTS.layer))
    begin, end = start_of(rank, size, groups * blocks), start_of(rank + 1, size, groups * blocks)
    first, group = 0, 0
    while first < count:
        last = end_of_group(experts, count, order, first)
        low, high = max(begin - group * blocks, 0), min(end - group * blocks, blocks)
        if low < high:
            expert, pairs = load_i64(experts + 8 * load_i64(order + 8 * first)), order + 8 * first
            gate_up_pairs(parts, expert, pairs, last - first, k, low, high, entries)
        first, group = last, group + 1


@kernel
def gate_up_shared_few(rank, size, parts, rows, scratch, scratch_stride):
    """f(gate x) * up x of the shared expert -> a row of `out` for each token; threads share its blocks, the last ones first."""
    tokens, blocks = load_i64(rows + BATCH.tokens), count_blocks(load_i64(parts + PARTS.layer))
    rank = size - 1 - rank
    low, high = start_of(rank, size, blocks), start_of(rank + 1, size, blocks)
    gate_up_pairs(parts, 0, 0, tokens, 1, low, high, scratch + rank * scratch_stride)


@inline
def _add_chosen(choice, down, middle, middle_stride, t, y, first, some):
    """Rows first to first + some: y += the sum over one token's experts of weight * (down middle + bias)."""
    k = load_i64(choice + CHOICE.k)
    columns, bias = load_i64(down + MATRIX.columns), load_i64(down + MATRIX.bias)
    for pair in range(t * k, (t + 1) * k):
        expert = load_i64(load_i64(choice + CHOICE.experts) + 8 * pair)
        weight = load_f32(load_i64(choice + CHOICE.weights) + 4 * pair)
        x, w = middle + pair * middle_stride, row_address(down, expert, first)
        call(load_i64(down + MATRIX.dot), (w, some, columns, x, y, weight, 1))
        if bias:
            add_scaled(y, bias + 4 * (expert * load_i64(down + MATRIX.rows) + first), weight, some)


@inline
def _add_to_all(added, first, some, entries, tokens, x, x_stride):
    """Rows first to first + some of every token's x: what ADDED tells."""
    down, gate = load_i64(added + ADDED.down), load_i64(added + ADDED.gate)
    bias = load_i64(down + MATRIX.bias)
    for t in range(tokens):
        factor = load_f32(added + ADDED.scale)
        if gate:
            factor *= sigmoid1(load_f32(gate + t * load_i64(added + ADDED.gate_stride)))
        middle = load_i64(added + ADDED.middle) + t * load_i64(added + ADDED.middle_stride)
        set_entry(entries, t, middle, x + t * x_stride + 4 * first, factor)
    multiply_few(down, row_address(down, 0, first), some, entries, tokens, tokens, 1, entries + tokens * ENTRY.bytes)
    if bias:
        for t in range(tokens):
            factor = load_f32(entries + t * ENTRY.bytes + ENTRY.factor)
            add_scaled(x + t * x_stride + 4 * first, bias + 4 * first, factor, some)


@kernel
def down_few(rank, size, choice, down, middle, middle_stride, added, x, x_stride, rows, scratch, scratch_stride):
    """x of each token += what its experts make of their rows of middle, then what `added` tells (a table, or 0)."""
    tokens, height = load_i64(rows + BATCH.tokens), load_i64(down + MATRIX.rows)
    entries, last = scratch + rank * scratch_stride, start_of(rank + 1, size, height)
    for first in range(start_of(rank, size, height), last, FEW_ROWS):
        some = min(FEW_ROWS, last - first)
        for t in range(tokens):
            _add_chosen(choice, down, middle, middle_stride, t, x + t * x_stride + 4 * first, first, some)
        if added:
            _add_to_all(added, first, some, entries, tokens, x, x_stride)


@kernel
def down_dense_few(rank, size, added, x, x_stride, rows, scratch, scratch_stride):
    """x of each token += down middle, of an expert that every token takes."""
    height = load_i64(load_i64(added + ADDED.down) + MATRIX.rows)
    first, last = start_of(rank, size, height), start_of(rank + 1, size, height)
    entries = scratch + rank * scratch_stride
    _add_to_all(added, first, last - first, entries, load_i64(rows + BATCH.tokens), x, x_stride)


def experts_few(
    plan: Plan, layer: LayerExperts, h: Activation, logits: Activation, shared_gate: Activation | None, x: Activation
) -> None:
    """h [tokens, n], logits [tokens, experts], shared_gate [tokens, 1] (before the sigmoid): x [tokens, n] += …"""
    routed, pairs = layer.routed, plan.tokens * layer.routing.experts_per_token
    middle = plan.activation("middle", routed.up.rows, pairs)
    middle.read(routed.down.format.activation)
    experts, weights = plan.buffer("experts", pairs, np.int64), plan.buffer("weights", pairs, np.float32)
    plan.weight_bytes += layer.bytes_per_token
    size = scratch_bytes(plan, pairs, routed.up) + 8 * routed.up.count
    scratch = plan.scratch(max(size, routing_scratch_bytes(routed.up.count)))
    routing = layer.routing.table(plan, routed.up.count, layer.scale)
    plan.add(route_rows, logits.read("f32"), logits.stride("f32"), routing, experts, weights, plan.batch, *scratch)
    choice = choice_table(plan, layer, experts, weights)
    shares = shares_of(pairs * routed.gate_up_bytes, plan.threads)
    plan.add(gate_up_few, choice, parts_table(plan, routed, h, middle), plan.rows, *scratch, shares=shares)
    shared = _shared_middle(plan, layer.shared, h) if layer.shared else None
    add_down_few(plan, layer, choice, middle, shared, shared_gate, x)


def choice_table(plan: Plan, layer: LayerExperts, experts: Operand, weights: Operand) -> Operand:
    """The table of CHOICE, for experts int64 [tokens, k] and weights float32 [tokens, k]."""
    k = layer.routing.experts_per_token
    count = layer.routed.up.count
    return plan.table(CHOICE, k=k, count=count, experts=experts, weights=weights, touched=layer.touched)


def add_down_few(
    plan: Plan,
    layer: LayerExperts,
    choice: Operand,
    middle: Activation,
    shared: Activation | None,
    shared_gate: Activation | None,
    x: Activation,
) -> None:
    """The last record of a few tokens: x [tokens, n] += what their experts make of middle [tokens * k, width].

    And what the shared expert makes of its own [tokens, width], if there is one. choice: table of CHOICE.
    """
    down, pairs = layer.routed.down, plan.tokens * layer.routing.experts_per_token
    added: Operand = 0
    if layer.shared and shared:
        added = _added(plan, layer.shared, shared, shared_gate, layer.scale)
    kind = down.format.activation
    operands = plan.table(MATRIX, **few_operands(down)), middle.read(kind), middle.stride(kind)
    scratch = plan.scratch(scratch_bytes(plan, 0, layer.shared.down if layer.shared else down))
    plan.keep(layer)
    rows, shares = (x.read("f32"), x.stride("f32"), plan.rows), shares_of(pairs * down.bytes, plan.threads)
    plan.add(down_few, choice, *operands, added, *rows, *scratch, shares=shares)


def dense_few(plan: Plan, layer: GatedExperts, h: Activation, x: Activation, scale: float = 1.0) -> None:
    """An expert that every token takes: h [tokens, n]; x [tokens, n] += scale * its result."""
    plan.weight_bytes += layer.bytes
    added = _added(plan, layer, _shared_middle(plan, layer, h), None, scale)
    scratch = plan.scratch(scratch_bytes(plan, 0, layer.down))
    operands = added, x.read("f32"), x.stride("f32"), plan.rows, *scratch
    plan.add(down_dense_few, *operands, shares=shares_of(layer.down.bytes, plan.threads))


def scratch_bytes(plan: Plan, pairs: int, *matrices: Matrix | ExpertMatrices) -> int:
    """Scratch memory of a share: each pair's place in the order, its entry and products of a block, and what matrices need."""
    return pairs * (8 + PAIR_BYTES) + few_scratch_bytes(matrices, plan.tokens)


def _shared_middle(plan: Plan, layer: GatedExperts, h: Activation) -> Activation:
    """The middle of an expert that every token takes, [tokens, width]."""
    middle = plan.activation("shared middle", layer.up.rows)
    middle.read(layer.down.format.activation)
    plan.keep(layer)
    parts, scratch = parts_table(plan, layer, h, middle), plan.scratch(scratch_bytes(plan, plan.tokens, layer.up))
    shares = shares_of(layer.gate_up_bytes, plan.threads)
    plan.add(gate_up_shared_few, parts, plan.rows, *scratch, shares=shares)
    return middle


def parts_table(plan: Plan, layer: GatedExperts, h: Activation, middle: Activation) -> Operand:
    """The table of PARTS of experts for rows h [tokens, n]."""
    x, stride = gate_input(layer, h), h.stride(layer.up.format.activation)
    table = gate_up_table(plan, layer, few_operands)
    return plan.table(PARTS, layer=table, x=x, stride=stride, out=plan.output(middle))


def _added(plan: Plan, layer: GatedExperts, middle: Activation, gate: Activation | None, scale: float) -> Operand:
    """The table of ADDED."""
    kind = layer.down.format.activation
    return plan.table(
        ADDED,
        down=plan.table(MATRIX, **few_operands(layer.down)),
        middle=middle.read(kind),
        middle_stride=middle.stride(kind),
        gate=gate.read("f32") if gate else 0,
        gate_stride=gate.stride("f32") if gate else 0,
        scale=float(scale) * layer.down_scale,
    )
