"""Where a kernel writes the rows of an activation: one address for each layout that somebody reads (see quant.activation)."""

from __future__ import annotations

from quant.activation import store_block
from quant.jit import inline
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import load_i64

# Addresses of the first row of each layout, 0 where nobody reads it, and bytes from one token's row to the next; rows
# of 'q8' and of 'rest' are equally long.
OUTPUT = Layout("f32", "f32_stride", "q8", "rest", "q8_stride")


def output(plan: Plan, rows: Activation) -> Operand:
    """The table by which a kernel writes `rows`, in every layout that is asked for until the plan is compiled."""
    return plan.table(
        OUTPUT,
        f32=rows.written("f32"),
        f32_stride=rows.stride("f32"),
        q8=rows.written("q8"),
        rest=rows.written("rest"),
        q8_stride=rows.stride("q8"),
    )


@inline
def store_output(a, b, columns, block, out, t):
    """Columns 32 * block to 32 * block + 31 of token t, given as two f32x16 -> every layout of the OUTPUT table `out`."""
    y, q, rest = load_i64(out + OUTPUT.f32), load_i64(out + OUTPUT.q8), load_i64(out + OUTPUT.rest)
    at = t * load_i64(out + OUTPUT.q8_stride)
    row = y + t * load_i64(out + OUTPUT.f32_stride) if y else 0
    store_block(a, b, columns, block, row, q + at if q else 0, rest + at if rest else 0)
