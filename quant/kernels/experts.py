"""A layer of routed experts and one shared expert, each down(f(gate x) * up x); only the chosen ones are touched.

A dense feed-forward layer is an expert that every token takes. One token at a time here; many in `experts_grouped`.
An expert is found through a table of addresses, so it may lie in the mapped file or anywhere else. Every output row
belongs to one thread, which adds the experts in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.activation import store_block
from quant.atomics import call
from quant.jit import inline, kernel
from quant.kernels.delta_net import sigmoid1
from quant.kernels.gates import GATES, add_scaled, add_whole, gated
from quant.kernels.router import Routing, choose, chosen_of, mark, spare_bytes
from quant.kernels.share import first_of
from quant.plan import Activation, Operand, Plan
from quant.simd import bits_to_f32, load_f32, load_f32x16, load_i64, store_f32x16
from quant.weights import Experts

BLOCK = 32  # rows of gate and up that are met together: one block of the quantized product


@dataclass(frozen=True)
class Gated:
    """Experts that each give down(f(gate x) * up x): gate and up [width, n], down [n, width]; f: see quant.kernels.gates."""

    gate: Experts
    up: Experts
    down: Experts
    activation: str = "silu"

    def __post_init__(self) -> None:
        gate, up, down = self.gate, self.up, self.down
        same = gate.rows == up.rows == down.columns and gate.columns == up.columns == down.rows
        if not same or gate.count != up.count or gate.count != down.count or gate.format != up.format:
            raise ValueError(f"gate [{gate.rows}, {gate.columns}], up, down [{down.rows}, {down.columns}] do not fit")
        if (gate.bias is None) != (up.bias is None):
            raise ValueError("a bias of gate or up alone")

    @property
    def finish(self) -> NDArray[np.int64]:
        """What `finish_block` reads, int64: the function between the matrices, the biases of gate and of up or 0."""
        biases = [0 if part.bias is None else part.bias.ctypes.data for part in (self.gate, self.up)]
        return np.array([GATES[self.activation], *biases], np.int64)

    @property
    def down_bias(self) -> Operand:
        return 0 if self.down.bias is None else self.down.bias

    @property
    def bytes(self) -> int:
        """Bytes of one expert."""
        return self.gate.bytes + self.up.bytes + self.down.bytes


@dataclass(frozen=True)
class ExpertLayer:
    """The experts of one layer: those that tokens are routed to, and maybe one that all share.

    `touched` uint8 [experts] is set to 1 for every expert that was chosen; scale multiplies all that is added.
    """

    routed: Gated
    shared: Gated | None
    routing: Routing
    touched: NDArray[np.uint8]
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.routing.check(self.routed.gate.count)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that one token reads."""
        return self.routing.chosen * self.routed.bytes + (self.shared.bytes if self.shared else 0)


