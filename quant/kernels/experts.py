"""A layer of routed experts and one shared expert, each down(silu(gate x) * up x); only the chosen ones are touched.

One token at a time here; many in `experts_grouped`. An expert is found through a table of addresses, so it may lie in
the mapped file or anywhere else. Every output row belongs to one thread, which adds the experts in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.activation import store_block
from quant.atomics import call
from quant.jit import inline, kernel
from quant.kernels.delta_net import sigmoid1
from quant.kernels.router import choose, mark
from quant.kernels.share import first_of
from quant.plan import Activation, Operand, Plan
from quant.simd import bits_to_f32, load_f32, load_f32x16, load_i64, mul, silu, store_f32x16
from quant.weights import Experts

BLOCK = 32  # rows of gate and up that are met together: one block of the quantized product


@dataclass(frozen=True)
class ExpertLayer:
    """The experts of one layer: gate and up [width, n], down [n, width], alike for the shared expert (an Experts of one).

    `touched` uint8 [experts] is set to 1 for every expert that was chosen.
    """

    gate: Experts
    up: Experts
    down: Experts
    shared: tuple[Experts, Experts, Experts] | None
    chosen: int
    scale: float
    touched: NDArray[np.uint8]

    def __post_init__(self) -> None:
        for gate, up, down in self.sets():
            same = gate.rows == up.rows == down.columns and gate.columns == up.columns == down.rows
            if not same or gate.count != up.count or gate.count != down.count or gate.format != up.format:
                raise ValueError(
                    f"gate [{gate.rows}, {gate.columns}], up, down [{down.rows}, {down.columns}] do not fit"
                )
        if not 0 < self.chosen <= self.gate.count:
            raise ValueError(f"{self.chosen} of {self.gate.count} experts")

    def sets(self) -> list[tuple[Experts, Experts, Experts]]:
        """The routed experts, then the shared one if there is one."""
        routed = (self.gate, self.up, self.down)
        return [routed, self.shared] if self.shared else [routed]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that one token reads."""
        sizes = [sum(part.bytes for part in three) for three in self.sets()]
        return self.chosen * sizes[0] + sum(sizes[1:])


