"""A layer of routed experts and one shared expert, each down(f(gate x) * up x); only the chosen ones are touched.

An expert may have no gate: down(f(up x)). A dense feed-forward layer is an expert that every token takes. One token at a
time here; many in `experts_grouped`. An expert is found through a table of addresses, so it may lie in the mapped file or
anywhere else. Every output row belongs to one thread, which adds the experts in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.activation import OUTPUT, row_addresses, store_block
from quant.atomics import call
from quant.jit import inline, kernel
from quant.kernels.gates import GATES, UNGATED, add_scaled, add_whole, gated, scale_whole
from quant.kernels.partition import shares_of, start_of
from quant.kernels.router import Routing, mark_touched, route_rows, routing_scratch_bytes
from quant.kernels.scalar import sigmoid1
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import bits_to_f32, load_f32, load_f32x16, load_i64, store_f32x16
from quant.weights import MATRIX, ExpertMatrices, Matrix, operands_of, row_address

BLOCK = 32  # rows of gate and up that are multiplied together: one block of the quantized product
PRODUCTS_BYTES = 2 * 4 * BLOCK  # of a block of gate and one of up, float32

GATE_UP = Layout(  # the first half of every expert
    "gate",  # table of MATRIX; 0 for none
    "up",  # another, of the same shape and format
    "function",  # a number of GATES
)
SHARED = Layout(  # what the shared expert adds to a token: scale * sigmoid(gate) * (down middle)
    "down",  # table of MATRIX
    "middle",  # the row that it is multiplied with
    "gate",  # the address of a float32; 0 for none, and no sigmoid
    "scale",  # float32
)


@dataclass(frozen=True)
class GatedExperts:
    """Experts that each give down(f(gate x) * up x), or without gates down(f(up x)); f: see quant.kernels.gates.

    Gate and up are [width, n], down [n, width]. Scales of down are those of an expert that every token takes; of routed ones
    they are part of a choice's weight (see Routing).
    """

    gate: ExpertMatrices | None
    up: ExpertMatrices
    down: ExpertMatrices
    activation: str = "silu"

    def __post_init__(self) -> None:
        gate, up, down = self.gate or self.up, self.up, self.down
        same = gate.rows == up.rows == down.columns and gate.columns == up.columns == down.rows
        if not same or gate.count != up.count or gate.count != down.count or gate.format != up.format:
            raise ValueError(f"gate [{gate.rows}, {gate.columns}], up, down [{down.rows}, {down.columns}] do not fit")
        if (gate.bias is None) != (up.bias is None):
            raise ValueError("a bias of gate or up alone")
        if self.down.scales is not None and (down.bias is not None or down.count > 1):
            raise ValueError("scales of down, and biases or several experts")
        if (self.gate is None) != (self.activation in UNGATED):
            raise ValueError(f"{self.activation} experts with{'out' if self.gate is None else ''} gates")

    @property
    def matrices(self) -> tuple[ExpertMatrices, ...]:
        """Gate, if there is one, up and down."""
        return (self.up, self.down) if self.gate is None else (self.gate, self.up, self.down)

    @property
    def name(self) -> str:
        """The name of the first matrix's tensor, by which a layer is known."""
        return self.matrices[0].name

    @property
    def bytes(self) -> int:
        """Bytes of one expert."""
        return self.gate_up_bytes + self.down.bytes

    @property
    def down_scale(self) -> float:
        """What the result of an expert that every token takes is multiplied by."""
        return 1.0 if self.down.scales is None else float(self.down.scales[0])

    @property
    def gate_up_bytes(self) -> int:
        """Bytes of gate, if there is one, and up of one expert."""
        return sum(part.bytes for part in self.matrices[:-1])


@dataclass(frozen=True)
class LayerExperts:
    """A layer of experts: those that tokens are routed to, and maybe one that all share.

    `touched` uint8 [experts] is set to 1 for every expert that was chosen; scale multiplies all that is added.
    """

    routed: GatedExperts
    shared: GatedExperts | None
    routing: Routing
    touched: NDArray[np.uint8]
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.routing.check(self.routed.up.count)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that one token reads."""
        return self.routing.experts_per_token * self.routed.bytes + (self.shared.bytes if self.shared else 0)


@inline
def _scale_and_add_bias(matrix, expert, first, products, rows):
    """Products of rows of an expert's matrix, which may be 0: times its scale, plus its bias, if there are."""
    scales, bias = (load_i64(matrix + MATRIX.scales), load_i64(matrix + MATRIX.bias)) if matrix else (0, 0)
    if scales:
        scale_whole(products, load_f32(scales + 4 * expert), rows)
    if bias:
        add_whole(products, bias + 4 * (expert * load_i64(matrix + MATRIX.rows) + first), rows)


