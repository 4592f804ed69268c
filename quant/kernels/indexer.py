"""The keys of an indexer, which selects the blocks of positions that a token attends to (see quant.kernels.select_blocks).

The index key of a block is the mean of its tokens' index keys, normed, and rotated as at the block's first position. The last
tokens' are in a ring, as inputs of convolutions are (see quant.kernels.convolution): a token that completes a block sums up
those that are not of this replay from there. The row of a block that a wrong guess has completed is written over when the
block is complete; nobody reads it before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH, of_one_text, position_of, slot_of
from quant.jit import inline, kernel
from quant.kernels.kv_cache import number_of, store_row
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.kernels.rope import Rope, rotate
from quant.layout import Layout
from quant.plan import Operand, Plan
from quant.simd import add, load_f32, load_f32x16, load_i64, mul, splat, store_f32, store_f32x16, zero_f32x16


@dataclass(frozen=True)
class Indexer:
    """The index heads of one layer, and its cache [1, blocks, row], whose row b is the key of block b.

    last_keys float32 [ring, head_dim]: the last index keys as they come, that of position p in row p % ring.
    """

    heads: int
    head_dim: int
    block_size: int
    top_k: int
    norms: tuple[NDArray[np.float32], NDArray[np.float32]]  # of queries and of keys
    eps: float
    k_cache: NDArray[Any]
    last_keys: NDArray[np.float32]

    def __post_init__(self) -> None:
        widths = {len(self.norms[0]), len(self.norms[1]), self.last_keys.shape[1]}
        if widths != {self.head_dim} or self.head_dim % 16 or min(self.heads, self.block_size, self.top_k) < 1:
            raise ValueError(f"{self.heads} index heads of {self.head_dim}, {self.top_k} blocks of {self.block_size}")

    @property
    def blocks(self) -> int:
        """Blocks of the context, an incomplete one counted."""
        return self.k_cache.shape[1]

    def table(self, plan: Plan, rope: Rope) -> Operand:
        """The INDEXER table of this layer."""
        (k_cache, k_slot), (last_keys, last_slot) = plan.slotted(self.k_cache), plan.slotted(self.last_keys)
        return plan.table(
            INDEXER,
            heads=self.heads,
            head_dim=self.head_dim,
            block_size=self.block_size,
            top_k=self.top_k,
            q_norm=self.norms[0],
            k_norm=self.norms[1],
            eps=self.eps,
            frequencies=rope.frequencies,
            pairs=len(rope.frequencies),
            attention_factor=rope.attention_factor,
            k_cache=k_cache,
            k_row=self.k_cache.strides[1],
            k_slot=k_slot,
            kind=number_of(self.k_cache),
            last_keys=last_keys,
            last_slot=last_slot,
            ring=len(self.last_keys),
        )


INDEXER = Layout(
    "heads",
    "head_dim",
    "block_size",
    "top_k",
    "q_norm",
    "k_norm",
    "eps",
    "frequencies",  # of RoPE, float32 [pairs]
    "pairs",
    "attention_factor",
    "k_cache",
    "k_row",  # bytes of a row of the cache
    "k_slot",  # bytes to the cache of the next text, see quant.batch
    "kind",  # number of the kind of the rows of the cache
    "last_keys",
    "last_slot",  # bytes to the last keys of the next text
    "ring",  # rows of them
)


@inline
def norm_head(x, weight, width, eps, y):
    """rms_norm of x float32 [width] -> y."""
    scale = splat(inverse_rms(x, width, eps))
    for c in range(0, 4 * width, 64):
        store_f32x16(y + c, mul(mul(load_f32x16(x + c), scale), load_f32x16(weight + c)))


@inline
def _last_key(indexer, batch, t, position):
    """Where the ring of token t's text has the index key of a position."""
    ring = load_i64(indexer + INDEXER.last_keys) + slot_of(batch, t) * load_i64(indexer + INDEXER.last_slot)
    return ring + position % load_i64(indexer + INDEXER.ring) * 4 * load_i64(indexer + INDEXER.head_dim)


