"""The router's choice: the k experts with the largest scores, and the weights of what they give.

A score is the softmax of an expert's logit among all, or its sigmoid. For the choice alone a bias may be added, and
experts may have to come from the best groups (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). Ties go to the lower index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.layout import Layout
from quant.plan import Operand, Plan
from quant.simd import (
    add,
    load_f32,
    load_f32x16,
    load_i64,
    mul,
    splat,
    store_f32,
    store_f32x16,
    store_i64,
    store_u8,
    sub,
    sum_lanes,
    zero_f32x16,
)
from quant.vector_math import exp, sigmoid

ROUTING = Layout(  # fields of `Routing`, except
    "count",  # experts of the layer
    "experts_per_token",
    "by_sigmoid",  # 1 if scores are sigmoids, 0 if they are a softmax
    "normalised",
    "scale",  # float32, times that of the layer
    "bias",  # its address, or 0
    "expert_scales",  # likewise
    "groups",
    "groups_used",
    "group_best",
)
_LEAST = np.float32(1e-20)  # what a smaller sum of weights is replaced by, so that nothing is divided by 0


@dataclass(frozen=True)
class Routing:
    """How a token's experts are chosen from their logits, and what their results are multiplied with.

    scores: the softmax of all logits, or the sigmoid of each; bias float32 [experts] is added to them for the choice alone;
    normalised: the weights of the chosen are divided by their sum; scale multiplies them in the end, and expert_scales
    float32 [experts] each expert's.
    Of `groups` of neighbours only the best `groups_used` count, by the sum of a group's `group_best` largest (1 or 2).
    """

    experts_per_token: int
    scores: Literal["softmax", "sigmoid"] = "softmax"
    normalised: bool = True
    scale: float = 1.0
    bias: NDArray[np.float32] | None = None
    groups: int = 1
    groups_used: int = 1
    group_best: int = 1
    expert_scales: NDArray[np.float32] | None = None

    def check(self, count: int) -> None:
        """ValueError if the choice cannot be made among `count` experts."""
        k, per_group = self.experts_per_token, count // self.groups if self.groups > 0 else 0
        if not 0 < k <= count:
            raise ValueError(f"{k} of {count} experts")
        fits = 0 < self.groups_used <= self.groups and count % self.groups == 0 and 0 < self.group_best <= 2
        if not fits or k > per_group * self.groups_used or per_group < self.group_best:
            raise ValueError(f"{k} of {count} experts from {self.groups_used} of {self.groups} groups")
        for values in (self.bias, self.expert_scales):
            if values is not None and values.shape != (count,):
                raise ValueError(f"{values.shape} numbers for {count} experts")

    def table(self, plan: Plan, count: int, scale: float = 1.0) -> Operand:
        """An operand: the table of ROUTING for `count` experts, whose weights are multiplied by `scale` besides."""
        self.check(count)
        return plan.table(
            ROUTING,
            count=count,
            experts_per_token=self.experts_per_token,
            by_sigmoid=self.scores == "sigmoid",
            normalised=self.normalised,
            scale=float(self.scale * scale),
            bias=0 if self.bias is None else self.bias,
            expert_scales=0 if self.expert_scales is None else self.expert_scales,
            groups=self.groups,
            groups_used=self.groups_used,
            group_best=self.group_best,
        )


def routing_scratch_bytes(count: int) -> int:
    """Bytes of scratch memory of `route_token`: scores of experts, and of groups of them."""
    return 4 * (-(-count // 16) * 16 + count)


@inline
def top_k_of(routing):
    """How many experts a token gets."""
    return load_i64(routing + ROUTING.experts_per_token)


@inline
def _largest(values, count):
    largest = load_f32(values)
    for i in range(1, count):
        largest = max(largest, load_f32(values + 4 * i))
    return largest


@inline
def _sum_exp(logits, count, largest):
    """The sum of exp(logit - largest) over all experts."""
    totals, whole = zero_f32x16(), count // 16 * 16
    for i in range(0, whole, 16):
        totals = add(totals, exp(sub(load_f32x16(logits + 4 * i), splat(largest))))
    total = sum_lanes(totals)
    for i in range(whole, count):
        total += np.float32(math.exp(load_f32(logits + 4 * i) - largest))
    return total


@inline
def _score(logits, count, by_sigmoid, bias, scores):
    """The scores that experts are chosen by, float32 [count]; rows of logits are padded to 16."""
    largest = _largest(logits, count)
    factor = splat(np.float32(1) if by_sigmoid else np.float32(1) / _sum_exp(logits, count, largest))
    for i in range(0, count, 16):
        x = load_f32x16(logits + 4 * i)
        store_f32x16(scores + 4 * i, sigmoid(x) if by_sigmoid else mul(exp(sub(x, splat(largest))), factor))
    if bias:
        for i in range(count):
            store_f32(scores + 4 * i, load_f32(scores + 4 * i) + load_f32(bias + 4 * i))


@inline
def _score_group(scores, size, best):
    """The largest of a group's scores, or the sum of its two largest."""
    first, second = load_f32(scores), np.float32(-np.inf)
    for i in range(1, size):
        score = load_f32(scores + 4 * i)
        if first < score:
            first, second = score, first
        else:
            second = max(second, score)
    return first + second if best == 2 else first


