"""Panels: the quantized rows of MANY tokens, word by word, as the tiles of prefill are multiplied with them (see quant.tile).

The pairs of an expert that begin at place p of the order have their panels from panel p // MANY + (number of the expert)
on: enough for any sizes, and nobody has to add anything up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.assignments import ASSIGNMENTS, Assignments, pair_at, start_and_count
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import load_i64, load_u32, store_i64, store_u32
from quant.tile import MANY, pack16

INPUT = Layout(  # what many tokens' weights are multiplied with
    "rows",  # float32 or q8, as the format of the weights needs
    "stride",
    "panels",  # the q8 rows; 0 for float32 ones
)


@inline
def panel_bytes(columns):
    """Bytes of a panel: MANY rows of q, d, s32 and s16."""
    return MANY * (columns + columns // 2)


@inline
def first_panel(start, expert):
    """The first panel of an expert whose pairs begin at place `start` of the order."""
    return start // MANY + expert


@inline
def _pack(x, stride, assignments, first, count, words, rows, panel):
    """Word w of token i goes to word w * MANY + i of the panel; tokens beyond `count` repeat the last one."""
    k = load_i64(assignments + ASSIGNMENTS.k)
    for i in range(16):
        pair = pair_at(assignments, first + min(i, count - 1))
        store_i64(rows + 8 * i, x + pair // k * stride)
    whole = words // 16 * 16
    for w in range(0, whole, 16):
        pack16(rows, 4 * w, panel + 4 * MANY * w)
    for i in range(count):
        row = load_i64(rows + 8 * i)
        for w in range(whole, words):
            store_u32(panel + 4 * (MANY * w + i), load_u32(row + 4 * w))


@kernel
def pack_panels(rank, size, x, stride, columns, assignments, batch, panels, counter, scratch, scratch_stride):
    """The q8 rows of x of every pair -> panels; threads do panels in turn.

    The counter of the record that reads the panels, if it has one, begins at zero.
    """
    if counter and rank == 0:
        store_i64(counter, 0)
    turn, words, rows = 0, (columns + columns // 2) // 4, scratch + rank * scratch_stride
    for expert in range(load_i64(assignments + ASSIGNMENTS.experts)):
        start, tokens = 0, load_i64(batch + BATCH.tokens)
        if load_i64(assignments + ASSIGNMENTS.starts):
            start, tokens = start_and_count(assignments, expert)
        panel = panels + first_panel(start, expert) * panel_bytes(columns)
        for first in range(0, tokens, MANY):
            if turn % size == rank:
                _pack(x, stride, assignments, start + first, min(MANY, tokens - first), words, rows, panel)
            panel += panel_bytes(columns)
            turn += 1


def pack(
    plan: Plan,
    name: str,
    x: Activation,
    kind: str,
    assignments: Assignments | None = None,
    *,
    pairs: int | None = None,
    counter: Operand = 0,
) -> NDArray[np.uint8]:
    """Add the record that packs rows of x, quantized as 'q8' or 'residual', and give the panels.

    assignments: if not of all tokens to one matrix; pairs: how many there may be.
    """
    given, pairs = assignments or Assignments(1), plan.tokens if pairs is None else pairs
    size = (pairs // MANY + given.experts + 1) * panel_bytes(x.columns)
    panels: NDArray[np.uint8] = plan.buffer(f"{name} panels", size, np.uint8)
    rows = x.read(kind), x.stride(kind), x.columns
    plan.add(pack_panels, *rows, given.table(plan), plan.batch, panels, counter, *plan.scratch(128))
    return panels


def input_table(
    plan: Plan,
    x: Activation,
    kind: str,
    name: str,
    assignments: Assignments,
    pairs: int,
    counter: Operand = 0,
) -> Operand:
    """An operand: the table of INPUT for rows of x; adds the record that packs them if they are quantized."""
    rows = x.read(kind)
    packed = pack(plan, name, x, kind, assignments, pairs=pairs, counter=counter) if kind == "q8" else 0
    return plan.table(INPUT, rows=rows, stride=x.stride(kind), panels=packed)
