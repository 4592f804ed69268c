"""Embeddings of n-grams of tokens, found by hashing and added to residual streams (Qwen4-Exp's per-layer embeddings).

The n-gram that ends at token t0 has a row in the table for each hash head h: (t0 m0 xor t1 m1 xor ...) mod size[h] +
offset[h], where t1 is the token before t0, and m are multipliers. All tokens from an end-of-text token on backwards count as
that token.

The last tokens, and the last inputs of the convolution, are in rings (see quant.kernels.convolution).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH, of_one_text, position_of, slot_of
from quant.jit import inline, kernel
from quant.kernels.convolution import ring_rows
from quant.kernels.embed import add_rows
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import (
    add,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    mul,
    splat,
    store_f32,
    store_f32x16,
    store_i64,
    sum_lanes,
    zero_f32x16,
)
from quant.vector_math import silu
from quant.weights import Matrix


@dataclass(frozen=True)
class Hashing:
    """How n-grams are hashed; previous_tokens float32 [ring, 1]: the last ones, that of position p in row p % ring."""

    end_of_text: int
    multipliers: NDArray[np.int64]  # [n]
    sizes: NDArray[np.int64]  # [heads], those of 2-grams first
    offsets: NDArray[np.int64]  # [heads]
    previous_tokens: NDArray[np.float32]

    def check(self, rows: int) -> None:
        """ValueError if a hash could lead out of a table of so many rows."""
        n, heads = len(self.multipliers), len(self.sizes)
        if n < 2 or heads < 1 or heads % (n - 1) or self.offsets.shape != self.sizes.shape:
            raise ValueError(f"{heads} heads for n-grams of up to {n} tokens")
        if self.sizes.min() < 1 or self.offsets.min() < 0 or (self.offsets > rows - self.sizes).any():
            raise ValueError(f"{heads} heads hash into more than {rows} rows")

    def table(self, plan: Plan) -> Operand:
        """The table by which kernels know it."""
        previous_tokens, slot = plan.slotted(self.previous_tokens)
        return plan.table(
            _HASHING,
            n=len(self.multipliers),
            heads=len(self.sizes),
            end_of_text=self.end_of_text,
            multipliers=self.multipliers,
            sizes=self.sizes,
            offsets=self.offsets,
            previous_tokens=previous_tokens,
            slot=slot,
            ring=len(self.previous_tokens),
        )


_HASHING = Layout(
    "n",
    "heads",
    "end_of_text",
    "multipliers",
    "sizes",
    "offsets",
    "previous_tokens",
    "slot",  # bytes to the previous tokens of the next text
    "ring",
)


@inline
def _place(hashing, batch, t, position):
    """Where the ring of token t's text has the token of a position."""
    previous_tokens = load_i64(hashing + _HASHING.previous_tokens)
    slot = slot_of(batch, t) * load_i64(hashing + _HASHING.slot)
    return previous_tokens + slot + 4 * (position % load_i64(hashing + _HASHING.ring))


@inline
def _token_before(ids, hashing, batch, t, back):
    """The token that is `back` before token t in its text; -1 before the beginning of the text."""
    if back <= t and of_one_text(batch):
        return load_i64(ids + 8 * (t - back))
    position = position_of(batch, t) - back
    return np.int64(load_f32(_place(hashing, batch, t, position))) if position >= 0 else np.int64(-1)


@kernel
def hash_tokens(rank, size, ids, hashing, rows, batch, count):
    """Hash the n-grams of every token -> rows int64 [tokens, heads], and their number -> count; the first thread does it all."""
    if rank:
        return
    n, heads = load_i64(hashing + _HASHING.n), load_i64(hashing + _HASHING.heads)
    end, multipliers = load_i64(hashing + _HASHING.end_of_text), load_i64(hashing + _HASHING.multipliers)
    sizes, offsets = load_i64(hashing + _HASHING.sizes), load_i64(hashing + _HASHING.offsets)
    tokens, each = load_i64(batch + BATCH.tokens), heads // (n - 1)
    for t in range(tokens):
        mixed, cut = load_i64(ids + 8 * t) * load_i64(multipliers), False
        for j in range(1, n):
            token = end if cut else _token_before(ids, hashing, batch, t, j)
            if token < 0 or token == end:
                cut, token = True, end
            mixed ^= token * load_i64(multipliers + 8 * j)
            for h in range((j - 1) * each, j * each):
                row = mixed % load_i64(sizes + 8 * h) + load_i64(offsets + 8 * h)
                store_i64(rows + 8 * (t * heads + h), row)
    for t in range(max(0, tokens - load_i64(hashing + _HASHING.ring)) if of_one_text(batch) else 0, tokens):
        store_f32(_place(hashing, batch, t, position_of(batch, t)), np.float32(load_i64(ids + 8 * t)))
    store_i64(count, tokens * heads)


