"""The heads of an attention layer: their shape, their options, their caches, and the table of these that kernels read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.batch import slot_of
from quant.jit import inline
from quant.kernels.kv_cache import kind_of, number_of, row_shape
from quant.kernels.partition import COUNTER_WORDS
from quant.kernels.softmax import BLOCK
from quant.layout import Layout
from quant.plan import Operand, Plan
from quant.simd import load_i64

Vector = NDArray[np.float32]

HEADS = Layout(
    "query_heads",
    "key_value_heads",
    "head_dim",  # of a query and of a key
    "value_dim",
    "q_step",  # bytes from one query head to the next
    "q_norm",  # weights of the norm of queries, float32
    "k_norm",
    "v_norm",  # 0: values are not normed
    "q_span",  # over how many values queries are normed; 0: not at all
    "k_span",
    "normed_last",  # 1 if they are normed after they are rotated
    "eps",
    "scale",  # of the scores
    "softcap",
    "sinks",  # float32 [query_heads], or 0
    "window",  # positions that a token sees
    "rows",  # positions that the caches hold: that of position p is in row p % rows
    "blocks",  # of positions that a token attends to, at most
    "k_cache",
    "v_cache",
    "k_row",  # bytes of a row of the cache
    "v_row",
    "k_slot",  # bytes from the cache of one text to that of the next, see quant.batch
    "v_slot",
    "kind",  # number of the kind of the rows of keys, see quant.kernels.kv_cache
    "taken",  # counter of tiles of queries that threads have taken, see quant.kernels.attend_tiles
)
_EVERY = 1 << 62  # as a window: all positions


@inline
def shape_of(heads):
    """Key-value heads, query heads that share one of them, head_dim and value_dim."""
    count = load_i64(heads + HEADS.key_value_heads)
    group = load_i64(heads + HEADS.query_heads) // count
    return count, group, load_i64(heads + HEADS.head_dim), load_i64(heads + HEADS.value_dim)


@inline
def caches_of(heads):
    """The caches of keys and of values, bytes of a row of each, rows that they have, and the number of the keys' kind."""
    k_cache, v_cache = load_i64(heads + HEADS.k_cache), load_i64(heads + HEADS.v_cache)
    k_row, v_row = load_i64(heads + HEADS.k_row), load_i64(heads + HEADS.v_row)
    return k_cache, v_cache, k_row, v_row, load_i64(heads + HEADS.rows), load_i64(heads + HEADS.kind)


@inline
def slots_of(heads, batch, t):
    """Bytes from the caches of keys and of values to those of token t's text."""
    slot = slot_of(batch, t)
    return slot * load_i64(heads + HEADS.k_slot), slot * load_i64(heads + HEADS.v_slot)


