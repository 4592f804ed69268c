"""States of a recurrent layer, S [key, value] of each head, that see S <- decay S + k delta^T of tokens that may be wrong.

A recurrent state cannot be computed backwards. So of several tokens of a step the state in memory sees the first alone; those
behind it, which may be guesses, see a copy in scratch memory, 16 columns of a head at a time, and what each adds is
*deferred*: its k, its delta and its decay. The next step is told how many of them count (BATCH.deferred), and the state sees
these first, in the same pass and by the same operations, so that no bit depends on it. Where something else reads the state,
`catch_up` brings it up to date. Tokens of several texts (see quant.batch) see each its own state.

The state of a head is stored as [value / 16, key, 16], so that a step reads it from its first byte to its last.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH, of_one_text, slot_of
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.layout import Layout
from quant.plan import Operand, Plan
from quant.simd import (
    add,
    broadcast_f32,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    mul,
    store_f32,
    store_f32x16,
    zero_f32x16,
)

STATES = Layout(
    "heads",
    "key_dim",
    "value_dim",
    "decays",  # of a head: one, or one for each channel of the key
    "state",  # float32 [heads, value_dim / 16, key_dim, 16]
    "slot",  # bytes to the state of the next text
    "deferred",  # float32 [tokens, heads, floats]: of a head its k, delta and decays
    "deferred_floats",
)


def deferred_floats(key_dim: int, value_dim: int, decays: int = 1) -> int:
    """What a token adds to a head's state, in float32: a key, its correction of the values, and decays."""
    return key_dim + value_dim + -(-decays // 16) * 16


def states(plan: Plan, state: NDArray[np.float32], deferred: NDArray[np.float32] | None, decays: int = 1) -> Operand:
    """The table of a layer's states, and of what is deferred: float32 [tokens, heads, floats], or None."""
    heads, parts, key_dim, _ = state.shape
    first, slot = plan.slotted(state)
    return plan.table(
        STATES,
        heads=heads,
        key_dim=key_dim,
        value_dim=16 * parts,
        decays=decays,
        state=first,
        slot=slot,
        deferred=0 if deferred is None else deferred,
        deferred_floats=deferred_floats(key_dim, 16 * parts, decays),
    )


def most_tokens(deferred: NDArray[np.float32] | None) -> int:
    """The most tokens that a step can take of a layer with this memory for what is deferred."""
    return 1 if deferred is None else 1 + len(deferred)


def check_tokens(plan: Plan, deferred: NDArray[np.float32] | None) -> None:
    """Raises ValueError if a plan takes more tokens of a text than the layer can defer."""
    if plan.batch.texts == 0 and plan.tokens > most_tokens(deferred):
        raise ValueError(f"{plan.tokens} tokens a step, and memory for {most_tokens(deferred)}")


@inline
def new_row(p, k, decay, delta):
    """One key's row of the state, at p, as it is after a token."""
    return fma(broadcast_f32(k), delta, mul(load_f32x16(p), decay))


@inline
def update_row(p, to, k, q, decay, delta, o):
    """One key's row of `update_state`: gives o + q * the new row."""
    new = new_row(p, k, decay, delta)
    store_f32x16(to, new)
    return fma(broadcast_f32(q), new, o)


@inline
def update_state(state, to, k, q, key_dim, decay, delta):
    """decay S + k delta^T for 16 value columns -> `to`, which may be S; gives its product with q."""
    o0, o1, o2, o3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for i in range(0, key_dim, 4):
        p, r, at = state + 64 * i, to + 64 * i, 4 * i
        o0 = update_row(p, r, k + at, q + at, decay, delta, o0)
        o1 = update_row(p + 64, r + 64, k + at + 4, q + at + 4, decay, delta, o1)
        o2 = update_row(p + 128, r + 128, k + at + 8, q + at + 8, decay, delta, o2)
        o3 = update_row(p + 192, r + 192, k + at + 12, q + at + 12, decay, delta, o3)
    return add(add(o0, o1), add(o2, o3))


@inline
def deferred_of(layer, i, head):
    """Where the i-th token whose effect is deferred has its k, delta and decays of a head."""
    item = i * load_i64(layer + STATES.heads) + head
    return load_i64(layer + STATES.deferred) + 4 * load_i64(layer + STATES.deferred_floats) * item


@inline
def states_of(layer, s, batch, t, local):
    """Where a part of a state is that token t sees, and where it goes: s, or of a guess `local`, or what is s in its slot."""
    if of_one_text(batch):
        return s if t <= 1 else local, s if t == 0 else local
    own = s + slot_of(batch, t) * load_i64(layer + STATES.slot)
    return own, own


@inline
def defer(layer, i, head, k, decays):
    """Keep the k of a token, and its decays; its delta is there already."""
    at, key_dim = deferred_of(layer, i, head), load_i64(layer + STATES.key_dim)
    for c in range(0, 4 * key_dim, 64):
        store_f32x16(at + c, load_f32x16(k + c))
    at += 4 * (key_dim + load_i64(layer + STATES.value_dim))
    for c in range(0, 4 * load_i64(layer + STATES.decays), 4):
        store_f32(at + c, load_f32(decays + c))


@inline
def catch_up_part(layer, head, part, count):
    """16 value columns of a head's state as they are after `count` deferred tokens."""
    key_dim, value_dim = load_i64(layer + STATES.key_dim), load_i64(layer + STATES.value_dim)
    s = load_i64(layer + STATES.state) + 4 * key_dim * (head * value_dim + part)
    step = 4 if load_i64(layer + STATES.decays) > 1 else 0  # bytes from the decay of one key to that of the next
    for i in range(count):
        k = deferred_of(layer, i, head)
        delta, decay = load_f32x16(k + 4 * (key_dim + part)), k + 4 * (key_dim + value_dim)
        for row in range(key_dim):
            p = s + 64 * row
            store_f32x16(p, new_row(p, k + 4 * row, broadcast_f32(decay + step * row), delta))


@kernel
def catch_up_heads(rank, size, layer, batch):
    """Bring a layer's states to where their text is; threads share the heads."""
    heads, value_dim = load_i64(layer + STATES.heads), load_i64(layer + STATES.value_dim)
    count = load_i64(batch + BATCH.deferred)
    for head in range(start_of(rank, size, heads), start_of(rank + 1, size, heads)):
        for part in range(0, value_dim, 16):
            catch_up_part(layer, head, part, count)


class Deferring(Protocol):
    """A layer whose states may be behind their text."""

    def states(self, plan: Plan) -> Operand:
        """The table of STATES."""


def catch_up(plan: Plan, net: Deferring) -> None:
    """Bring a layer's state to where its text is: it sees the deferred tokens that count."""
    plan.add(catch_up_heads, net.states(plan), plan.batch)
