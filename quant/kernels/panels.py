"""Panels: the quantized rows of MANY tokens, word by word, as the tiles of prefill meet them (see quant.tile).

Tokens come in sets, one an expert, or one for all. A set that begins at place p of the order has its panels from panel
p // MANY + (number of the set) on: enough for any sizes, and nobody has to add anything up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.jit import inline, kernel
from quant.plan import Activation, Operand, Plan
from quant.simd import load_i64, load_u32, store_i64, store_u32
from quant.tile import MANY, pack16


@inline
def panel_bytes(columns):
    """Bytes of a panel: MANY rows of q, d, s32 and s16."""
    return MANY * (columns + columns // 2)


@inline
def first_panel(start, number):
    """The first panel of a set that begins at place `start` of the order."""
    return start // MANY + number


@inline
def _pack(x, stride, k, slots, first, count, words, rows, panel):
    """Word w of token i goes to word w * MANY + i of the panel; tokens beyond `count` repeat the last one."""
    for i in range(16):
        place = first + min(i, count - 1)
        slot = load_i64(slots + 8 * place) if slots else place
        store_i64(rows + 8 * i, x + slot // k * stride)
    whole = words // 16 * 16
    for w in range(0, whole, 16):
        pack16(rows, 4 * w, panel + 4 * MANY * w)
    for i in range(count):
        row = load_i64(rows + 8 * i)
        for w in range(whole, words):
            store_u32(panel + 4 * (MANY * w + i), load_u32(row + 4 * w))


@kernel
def pack_panels(rank, size, x, stride, columns, sets, k, starts, slots, run, panels, counter, scratch, scratch_stride):
    """Rows of x to panels; threads take panels in turn.

    Set e is slots[starts[e]] to slots[starts[e + 1] - 1], a slot of token slot // k. Without starts, one set of all tokens;
    without slots, each token in its place. The counter of the record that reads the panels begins at zero.
    """
    if counter and rank == 0:
        store_i64(counter, 0)
    turn, words, rows = 0, (columns + columns // 2) // 4, scratch + rank * scratch_stride
    for e in range(sets):
        start = load_i64(starts + 8 * e) if starts else 0
        end = load_i64(starts + 8 * e + 8) if starts else load_i64(run)
        panel = panels + first_panel(start, e) * panel_bytes(columns)
        for first in range(start, end, MANY):
            if turn % size == rank:
                _pack(x, stride, k, slots, first, min(MANY, end - first), words, rows, panel)
            panel += panel_bytes(columns)
            turn += 1


def pack(
    plan: Plan, name: str, x: Activation, kind: str, *, sets: int = 1, k: int = 1, starts: Operand = 0, slots: Operand = 0,
    places: int | None = None, counter: Operand = 0,
) -> NDArray[np.uint8]:  # fmt: skip
    """Add the record that packs rows of x of the kind 'q8' or 'rest', and give the panels; places: slots in the order."""
    places = plan.tokens if places is None else places
    panels: NDArray[np.uint8] = plan.buffer(
        f"{name} panels", (places // MANY + sets + 1) * panel_bytes(x.columns), np.uint8
    )
    plan.add(
        pack_panels,
        x.read(kind),
        x.stride(kind),
        x.columns,
        sets,
        k,
        starts,
        slots,
        plan.run,
        panels,
        counter,
        *plan.scratch(128),
    )
    return panels