@inline
def finish_block(finish, expert, gate, up, rows, columns, first, y, q):
    """f(gate) * up, float32 [rows <= 32], as columns first to first + rows of the activation row at y and q."""
    kind, bias = load_i64(finish), load_i64(finish + 8)
    if bias:
        at = 4 * (expert * columns + first)
        add_whole(gate, bias + at, rows)
        add_whole(up, load_i64(finish + 16) + at, rows)
    if rows == BLOCK:
        a = gated(load_f32x16(gate), load_f32x16(up), kind)
        b = gated(load_f32x16(gate + 64), load_f32x16(up + 64), kind)
        store_block(a, b, columns, first // BLOCK, y, q, 0)
    else:
        store_f32x16(y + 4 * first, gated(load_f32x16(gate), load_f32x16(up), kind))


@inline
def gate_up_blocks(dot, gate, up, finish, expert, row_bytes, columns, x, rows, first, last, local, y, q):
    """Blocks first to last of one expert."""
    for block in range(first, last):
        row, count = block * BLOCK, min(BLOCK, rows - block * BLOCK)
        call(dot, (gate + row * row_bytes, count, columns, x, local, np.float32(1), 0))
        call(dot, (up + row * row_bytes, count, columns, x, local + 4 * BLOCK, np.float32(1), 0))
        finish_block(finish, expert, local, local + 4 * BLOCK, count, rows, row, y, q)


@kernel
def gate_up_step(
    rank, size, logits, routing, experts, weights, gate, up, touched, finish, dot, row_bytes, columns, x, rows, y, y_stride,
    q, q_stride, scratch, scratch_stride,
):  # fmt: skip
    """Route one token, then f(gate x) * up x of the chosen experts -> y and q [k, rows].

    Every thread routes for itself, which is quicker than meeting; the first one leaves the choice for `down_step`.
    """
    k = chosen_of(routing)
    local = scratch + rank * scratch_stride
    chosen, factors = local + 8 * BLOCK, local + 8 * BLOCK + 8 * k
    spare = factors + 8 * k
    if rank == 0:
        chosen, factors = experts, weights
    choose(logits, routing, spare, chosen, factors)
    if rank == 0:
        mark(touched, chosen, k)
    blocks = (rows + BLOCK - 1) // BLOCK
    first, last = first_of(rank, size, k * blocks), first_of(rank + 1, size, k * blocks)
    for i in range(first // blocks, (last + blocks - 1) // blocks):
        expert = load_i64(chosen + 8 * i)
        begin, end = max(first - i * blocks, 0), min(last - i * blocks, blocks)
        w, v = load_i64(gate + 8 * expert), load_i64(up + 8 * expert)
        out, quantized = y + i * y_stride if y else 0, q + i * q_stride if q else 0
        gate_up_blocks(dot, w, v, finish, expert, row_bytes, columns, x, rows, begin, end, local, out, quantized)


@kernel
def gate_up_shared(rank, size, gate, up, finish, dot, row_bytes, columns, x, rows, y, q, scratch, scratch_stride):
    """f(gate x) * up x of the shared expert; threads share its blocks, the last ones first (they got fewer before)."""
    blocks = (rows + BLOCK - 1) // BLOCK
    local = scratch + rank * scratch_stride
    rank = size - 1 - rank
    first, last = first_of(rank, size, blocks), first_of(rank + 1, size, blocks)
    w, v = load_i64(gate), load_i64(up)
    gate_up_blocks(dot, w, v, finish, 0, row_bytes, columns, x, rows, first, last, local, y, q)


@kernel
def down_step(
    rank, size, k, experts, weights, down, bias, dot, row_bytes, columns, y, y_stride, rows, x, scale,
    shared, shared_bias, shared_dot, shared_row_bytes, shared_columns, shared_y, shared_gate,
):  # fmt: skip
    """x += the sum over the chosen experts of weight * down y, then scale * the shared expert's by sigmoid of its gate."""
    first, last = first_of(rank, size, rows), first_of(rank + 1, size, rows)
    out, count = x + 4 * first, last - first
    for i in range(k):
        expert, weight = load_i64(experts + 8 * i), load_f32(weights + 4 * i)
        w = load_i64(down + 8 * expert) + first * row_bytes
        call(dot, (w, count, columns, y + i * y_stride, out, weight, 1))
        if bias:
            add_scaled(out, bias + 4 * (expert * rows + first), weight, count)
    if shared:
        factor = bits_to_f32(scale) * (sigmoid1(load_f32(shared_gate)) if shared_gate else np.float32(1))
        w = load_i64(shared) + first * shared_row_bytes
        call(shared_dot, (w, count, shared_columns, shared_y, out, factor, 1))
        if shared_bias:
            add_scaled(out, shared_bias + 4 * first, factor, count)


@kernel
def down_dense(rank, size, down, bias, dot, row_bytes, columns, y, rows, x):
    """x += down y, of an expert that every token takes."""
    first, last = first_of(rank, size, rows), first_of(rank + 1, size, rows)
    out, factor = x + 4 * first, np.float32(1)
    call(dot, (load_i64(down) + first * row_bytes, last - first, columns, y, out, factor, 1))
    if bias:
        add_scaled(out, bias + 4 * first, factor, last - first)


def experts_step(
    plan: Plan, layer: ExpertLayer, h: Activation, logits: Activation, shared_gate: Activation | None, x: Activation
) -> None:
    """h [1, n], logits [1, experts], shared_gate [1, 1] (before the sigmoid): x [1, n] += …"""
    routed, k = layer.routed, layer.routing.chosen
    middle = plan.rows("middle", routed.gate.rows, k)
    middle.read(routed.down.format.activation)
    experts, weights = plan.buffer("experts", k, np.int64), plan.buffer("weights", k, np.float32)
    plan.weight_bytes += layer.bytes_per_token
    plan.keep(layer.routing)
    plan.add(
        gate_up_step, logits.read("f32"), layer.routing.table(routed.gate.count, layer.scale), experts, weights,
        routed.gate.addresses, routed.up.addresses, layer.touched, routed.finish, *gate_operands(routed.gate, h),
        middle.written("f32"), middle.stride("f32"), middle.written("q8"), middle.stride("q8"),
        *plan.scratch(8 * BLOCK + 16 * k + spare_bytes(routed.gate.count)),
    )  # fmt: skip
    own = gate_up_of_all(plan, layer.shared, h) if layer.shared else None
    add_down(plan, layer, experts, weights, middle, own, shared_gate, x)


def add_down(
    plan: Plan, layer: ExpertLayer, experts: Operand, weights: Operand, middle: Activation, own: Activation | None,
    shared_gate: Activation | None, x: Activation,
) -> None:  # fmt: skip
    """The last record of a token: x [1, n] += what the chosen make of middle [k, width], and the shared one of its own."""
    shared: tuple[Operand, ...] = (0, 0, 0, 0, 0, 0, 0)
    if layer.shared and own:
        gate = shared_gate.read("f32") if shared_gate else 0
        shared = (*_down_operands(layer.shared), own.read(layer.shared.down.format.activation), gate)
    down, kind = layer.routed.down, layer.routed.down.format.activation
    plan.add(
        down_step, layer.routing.chosen, experts, weights, *_down_operands(layer.routed), middle.read(kind),
        middle.stride(kind), down.rows, x.read("f32"), float(layer.scale), *shared,
    )  # fmt: skip


def dense_step(plan: Plan, layer: Gated, h: Activation, x: Activation) -> None:
    """An expert that every token takes: h [1, n]; x [1, n] += its result."""
    plan.weight_bytes += layer.bytes
    own = gate_up_of_all(plan, layer, h)
    middle = own.read(layer.down.format.activation)
    plan.add(down_dense, *_down_operands(layer), middle, layer.down.rows, x.read("f32"))


def gate_up_of_all(plan: Plan, layer: Gated, h: Activation) -> Activation:
    """The middle of an expert that every token takes, [1, width]."""
    middle = plan.rows("shared middle", layer.gate.rows)
    middle.read(layer.down.format.activation)
    plan.keep(layer)
    plan.add(
        gate_up_shared, layer.gate.addresses, layer.up.addresses, layer.finish, *gate_operands(layer.gate, h),
        middle.written("f32"), middle.written("q8"), *plan.scratch(8 * BLOCK),
    )  # fmt: skip
    return middle


def gate_operands(gate: Experts, h: Activation) -> tuple[Operand, ...]:
    """dot_rows, row bytes, columns, x, rows of a gate matrix and its input."""
    if gate.columns != h.columns:
        raise ValueError(f"experts of {gate.columns} columns meet {h.columns}")
    return gate.format.dot_rows, gate.row_bytes, gate.columns, h.read(gate.format.activation), gate.rows


def _down_operands(layer: Gated) -> tuple[Operand, ...]:
    """Addresses, bias, dot_rows, row bytes, columns of a down matrix."""
    down = layer.down
    return down.addresses, layer.down_bias, down.format.dot_rows, down.row_bytes, down.columns