@inline
def silu_mul(gate, up, rows, columns, first, y, q):
    """silu(gate) * up, float32 [rows <= 32], as columns first to first + rows of the activation row at y and q."""
    if rows == BLOCK:
        a = mul(silu(load_f32x16(gate)), load_f32x16(up))
        b = mul(silu(load_f32x16(gate + 64)), load_f32x16(up + 64))
        store_block(a, b, columns, first // BLOCK, y, q, 0)
    else:
        store_f32x16(y + 4 * first, mul(silu(load_f32x16(gate)), load_f32x16(up)))


@inline
def _gate_up_blocks(dot, gate, up, row_bytes, columns, x, rows, first, last, local, y, q):
    """Blocks first to last of one expert."""
    for block in range(first, last):
        row, count = block * BLOCK, min(BLOCK, rows - block * BLOCK)
        call(dot, (gate + row * row_bytes, count, columns, x, local, np.float32(1), 0))
        call(dot, (up + row * row_bytes, count, columns, x, local + 4 * BLOCK, np.float32(1), 0))
        silu_mul(local, local + 4 * BLOCK, count, rows, row, y, q)


@kernel
def gate_up_step(
    rank, size, logits, count, k, scale, experts, weights, gate, up, touched, dot, row_bytes, columns, x, rows, y, y_stride,
    q, q_stride, scratch, scratch_stride,
):  # fmt: skip
    """Route one token, then silu(gate x) * up x of the chosen experts -> y and q [k, rows].

    Every thread routes for itself, which is quicker than meeting; the first one leaves the choice for `down_step`.
    """
    local = scratch + rank * scratch_stride
    chosen, factors = local + 8 * BLOCK, local + 8 * BLOCK + 8 * k
    if rank == 0:
        chosen, factors = experts, weights
    choose(logits, count, k, bits_to_f32(scale), chosen, factors)
    if rank == 0:
        mark(touched, chosen, k)
    blocks = (rows + BLOCK - 1) // BLOCK
    first, last = first_of(rank, size, k * blocks), first_of(rank + 1, size, k * blocks)
    for i in range(first // blocks, (last + blocks - 1) // blocks):
        expert = load_i64(chosen + 8 * i)
        begin, end = max(first - i * blocks, 0), min(last - i * blocks, blocks)
        w, v = load_i64(gate + 8 * expert), load_i64(up + 8 * expert)
        out, quantized = y + i * y_stride if y else 0, q + i * q_stride if q else 0
        _gate_up_blocks(dot, w, v, row_bytes, columns, x, rows, begin, end, local, out, quantized)


@kernel
def gate_up_shared(rank, size, gate, up, dot, row_bytes, columns, x, rows, y, q, scratch, scratch_stride):
    """silu(gate x) * up x of the shared expert; threads share its blocks, the last ones first (they got fewer before)."""
    blocks = (rows + BLOCK - 1) // BLOCK
    local = scratch + rank * scratch_stride
    rank = size - 1 - rank
    first, last = first_of(rank, size, blocks), first_of(rank + 1, size, blocks)
    _gate_up_blocks(dot, load_i64(gate), load_i64(up), row_bytes, columns, x, rows, first, last, local, y, q)


@kernel
def down_step(
    rank, size, k, experts, weights, down, dot, row_bytes, columns, y, y_stride, rows, x,
    shared, shared_dot, shared_row_bytes, shared_columns, shared_y, shared_gate,
):  # fmt: skip
    """x += the sum over the chosen experts of weight * down y, then the shared expert's by sigmoid of its gate."""
    first, last = first_of(rank, size, rows), first_of(rank + 1, size, rows)
    out, count = x + 4 * first, last - first
    for i in range(k):
        w = load_i64(down + 8 * load_i64(experts + 8 * i)) + first * row_bytes
        call(dot, (w, count, columns, y + i * y_stride, out, load_f32(weights + 4 * i), 1))
    if shared:
        factor = sigmoid1(load_f32(shared_gate)) if shared_gate else np.float32(1)
        w = load_i64(shared) + first * shared_row_bytes
        call(shared_dot, (w, count, shared_columns, shared_y, out, factor, 1))


def experts_step(
    plan: Plan, layer: ExpertLayer, h: Activation, logits: Activation, shared_gate: Activation | None, x: Activation
) -> None:
    """h [1, n], logits [1, experts], shared_gate [1, 1] (before the sigmoid): x [1, n] += …"""
    routed = layer.gate, layer.up, layer.down
    k, middle = layer.chosen, plan.rows("middle", layer.gate.rows, layer.chosen)
    middle.read(routed[2].format.activation)
    experts, weights = plan.buffer("experts", k, np.int64), plan.buffer("weights", k, np.float32)
    plan.weight_bytes += layer.bytes_per_token
    scratch = plan.scratch(8 * BLOCK + 16 * k)
    plan.add(
        gate_up_step, logits.read("f32"), layer.gate.count, k, layer.scale, experts, weights, layer.gate.addresses,
        layer.up.addresses, layer.touched, *_gate_operands(layer.gate, h), middle.written("f32"), middle.stride("f32"),
        middle.written("q8"), middle.stride("q8"), *scratch,
    )  # fmt: skip
    shared: tuple[Operand, ...] = (0, 0, 0, 0, 0, 0)
    if layer.shared:
        gate, up, down = layer.shared
        kind = down.format.activation
        own = plan.rows("shared middle", gate.rows)
        own.read(kind)
        operands = (*_gate_operands(gate, h), own.written("f32"), own.written("q8"))
        plan.add(gate_up_shared, gate.addresses, up.addresses, *operands, *scratch)
        gated = shared_gate.read("f32") if shared_gate else 0
        shared = (down.addresses, down.format.dot_rows, down.row_bytes, down.columns, own.read(kind), gated)
    kind = layer.down.format.activation
    plan.add(
        down_step, k, experts, weights, layer.down.addresses, layer.down.format.dot_rows, layer.down.row_bytes,
        layer.down.columns, middle.read(kind), middle.stride(kind), layer.down.rows, x.read("f32"), *shared,
    )  # fmt: skip


def _gate_operands(gate: Experts, h: Activation) -> tuple[Operand, ...]:
    """dot_rows, row bytes, columns, x, rows of a gate matrix and its input."""
    if gate.columns != h.columns:
        raise ValueError(f"experts of {gate.columns} columns meet {h.columns}")
    return gate.format.dot_rows, gate.row_bytes, gate.columns, h.read(gate.format.activation), gate.rows
