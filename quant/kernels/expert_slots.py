"""Which of a layer's experts stay in memory: how often each was chosen of late, and whose slot another may have.

Each choice of an expert adds one to its usage, and usage fades as others are chosen. The least used expert leaves.
"""

from __future__ import annotations

import numpy as np

from quant.jit import function, inline
from quant.layout import Layout
from quant.simd import load_f32, load_i64, load_u8, store_f32

SLOTS = Layout(
    "experts",
    "slots",
    "slot_of",  # int64 [experts], -1: none
    "expert_in",  # int64 [slots]; FREE, or another number below zero: no expert's and not to be given to any
    "usage",  # float32 [experts], in units of `weight`, so that fading need not touch every expert
    "weight",  # float32, of a choice made now
    "pinned",  # uint8 [experts], not 0: keeps its slot
    "loading",  # uint8 [experts], 1: is being read into its slot, which it keeps
)
FREE = -1
_MAX_WEIGHT = np.float32(1e15)  # before everything is scaled down
_MORE_THAN_ANY = np.float32(np.inf)


@inline
def add_usage(slots, experts, times, count, growth):
    """Note that experts int64 [count] were chosen, so many times each (int64 [count], or 0 for once).

    growth: what a choice counts afterwards, times what it counted before.
    """
    usage, weight = load_i64(slots + SLOTS.usage), load_f32(slots + SLOTS.weight)
    for i in range(count):
        at = usage + 4 * load_i64(experts + 8 * i)
        more = np.float32(load_i64(times + 8 * i)) if times else np.float32(1)
        store_f32(at, load_f32(at) + weight * more)
    weight *= growth
    if weight > _MAX_WEIGHT:
        for e in range(load_i64(slots + SLOTS.experts)):
            store_f32(usage + 4 * e, load_f32(usage + 4 * e) / weight)
        weight = np.float32(1)
    store_f32(slots + SLOTS.weight, weight)


@inline
def free_or_least_used(slots):
    """A free slot, or that of the least used expert which is neither pinned nor being read; -1 if there is none."""
    found, least = -1, _MORE_THAN_ANY
    usage, pinned = load_i64(slots + SLOTS.usage), load_i64(slots + SLOTS.pinned)
    expert_in, loading = load_i64(slots + SLOTS.expert_in), load_i64(slots + SLOTS.loading)
    for slot in range(load_i64(slots + SLOTS.slots)):
        expert = load_i64(expert_in + 8 * slot)
        if expert == FREE:
            return slot
        less = expert >= 0 and load_f32(usage + 4 * expert) < least
        if less and not load_u8(pinned + expert) and not load_u8(loading + expert):
            found, least = slot, load_f32(usage + 4 * expert)
    return found


@function("ppppf")
def count_usage(slots, experts, times, count, growth):
    """See `add_usage`."""
    add_usage(slots, experts, times, count, growth)


@function("p", returns=True)
def find_slot(slots):
    """See `free_or_least_used`."""
    return free_or_least_used(slots)


KERNELS = (count_usage, find_slot)  # what is called from outside of plans