@inline
def finish_block(layer, expert, gate, up, first, rows, y, q):
    """f(gate) * up, of float32 [rows <= 32] each -> columns first to first + rows of the activation row at y and q.

    Of experts without gates, `gate` holds anything.
    """
    kind, width = load_i64(layer + GATE_UP.function), load_i64(load_i64(layer + GATE_UP.up) + MATRIX.rows)
    _scale_and_add_bias(load_i64(layer + GATE_UP.gate), expert, first, gate, rows)
    _scale_and_add_bias(load_i64(layer + GATE_UP.up), expert, first, up, rows)
    if rows == BLOCK:
        a = gated(load_f32x16(gate), load_f32x16(up), kind)
        b = gated(load_f32x16(gate + 64), load_f32x16(up + 64), kind)
        store_block(a, b, width, first // BLOCK, y, q, 0)
    else:
        store_f32x16(y + 4 * first, gated(load_f32x16(gate), load_f32x16(up), kind))


@inline
def count_blocks(layer):
    """How many blocks the rows of gate, and of up, are divided into."""
    return (load_i64(load_i64(layer + GATE_UP.up) + MATRIX.rows) + BLOCK - 1) // BLOCK


@inline
def gate_up_blocks(layer, expert, x, first, last, y, q, products):
    """Blocks first to last of f(gate x) * up x of one expert -> the same blocks of its activation row at y and q."""
    gate, up = load_i64(layer + GATE_UP.gate), load_i64(layer + GATE_UP.up)
    w, v = row_address(gate, expert, 0) if gate else 0, row_address(up, expert, 0)
    rows, columns = load_i64(up + MATRIX.rows), load_i64(up + MATRIX.columns)
    row_bytes, dot = load_i64(up + MATRIX.row_bytes), load_i64(up + MATRIX.dot)
    for block in range(first, last):
        row, count = block * BLOCK, min(BLOCK, rows - block * BLOCK)
        if gate:
            call(dot, (w + row * row_bytes, count, columns, x, products, np.float32(1), 0))
        call(dot, (v + row * row_bytes, count, columns, x, products + 4 * BLOCK, np.float32(1), 0))
        finish_block(layer, expert, products, products + 4 * BLOCK, row, count, y, q)


@kernel
def gate_up_step(rank, size, k, experts, touched, layer, x, out, scratch, scratch_stride):
    """f(gate x) * up x of the k chosen experts of a token -> rows [k, width] of `out`; threads share their blocks."""
    if rank == 0:
        mark_touched(touched, experts, k)
    products, blocks = scratch + rank * scratch_stride, count_blocks(layer)
    first, last = start_of(rank, size, k * blocks), start_of(rank + 1, size, k * blocks)
    for i in range(first // blocks, (last + blocks - 1) // blocks):
        y, q, _ = row_addresses(out, i)
        begin, end = max(first - i * blocks, 0), min(last - i * blocks, blocks)
        gate_up_blocks(layer, load_i64(experts + 8 * i), x, begin, end, y, q, products)


@kernel
def gate_up_shared(rank, size, layer, x, out, scratch, scratch_stride):
    """f(gate x) * up x of the shared expert; threads share its blocks, the last ones first (they got fewer before)."""
    products = scratch + rank * scratch_stride
    rank = size - 1 - rank
    first, last = start_of(rank, size, count_blocks(layer)), start_of(rank + 1, size, count_blocks(layer))
    gate_up_blocks(layer, 0, x, first, last, load_i64(out + OUTPUT.f32), load_i64(out + OUTPUT.q8), products)


@inline
def _add_down(down, expert, middle, x, factor, rank, size):
    """A thread's rows of x += factor * (down of an expert times `middle`, plus its bias)."""
    rows = load_i64(down + MATRIX.rows)
    first, last = start_of(rank, size, rows), start_of(rank + 1, size, rows)
    w, columns, bias = row_address(down, expert, first), load_i64(down + MATRIX.columns), load_i64(down + MATRIX.bias)
    call(load_i64(down + MATRIX.dot), (w, last - first, columns, middle, x + 4 * first, factor, 1))
    if bias:
        add_scaled(x + 4 * first, bias + 4 * (expert * rows + first), factor, last - first)


@kernel
def down_step(rank, size, k, experts, weights, down, middle, middle_stride, x, shared):
    """x += the sum over the chosen experts of weight * down middle, then what the shared one adds, if there is one."""
    for i in range(k):
        expert, weight = load_i64(experts + 8 * i), load_f32(weights + 4 * i)
        _add_down(down, expert, middle + i * middle_stride, x, weight, rank, size)
    if shared:
        gate, scale = load_i64(shared + SHARED.gate), load_f32(shared + SHARED.scale)
        factor = scale * (sigmoid1(load_f32(gate)) if gate else np.float32(1))
        _add_down(load_i64(shared + SHARED.down), 0, load_i64(shared + SHARED.middle), x, factor, rank, size)


@kernel
def down_dense(rank, size, down, middle, x, scale):
    """x += scale * down middle, of an expert that every token takes."""
    _add_down(down, 0, middle, x, bits_to_f32(scale), rank, size)


def experts_step(
    plan: Plan, layer: LayerExperts, h: Activation, logits: Activation, shared_gate: Activation | None, x: Activation
) -> None:
    """h [1, n], logits [1, experts], shared_gate [1, 1] (before the sigmoid): x [1, n] += …"""
    routed, k = layer.routed, layer.routing.experts_per_token
    middle = plan.activation("middle", routed.up.rows, k)
    middle.read(routed.down.format.activation)
    experts, weights = plan.buffer("experts", k, np.int64), plan.buffer("weights", k, np.float32)
    plan.weight_bytes += layer.bytes_per_token
    rows = logits.read("f32"), logits.stride("f32")
    routing = layer.routing.table(plan, routed.up.count, layer.scale)
    scratch = plan.scratch(max(PRODUCTS_BYTES, routing_scratch_bytes(routed.up.count)))
    plan.add(route_rows, *rows, routing, experts, weights, plan.batch, *scratch)
    operands = gate_up_table(plan, routed), gate_input(routed, h), plan.output(middle), *scratch
    shares = shares_of(k * routed.gate_up_bytes, plan.threads)
    plan.add(gate_up_step, k, experts, layer.touched, *operands, shares=shares)
    shared = shared_gate_up(plan, layer.shared, h) if layer.shared else None
    add_down(plan, layer, (experts, weights), middle, shared, shared_gate, x)


def add_down(
    plan: Plan,
    layer: LayerExperts,
    choice: tuple[Operand, Operand],
    middle: Activation,
    shared: Activation | None,
    shared_gate: Activation | None,
    x: Activation,
) -> None:
    """The last record of a token: x [1, n] += what its experts make of middle [k, width], and the shared one of its own."""
    table: Operand = 0
    if layer.shared and shared:
        table = plan.table(
            SHARED,
            down=plan.table(MATRIX, **operands_of(layer.shared.down)),
            middle=shared.read(layer.shared.down.format.activation),
            gate=shared_gate.read("f32") if shared_gate else 0,
            scale=float(layer.scale) * layer.shared.down_scale,
        )
    down, kind = layer.routed.down, layer.routed.down.format.activation
    rows = middle.read(kind), middle.stride(kind)
    matrix, k = plan.table(MATRIX, **operands_of(down)), layer.routing.experts_per_token
    n_bytes = k * down.bytes + (layer.shared.down.bytes if layer.shared else 0)
    plan.add(down_step, k, *choice, matrix, *rows, x.read("f32"), table, shares=shares_of(n_bytes, plan.threads))


def dense_step(plan: Plan, layer: GatedExperts, h: Activation, x: Activation, scale: float = 1.0) -> None:
    """An expert that every token takes: h [1, n]; x [1, n] += scale * its result."""
    plan.weight_bytes += layer.bytes
    middle = shared_gate_up(plan, layer, h)
    rows, matrix = middle.read(layer.down.format.activation), plan.table(MATRIX, **operands_of(layer.down))
    factor = float(scale) * layer.down_scale
    plan.add(down_dense, matrix, rows, x.read("f32"), factor, shares=shares_of(layer.down.bytes, plan.threads))


def shared_gate_up(plan: Plan, layer: GatedExperts, h: Activation) -> Activation:
    """The middle of an expert that every token takes, [1, width]."""
    middle = plan.activation("shared middle", layer.up.rows)
    middle.read(layer.down.format.activation)
    plan.keep(layer)
    table, scratch = gate_up_table(plan, layer), plan.scratch(PRODUCTS_BYTES)
    shares = shares_of(layer.gate_up_bytes, plan.threads)
    plan.add(gate_up_shared, table, gate_input(layer, h), plan.output(middle), *scratch, shares=shares)
    return middle


def gate_up_table(
    plan: Plan, layer: GatedExperts, operands: Callable[[ExpertMatrices | Matrix], dict[str, Operand]] = operands_of
) -> Operand:
    """The table of GATE_UP; operands: what gives the fields of a matrix."""
    gate = plan.table(MATRIX, **operands(layer.gate)) if layer.gate else 0
    up = plan.table(MATRIX, **operands(layer.up))
    return plan.table(GATE_UP, gate=gate, up=up, function=GATES[layer.activation])


def gate_input(layer: GatedExperts, h: Activation) -> NDArray[np.uint8]:
    """Rows of h as gate and up are multiplied with them; ValueError if they do not fit."""
    if layer.up.columns != h.columns:
        raise ValueError(f"experts of {layer.up.columns} columns times {h.columns}")
    return h.read(layer.up.format.activation)