def embed_ngrams(plan: Plan, ids: NDArray[np.int64], hashing: Hashing, table: Matrix, out: Activation) -> None:
    """ids int64 [tokens], table [rows, k] -> out float32 [tokens, heads * k]."""
    hashing.check(table.rows)
    heads = len(hashing.sizes)
    if out.columns != heads * table.columns or out.stride("f32") != 4 * out.columns:
        raise ValueError(f"{heads} heads of {table.columns} columns -> {out.columns}")
    if len(hashing.previous_tokens) < ring_rows(plan, len(hashing.multipliers) - 1):
        raise ValueError(f"{len(hashing.previous_tokens)} previous tokens are kept, {plan.tokens} tokens a step")
    rows, count = plan.buffer("n-gram rows", plan.tokens * heads, np.int64), plan.buffer("n-grams", 8, np.int64)
    plan.add(hash_tokens, ids, hashing.table(plan), rows, plan.batch, count)
    plan.weight_bytes += heads * table.row_bytes
    add_rows(plan, rows, table, out.read("f32"), 4 * table.columns, count)


@inline
def _similarity(key, query, key_weight, query_weight, columns, eps):
    """rms_norm(key) . rms_norm(query) / sqrt(columns), float32 [columns] each."""
    total = zero_f32x16()
    for c in range(0, 4 * columns, 64):
        k = mul(load_f32x16(key + c), load_f32x16(key_weight + c))
        total = fma(k, mul(load_f32x16(query + c), load_f32x16(query_weight + c)), total)
    scale = inverse_rms(key, columns, eps) * inverse_rms(query, columns, eps)
    return sum_lanes(total) * scale / np.float32(math.sqrt(np.float32(columns)))


_NGRAMS = Layout(
    "x", "key", "stride", "value", "value_stride", "key_norm", "query_norm", "conv_norm", "streams", "columns", "eps",
    "gated", "normed", "conv", "conv_state", "slot", "ring", "taps", "dilation",
)  # fmt: skip


@kernel
def gate_ngrams(rank, size, table, batch):
    """Gate the value of each token by the similarity of its key to each stream -> gated, and its norm -> normed.

    Both [tokens, streams, columns]; threads share (token, stream).
    """
    x, key, stride = load_i64(table + _NGRAMS.x), load_i64(table + _NGRAMS.key), load_i64(table + _NGRAMS.stride)
    value, value_stride = load_i64(table + _NGRAMS.value), load_i64(table + _NGRAMS.value_stride)
    key_norm, query_norm = load_i64(table + _NGRAMS.key_norm), load_i64(table + _NGRAMS.query_norm)
    conv_norm, eps = load_i64(table + _NGRAMS.conv_norm), load_f32(table + _NGRAMS.eps)
    streams, columns = load_i64(table + _NGRAMS.streams), load_i64(table + _NGRAMS.columns)
    gated, normed = load_i64(table + _NGRAMS.gated), load_i64(table + _NGRAMS.normed)
    items = load_i64(batch + BATCH.tokens) * streams
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t, s = item // streams, item % streams
        at, w = t * stride + 4 * s * columns, 4 * s * columns
        similarity = _similarity(key + at, x + at, key_norm + w, query_norm + w, columns, eps)
        root = np.float32(math.sqrt(max(abs(similarity), np.float32(1e-6))))
        gate = splat(sigmoid1(root if similarity > 0 else -root if similarity < 0 else np.float32(0)))
        for c in range(0, 4 * columns, 64):
            store_f32x16(gated + at + c, mul(load_f32x16(value + t * value_stride + c), gate))
        scale = splat(inverse_rms(gated + at, columns, eps))
        for c in range(0, 4 * columns, 64):
            store_f32x16(normed + at + c, mul(mul(load_f32x16(gated + at + c), scale), load_f32x16(conv_norm + w + c)))