@inline
def _sum_block(k, stride, t, indexer, batch, total):
    """The sum of the index keys of the block that token t completes, in order of position -> total float32 [head_dim]."""
    block, width = load_i64(indexer + INDEXER.block_size), load_i64(indexer + INDEXER.head_dim)
    position, here = position_of(batch, t), t if of_one_text(batch) else 0  # tokens before it in this replay
    for c in range(0, 4 * width, 64):
        store_f32x16(total + c, zero_f32x16())
    for i in range(block):
        back = block - 1 - i
        x = k + (t - back) * stride if back <= here else _last_key(indexer, batch, t, position - back)
        for c in range(0, 4 * width, 64):
            store_f32x16(total + c, add(load_f32x16(total + c), load_f32x16(x + c)))


@inline
def _rotate_to(x, position, indexer, place):
    """Rotate one head as at `position`; place: scratch memory, 8 bytes a pair."""
    frequencies, pairs = load_i64(indexer + INDEXER.frequencies), load_i64(indexer + INDEXER.pairs)
    factor = load_f32(indexer + INDEXER.attention_factor)
    for i in range(pairs):
        angle = np.float64(np.float32(position) * load_f32(frequencies + 4 * i))
        store_f32(place + 4 * i, factor * np.float32(math.cos(angle)))
        store_f32(place + 4 * (pairs + i), factor * np.float32(math.sin(angle)))
    rotate(x, place, pairs, 0)


@inline
def _complete_block(k, stride, t, indexer, batch, total):
    """The key of the block that token t completes -> its row of the cache; total: scratch memory."""
    block, width = load_i64(indexer + INDEXER.block_size), load_i64(indexer + INDEXER.head_dim)
    _sum_block(k, stride, t, indexer, batch, total)
    for c in range(0, 4 * width, 64):
        store_f32x16(total + c, mul(load_f32x16(total + c), splat(np.float32(1) / np.float32(block))))
    norm_head(total, load_i64(indexer + INDEXER.k_norm), width, load_f32(indexer + INDEXER.eps), total)
    b = position_of(batch, t) // block
    _rotate_to(total, b * block, indexer, total + 4 * width)
    cache = load_i64(indexer + INDEXER.k_cache) + slot_of(batch, t) * load_i64(indexer + INDEXER.k_slot)
    store_row(total, width, cache + b * load_i64(indexer + INDEXER.k_row), load_i64(indexer + INDEXER.kind))


@inline
def _keep_keys(k, stride, first, last, indexer, batch):
    """The index keys of tokens first to last go into the ring."""
    for t in range(first, last):
        place = _last_key(indexer, batch, t, position_of(batch, t))
        for c in range(0, 4 * load_i64(indexer + INDEXER.head_dim), 64):
            store_f32x16(place + c, load_f32x16(k + t * stride + c))


@kernel
def index_keys(rank, size, k, k_stride, indexer, batch, scratch, scratch_stride):
    """k [tokens, head_dim] -> the keys of the blocks that this replay completes; the last of k are kept.

    Threads share the blocks of one text, of which the first thread does the first, as it alone may begin before this replay,
    and then writes over what that was read from; or they share the tokens of several texts.
    """
    tokens, block = load_i64(batch + BATCH.tokens), load_i64(indexer + INDEXER.block_size)
    local = scratch + rank * scratch_stride
    if of_one_text(batch):
        position = load_i64(batch + BATCH.position)
        first, count = position // block, (position + tokens) // block - position // block
        if rank == 0:
            if count:
                _complete_block(k, k_stride, (first + 1) * block - 1 - position, indexer, batch, local)
            _keep_keys(k, k_stride, max(0, tokens - load_i64(indexer + INDEXER.ring)), tokens, indexer, batch)
        for b in range(first + 1 + start_of(rank, size, count - 1), first + 1 + start_of(rank + 1, size, count - 1)):
            _complete_block(k, k_stride, (b + 1) * block - 1 - position, indexer, batch, local)
    else:
        for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
            if (position_of(batch, t) + 1) % block == 0:
                _complete_block(k, k_stride, t, indexer, batch, local)
            _keep_keys(k, k_stride, t, t + 1, indexer, batch)