@inline
def _is_in_top(scores, count, used, i):
    """Whether fewer than `used` are better than the i-th."""
    score, better = load_f32(scores + 4 * i), 0
    for j in range(count):
        other = load_f32(scores + 4 * j)
        if other > score or (other == score and j < i):
            better += 1
    return better < used


@inline
def _insert(score, expert, count, k, experts, weights):
    """Put an expert into the list of at most k, largest score first."""
    place = min(count, k - 1)
    while place > 0 and load_f32(weights + 4 * place - 4) < score:
        store_f32(weights + 4 * place, load_f32(weights + 4 * place - 4))
        store_i64(experts + 8 * place, load_i64(experts + 8 * place - 8))
        place -= 1
    store_f32(weights + 4 * place, score)
    store_i64(experts + 8 * place, expert)


@inline
def _select(scores, count, k, groups, used, best, group_scores, experts, weights):
    """The k experts with the largest scores, from the best groups."""
    size, inserted = count // groups, 0
    if groups > 1:
        for g in range(groups):
            store_f32(group_scores + 4 * g, _score_group(scores + 4 * g * size, size, best))
    for g in range(groups):
        if groups == 1 or _is_in_top(group_scores, groups, used, g):
            for expert in range(g * size, (g + 1) * size):
                score = load_f32(scores + 4 * expert)
                if inserted < k or load_f32(weights + 4 * (k - 1)) < score:
                    _insert(score, expert, inserted, k, experts, weights)
                    inserted += 1


@inline
def _weight(logits, count, k, by_sigmoid, normalised, scale, expert_scales, experts, weights):
    """The weights of the chosen, float32 [k]."""
    largest, total = load_f32(logits + 4 * load_i64(experts)), np.float32(0)
    for i in range(1, k):
        largest = max(largest, load_f32(logits + 4 * load_i64(experts + 8 * i)))
    if not normalised:
        largest = _largest(logits, count)
    for i in range(k):
        logit = load_f32(logits + 4 * load_i64(experts + 8 * i))
        weight = sigmoid1(logit) if by_sigmoid else np.float32(math.exp(logit - largest))
        store_f32(weights + 4 * i, weight)
        total += weight
    if not normalised:
        total = np.float32(1) if by_sigmoid else _sum_exp(logits, count, largest)
    total = max(total, _LEAST)
    for i in range(k):
        weight = scale * load_f32(weights + 4 * i) / total
        if expert_scales:
            weight *= load_f32(expert_scales + 4 * load_i64(experts + 8 * i))
        store_f32(weights + 4 * i, weight)


@inline
def route_token(logits, routing, scratch, experts, weights):
    """float32 logits [count] -> the chosen experts int64 [k] and their weights float32 [k]."""
    count, k, bias = load_i64(routing + ROUTING.count), top_k_of(routing), load_i64(routing + ROUTING.bias)
    by_sigmoid, normalised = load_i64(routing + ROUTING.by_sigmoid), load_i64(routing + ROUTING.normalised)
    groups, used = load_i64(routing + ROUTING.groups), load_i64(routing + ROUTING.groups_used)
    best, scale = load_i64(routing + ROUTING.group_best), load_f32(routing + ROUTING.scale)
    expert_scales = load_i64(routing + ROUTING.expert_scales)
    scores = logits  # in whose order scores are, unless something is added to them
    if bias or groups > 1:
        scores = scratch
        _score(logits, count, by_sigmoid, bias, scores)
    group_scores = scratch + 4 * ((count + 15) // 16 * 16)
    _select(scores, count, k, groups, used, best, group_scores, experts, weights)
    _weight(logits, count, k, by_sigmoid, normalised, scale, expert_scales, experts, weights)


@kernel
def route_rows(rank, size, logits, stride, routing, experts, weights, batch, scratch, scratch_stride):
    """The choice of every token -> experts int64 [tokens, k], weights float32 [tokens, k]; threads share the tokens."""
    tokens, k = load_i64(batch + BATCH.tokens), top_k_of(routing)
    memory = scratch + rank * scratch_stride
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        route_token(logits + t * stride, routing, memory, experts + 8 * t * k, weights + 4 * t * k)


@inline
def mark_touched(touched, experts, k):
    """Note in uint8 [count] which experts were chosen."""
    for i in range(k):
        store_u8(touched + load_i64(experts + 8 * i), 1)