@kernel
def convolve_ngrams(rank, size, table, batch):
    """x += gated + silu of a dilated causal convolution of normed; threads share the channels.

    conv_state float32 [ring, columns]: the last `normed`, that of position p in row p % ring.
    """
    x, stride = load_i64(table + _NGRAMS.x), load_i64(table + _NGRAMS.stride)
    gated, normed = load_i64(table + _NGRAMS.gated), load_i64(table + _NGRAMS.normed)
    weight, slot = load_i64(table + _NGRAMS.conv), load_i64(table + _NGRAMS.slot)
    conv_state, ring = load_i64(table + _NGRAMS.conv_state), load_i64(table + _NGRAMS.ring)
    taps, dilation = load_i64(table + _NGRAMS.taps), load_i64(table + _NGRAMS.dilation)
    columns = load_i64(table + _NGRAMS.streams) * load_i64(table + _NGRAMS.columns)
    tokens, in_turn = load_i64(batch + BATCH.tokens), of_one_text(batch)
    for part in range(start_of(rank, size, columns // 16), start_of(rank + 1, size, columns // 16)):
        c = 64 * part
        for t in range(tokens):
            own, position, total = conv_state + slot_of(batch, t) * slot, position_of(batch, t), zero_f32x16()
            for i in range(taps):
                back = (taps - 1 - i) * dilation
                before = normed + (t - back) * stride
                if back > (t if in_turn else 0):
                    before = own + 4 * ((position - back + ring) % ring) * columns
                total = fma(load_f32x16(before + c), load_f32x16(weight + 4 * i * columns + c), total)
            y = x + t * stride + c
            store_f32x16(y, add(load_f32x16(y), add(load_f32x16(gated + t * stride + c), silu(total))))
        for t in range(max(0, tokens - ring) if in_turn else 0, tokens):
            place = conv_state + slot_of(batch, t) * slot + 4 * (position_of(batch, t) % ring) * columns
            store_f32x16(place + c, load_f32x16(normed + t * stride + c))


def add_ngrams(
    plan: Plan, key: Activation, value: Activation, norms: tuple[NDArray[np.float32], ...], eps: float,
    conv: NDArray[np.float32], dilation: int, conv_state: NDArray[np.float32], x: Activation,
) -> None:  # fmt: skip
    """Add what embeddings of n-grams give to x [tokens, streams * n]: key [tokens, streams * n], value [tokens, n].

    norms: of the key, the query and what is convolved, float32 [streams, n]; conv float32 [taps, streams * n], whose taps are
    `dilation` tokens apart; conv_state: see `convolve_ngrams`.
    """
    (streams, columns), taps = norms[0].shape, len(conv)
    whole = streams * columns
    fits = x.columns == key.columns == conv.shape[1] == conv_state.shape[1] == whole and value.columns == columns
    if not fits or any(norm.shape != (streams, columns) for norm in norms) or columns % 16 or taps < 2:
        raise ValueError(f"{streams} streams of {columns}: {x.columns}, {key.columns} and {value.columns} columns")
    if len(conv_state) < ring_rows(plan, (taps - 1) * dilation):
        raise ValueError(f"{taps} taps, {dilation} tokens apart, {len(conv_state)} rows, {plan.tokens} tokens a step")
    gated, normed = plan.activation("n-grams gated", whole), plan.activation("n-grams normed", whole)
    state, slot = plan.slotted(conv_state)
    table = plan.table(
        _NGRAMS,
        x=x.read("f32"),
        key=key.read("f32"),
        stride=x.stride("f32"),
        value=value.read("f32"),
        value_stride=value.stride("f32"),
        key_norm=norms[0],
        query_norm=norms[1],
        conv_norm=norms[2],
        streams=streams,
        columns=columns,
        eps=eps,
        gated=gated.read("f32"),
        normed=normed.read("f32"),
        conv=conv,
        conv_state=state,
        slot=slot,
        ring=len(conv_state),
        taps=taps,
        dilation=dilation,
    )
    plan.add(gate_ngrams, table, plan.batch)
    plan.add(convolve_ngrams, table, plan.batch)
