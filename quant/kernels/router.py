"""The router's choice: the k largest of an expert's logits, weighted by their softmax among themselves.

Softmax over all experts, the k largest, divided by their sum, is the softmax over the k chosen. Ties go to the lower index.
"""

from __future__ import annotations

import math

import numpy as np

from quant.jit import inline
from quant.simd import load_f32, load_i64, store_f32, store_i64, store_u8


@inline
def _insert(logit, expert, count, k, experts, weights):
    """Put an expert into the list of at most k, largest logit first."""
    place = min(count, k - 1)
    while place > 0 and load_f32(weights + 4 * place - 4) < logit:
        store_f32(weights + 4 * place, load_f32(weights + 4 * place - 4))
        store_i64(experts + 8 * place, load_i64(experts + 8 * place - 8))
        place -= 1
    store_f32(weights + 4 * place, logit)
    store_i64(experts + 8 * place, expert)


@inline
def choose(logits, count, k, scale, experts, weights):
    """float32 logits [count] -> the chosen experts int64 [k] and their weights float32 [k], times scale."""
    for expert in range(count):
        logit = load_f32(logits + 4 * expert)
        if expert < k or load_f32(weights + 4 * (k - 1)) < logit:
            _insert(logit, expert, expert, k, experts, weights)
    largest, total = load_f32(weights), np.float32(0)
    for i in range(k):
        e = np.float32(math.exp(load_f32(weights + 4 * i) - largest))
        store_f32(weights + 4 * i, e)
        total += e
    for i in range(k):
        store_f32(weights + 4 * i, scale * load_f32(weights + 4 * i) / total)


@inline
def mark(touched, experts, k):
    """Note in uint8 [count] which experts were chosen."""
    for i in range(k):
        store_u8(touched + load_i64(experts + 8 * i), 1)
