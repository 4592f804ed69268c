"""Choosing a token: the highest logits in order, the filters that keep a prefix of them, and one draw.

The order is total (higher logit first, equal logits by lower id), so every filter keeps a prefix of it and the k best
need no full sort: a heap of k ids whose root is the last of them, and blocks of 64 logits skipped when none beats it.
Without a top-k the prefix looked at grows until it holds the draw. 151,936 logits take 0.02 ms with a top-k of 20.
"""

from __future__ import annotations

import math

import numpy as np

from quant.jit import inline, njit

_BLOCK = 64
_FIRST_LOOK = 128  # candidates at first, without a top-k
_GROWTH = 8
LANES = _BLOCK  # of the float32 sums that choose() needs as scratch


@inline
def _sink(logits, heap, root, size):  # type: ignore[no-untyped-def]
    """Restore the heap below its root: no id comes later in the order than its parent."""
    moving = heap[root]
    while True:
        child = 2 * root + 1
        if child >= size:
            break
        other = child + 1
        if other < size and _later(logits, heap[other], heap[child]):
            child = other
        if _later(logits, moving, heap[child]):
            break
        heap[root] = heap[child]
        root = child
    heap[root] = moving


@inline
def _later(logits, a, b):  # type: ignore[no-untyped-def]
    return logits[a] < logits[b] or (logits[a] == logits[b] and a > b)


@njit
def best(logits, heap, size):  # type: ignore[no-untyped-def]
    """Put the ids of the `size` highest logits into heap[:size], highest first.  logits float32 [V], heap int32 [V]."""
    for i in range(size):
        heap[i] = i
    for i in range(size // 2 - 1, -1, -1):
        _sink(logits, heap, i, size)
    for start in range(size, len(logits), _BLOCK):
        bar = logits[heap[0]]
        above = start + _BLOCK > len(logits)
        if not above:
            for j in range(_BLOCK):
                above |= logits[start + j] > bar
        if above:
            for i in range(start, min(start + _BLOCK, len(logits))):
                if logits[i] > logits[heap[0]]:
                    heap[0] = i
                    _sink(logits, heap, 0, size)
    for last in range(size - 1, 0, -1):
        heap[0], heap[last] = heap[last], heap[0]
        _sink(logits, heap, 0, last)


@inline
def _mass(logits, peak, scale, lanes):  # type: ignore[no-untyped-def]
    """Σ exp((logit − peak) · scale) over all, to 1e-5: Taylor to the fifth power, squared six times, 64 sums abreast."""
    lanes[:] = 0
    floor, part = np.float32(-40), np.float32(1 / 64)
    peak, scale = np.float32(peak), np.float32(min(scale, 1e30))
    whole = len(logits) // _BLOCK * _BLOCK
    for start in range(0, whole, _BLOCK):
        for j in range(_BLOCK):
            x = (logits[start + j] - peak) * scale
            x = (x if x > floor else floor) * part
            e = x * np.float32(1 / 120) + np.float32(1 / 24)
            e = (e * x + np.float32(1 / 6)) * x + np.float32(1 / 2)
            e = (e * x + np.float32(1)) * x + np.float32(1)
            e *= e
            e *= e
            e *= e
            e *= e
            e *= e
            lanes[j] += e * e
    total = 0.0
    for j in range(_BLOCK):
        total += lanes[j]
    for i in range(whole, len(logits)):
        total += math.exp((logits[i] - peak) * scale)
    return total


@inline
def _weight(logits, token, peak, temperature):  # type: ignore[no-untyped-def]
    return math.exp((float(logits[token]) - peak) / temperature)


@inline
def _sum(logits, heap, size, peak, temperature):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(size):
        total += _weight(logits, heap[i], peak, temperature)
    return total


@inline
def _kept(logits, heap, size, peak, nucleus, min_p):  # type: ignore[no-untyped-def]
    """How many of the first `size` ids pass top-p and min-p; `size` also when neither ends within them."""
    floor = peak + math.log(min_p)
    mass = 0.0
    for i in range(size):
        if i > 0 and logits[heap[i]] < floor:
            return i
        mass += _weight(logits, heap[i], peak, 1.0)
        if mass >= nucleus:
            return i + 1
    return size


@inline
def _walk(logits, heap, size, peak, temperature, target):  # type: ignore[no-untyped-def]
    """Where the sum of weights passes the target: (id, True), or (the last id of any weight, False)."""
    mass = 0.0
    token = heap[0]
    for i in range(size):
        weight = _weight(logits, heap[i], peak, temperature)
        if weight > 0:
            token = heap[i]
        mass += weight
        if mass > target:
            return token, True
    return token, False


@njit
def choose(logits, heap, lanes, peak, top_k, top_p, min_p, temperature, uniform):  # type: ignore[no-untyped-def]
    """Draw one id: top-k, then top-p, then min-p, then temperature; `uniform` in [0, 1) walks down the order.

    logits float32 [V], finite or −inf; peak: the highest, finite; heap int32 [V] and lanes float32 [LANES]: scratch.
    top_k 0 (or ≥ V), top_p 1 and min_p 0 filter nothing; temperature > 0.
    """
    vocab = len(logits)
    limited = 0 < top_k < vocab
    filtered = top_p < 1 or min_p > 0
    size = top_k if limited else min(vocab, _FIRST_LOOK)
    best(logits, heap, size)
    nucleus = np.inf
    if top_p < 1:
        nucleus = top_p * (_sum(logits, heap, size, peak, 1.0) if limited else _mass(logits, peak, 1.0, lanes))
    everything = 0.0
    if not limited and not filtered:
        everything = _mass(logits, peak, 1 / temperature, lanes)
    while True:
        kept = _kept(logits, heap, size, peak, nucleus, min_p)
        complete = limited or size == vocab or kept < size
        if complete or not filtered:
            mass = everything if everything > 0 else _sum(logits, heap, kept, peak, temperature)
            token, found = _walk(logits, heap, kept, peak, temperature, uniform * mass)
            if found or complete:
                return token
        size = min(size * _GROWTH, vocab)
        best(logits, heap, size)