@dataclass(frozen=True)
class Heads:
    """The shape of an attention layer, the options of its heads, and its caches [key-value heads, rows, row].

    Position p is in row p % rows. Caches of fewer rows than a text has positions are rings: of a multiple of BLOCK rows, at
    least the window and the tokens of a replay, all of which are written before the first of them is attended from.
    norms: weights of the root-mean-square norms of queries and of keys, float32 [head_dim] for each head by itself, or as
    long as all heads together; normed_last: after they are rotated, each head by itself; v_norm: likewise of values, each
    head by itself. gated: queries come as (query, gate), and outputs are multiplied by sigmoid(gate). sinks: float32
    [query_heads], a score of each head that enters the softmax but has no value (attention sinks). window: each token
    attends to so many of the last positions, itself included (sliding window). softcap: scores become softcap * tanh(score /
    softcap). scale: of the scores; 1 / sqrt(head_dim) unless given. first: columns of a key, a multiple of 16, that have a
    scale of their own where caches are of the kind i16.
    """

    query_heads: int
    key_value_heads: int
    head_dim: int  # of a query and of a key
    value_dim: int
    k_cache: NDArray[Any]
    v_cache: NDArray[Any]
    norms: tuple[Vector, Vector] | None = None
    v_norm: Vector | None = None
    normed_last: bool = False
    eps: float = 0.0
    gated: bool = False
    sinks: Vector | None = None
    window: int = 0
    softcap: float = 0.0
    scale: float = 0.0
    first: int = 0

    def __post_init__(self) -> None:
        shape = (
            f"{self.query_heads} query heads, {self.key_value_heads} key heads of {self.head_dim} and {self.value_dim}"
        )
        kind = kind_of(self.k_cache)
        k_row, v_row = row_shape(kind, self.head_dim, self.first)[0], row_shape(kind, self.value_dim)[0]
        if self.query_heads % self.key_value_heads or self.head_dim % 16 or self.value_dim % 16:
            raise ValueError(shape)
        if self.first % 16 or not 0 <= self.first <= self.head_dim:
            raise ValueError(f"{shape}, of which the first {self.first} columns have another scale")
        caches = self.k_cache.shape[::2], self.v_cache.shape[::2]
        if caches != ((self.key_value_heads, k_row), (self.key_value_heads, v_row)):
            raise ValueError(f"{shape}, caches {self.k_cache.shape} and {self.v_cache.shape}")
        if self.gated and self.value_dim != self.head_dim:
            raise ValueError(f"{shape}, and gates")
        if self.sinks is not None and self.sinks.shape != (self.query_heads,):
            raise ValueError(f"{shape}, {self.sinks.shape} sinks")
        if self.v_norm is not None and self.v_norm.shape != (self.value_dim,):
            raise ValueError(f"{shape}, a norm of {self.v_norm.shape} values")
        _ = self.norm_spans

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.query_heads // self.key_value_heads

    def blocks_of(self, rows: int) -> int:
        """How many blocks of positions a token attends to at most, in caches of so many rows."""
        if 0 < self.window < rows:
            return (self.window + BLOCK - 2) // BLOCK + 1  # it may begin anywhere in the first
        return -(-rows // BLOCK)

    @property
    def score_scale(self) -> float:
        """What a product of query and key is multiplied by."""
        return self.scale or 1 / math.sqrt(self.head_dim)

    @property
    def norm_spans(self) -> tuple[int, int]:
        """Over how many values queries and keys are normed: one head, or all together; 0 where they are not."""
        if self.norms is None:
            return 0, 0
        found, one = (len(self.norms[0]), len(self.norms[1])), self.head_dim
        together = self.query_heads * one, self.key_value_heads * one
        if found != (one, one) and (found != together or self.gated or self.normed_last):
            raise ValueError(
                f"norms of {found} values for {self.query_heads} and {self.key_value_heads} heads of {one}"
            )
        return found

    def table(self, plan: Plan) -> Operand:
        """The HEADS table of this layer."""
        q_norm, k_norm = self.norms or (0, 0)
        (k_cache, k_slot), (v_cache, v_slot) = plan.slotted(self.k_cache), plan.slotted(self.v_cache)
        q_span, k_span = self.norm_spans
        rows = plan.in_place_of(self.k_cache)[1]
        return plan.table(
            HEADS,
            query_heads=self.query_heads,
            key_value_heads=self.key_value_heads,
            head_dim=self.head_dim,
            value_dim=self.value_dim,
            q_step=4 * self.head_dim * (2 if self.gated else 1),
            q_norm=q_norm,
            k_norm=k_norm,
            v_norm=0 if self.v_norm is None else self.v_norm,
            q_span=q_span,
            k_span=k_span,
            normed_last=self.normed_last,
            eps=self.eps,
            scale=self.score_scale,
            softcap=self.softcap,
            sinks=0 if self.sinks is None else self.sinks,
            window=self.window or _EVERY,
            rows=rows,
            blocks=self.blocks_of(rows),
            k_cache=k_cache,
            v_cache=v_cache,
            k_slot=k_slot,
            v_slot=v_slot,
            k_row=self.k_cache.strides[1],
            v_row=self.v_cache.strides[1],
            kind=number_of(self.k_cache, self.first),
            taken=plan.buffer("tiles of queries", COUNTER_WORDS, np.int64),
        )
