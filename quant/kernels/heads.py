"""The heads of an attention layer: their shape, their caches, and the table by which kernels know both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.kernels.kv_cache import is_quantized, row_shape
from quant.layout import Layout
from quant.plan import Operand, Plan

Vector = NDArray[np.float32]

HEADS = Layout(
    "query_heads",
    "key_value_heads",
    "head_dim",  # of a query and of a key
    "value_dim",
    "q_step",  # bytes from one query head to the next
    "q_norm",  # weights of the norm of queries, float32
    "k_norm",
    "q_span",  # over how many values queries are normed; 0: not at all
    "k_span",
    "eps",
    "scale",  # of the scores
    "softcap",
    "sinks",  # float32 [query_heads], or 0
    "window",  # positions that a token sees
    "context",  # positions that the caches hold
    "k_cache",
    "v_cache",
    "k_row",  # bytes of a row of the cache
    "v_row",
    "quantized",  # whether rows of the caches are int8
)
_EVERY = 1 << 62  # as a window: all positions


@dataclass(frozen=True)
class Heads:
    """The shape of an attention layer, what its heads do, and its caches [key-value heads, context, row].

    norms: weights of the norm of queries and of keys, float32 [width] for each head alone, or as long as the whole row.
    gated: queries come as (query, gate), and outputs are multiplied by sigmoid(gate). sinks: float32 [queries], a score
    that takes its share of the softmax but has no value. window: each token sees so many of the last positions, itself
    included. softcap: scores are softcap * tanh(score / softcap). scale: of the scores; 1 / sqrt(width) unless given.
    """

    queries: int
    keys: int
    width: int
    k_cache: NDArray[Any]
    v_cache: NDArray[Any]
    value_width: int = 0  # that of a key
    norms: tuple[Vector, Vector] | None = None
    eps: float = 0.0
    gated: bool = False
    sinks: Vector | None = None
    window: int = 0
    softcap: float = 0.0
    scale: float = 0.0

    def __post_init__(self) -> None:
        shape = f"{self.queries} query heads, {self.keys} key heads of {self.width} and {self.values}"
        kind = "q8_0" if is_quantized(self.k_cache) else "f16"
        rows = row_shape(kind, self.width)[0], row_shape(kind, self.values)[0]
        if self.queries % self.keys or self.width % 16 or self.values % 16:
            raise ValueError(shape)
        if self.k_cache.shape[::2] != (self.keys, rows[0]) or self.v_cache.shape[::2] != (self.keys, rows[1]):
            raise ValueError(f"{shape}, caches {self.k_cache.shape} and {self.v_cache.shape}")
        if self.gated and self.values != self.width:
            raise ValueError(f"{shape}, and gates")
        if self.sinks is not None and self.sinks.shape != (self.queries,):
            raise ValueError(f"{shape}, {self.sinks.shape} sinks")
        _ = self.spans

    @property
    def values(self) -> int:
        """The width of a value."""
        return self.value_width or self.width

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.queries // self.keys

    @property
    def context(self) -> int:
        """Positions that the caches hold."""
        return self.k_cache.shape[1]

    @property
    def score_scale(self) -> float:
        """What a product of query and key is multiplied with."""
        return self.scale or 1 / math.sqrt(self.width)

    @property
    def spans(self) -> tuple[int, int]:
        """Over how many lanes queries and keys are normed; 0: not at all."""
        if self.norms is None:
            return 0, 0
        found = len(self.norms[0]), len(self.norms[1])
        whole = self.queries * self.width, self.keys * self.width
        if found != (self.width, self.width) and (found != whole or self.gated):
            raise ValueError(f"norms of {found} lanes for {self.queries} and {self.keys} heads of {self.width}")
        return found

    def table(self, plan: Plan) -> Operand:
        """The table of this layer, by which kernels know it."""
        norms = self.norms or (0, 0)
        return plan.table(
            HEADS,
            query_heads=self.queries,
            key_value_heads=self.keys,
            head_dim=self.width,
            value_dim=self.values,
            q_step=4 * self.width * (2 if self.gated else 1),
            q_norm=norms[0],
            k_norm=norms[1],
            q_span=self.spans[0],
            k_span=self.spans[1],
            eps=self.eps,
            scale=self.score_scale,
            softcap=self.softcap,
            sinks=0 if self.sinks is None else self.sinks,
            window=self.window or _EVERY,
            context=self.context,
            k_cache=self.k_cache,
            v_cache=self.v_cache,
            k_row=self.k_cache.strides[1],
            v_row=self.v_cache.strides[1],
            quantized=int(is_quantized(self.k_cache)),
        )
