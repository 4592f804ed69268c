"""What decoder models are built of: norms, attention, layers of a mixer and a feed-forward part, and the trunk of these.

Each reads its weights, checked against the shape that the file's keys give, and traces itself into a plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qcli.layers.hyperparameters import Hyper
from qcli.layers.state import State
from qcli.layers.weights import linear, matrix, vector
from quant.kernels.attention import Heads, attention
from quant.kernels.embed import embed
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.norm import add_rms_norm, rms_norm
from quant.kernels.rope import Rope
from quant.kernels.sight import Sight
from quant.plan import Activation, Plan
from quant.weights import Matrix

Vector = NDArray[np.float32]


class Part(Protocol):
    """A mixer or a feed-forward part."""

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """Add to x what the part makes of h, both [tokens, n]."""


@dataclass(frozen=True)
class Norm:
    """A root-mean-square norm with its weight, float32 [n]."""

    weight: Vector
    eps: float

    @classmethod
    def read(cls, hyper: Hyper, name: str, factor: float = 1.0) -> Norm:
        """`name`.weight; what comes out is multiplied by `factor`."""
        weight = vector(hyper.file, f"{name}.weight", hyper.hidden_size)
        return cls(weight * np.float32(factor), hyper.rms_norm_eps)

    def trace(self, plan: Plan, x: Activation, out: Activation) -> None:
        plan.part = "norms"
        rms_norm(plan, x, self.weight, self.eps, out)


@dataclass(frozen=True)
class Attention:
    """Attention with its matrices: separate queries, keys and values, each with a bias where the file has one."""

    attn_q: Matrix
    attn_k: Matrix
    attn_v: Matrix
    attn_output: Matrix
    heads: Heads
    rope: Rope | None
    scale: float

    @classmethod
    def read(
        cls, hyper: Hyper, i: int, state: State, rope: Rope | None, *, norms: str = "", gated: bool = False,
        biased: Sequence[str] = (), sinks: bool = False, window: int = 0, softcap: float = 0.0, score_scale: float = 0.0,
        scale: float = 1.0,
    ) -> Attention:  # fmt: skip
        """Layer i of a file.

        norms: "head" or "row" where queries and keys are normed, each head alone or all together; gated: `attn_q` holds
        (query, gate) of each head; biased: the matrices that must have a bias, as any may; scale: of what is added to the
        trunk; for the others see Heads.
        """
        file, block, n = hyper.file, f"blk.{i}", hyper.hidden_size
        queries, keys, width, values = hyper.queries[i], hyper.keys[i], hyper.head_dim, hyper.value_dim
        if not queries or not keys:
            hyper.wrong(f"layer {i} has {queries} query and {keys} key-value heads")
        rows = queries * width * (2 if gated else 1), keys * width, keys * values
        matrices = *_projections(hyper, block, rows), linear(file, f"{block}.attn_output", n, queries * values)
        for part, weights in zip(("q", "k", "v", "output"), matrices, strict=True):
            if part in biased and weights.bias is None:
                file.tensor(f"{block}.attn_{part}.bias")  # missing
        spans = (queries * width, keys * width) if norms == "row" else (width, width)
        heads = Heads(
            queries=queries,
            keys=keys,
            width=width,
            value_width=values,
            norms=_head_norms(hyper, block, *spans) if norms else None,
            eps=hyper.rms_norm_eps,
            gated=gated,
            sinks=vector(file, f"{block}.attn_sinks.weight", queries) if sinks else None,
            window=window,
            softcap=softcap,
            scale=score_scale,
            k_cache=state.cache(keys, width, window),
            v_cache=state.cache(keys, values, window),
        )
        return cls(*matrices, heads, rope, scale)

    def trace(self, plan: Plan, h: Activation, x: Activation, sight: Sight | None = None) -> None:
        plan.part = "attention"
        q, k, v = (plan.rows(name, w.rows) for name, w in (("q", self.attn_q), ("k", self.attn_k), ("v", self.attn_v)))
        mixed = plan.rows("attention out", self.attn_output.columns)
        matmul(plan, h, [(self.attn_q, q), (self.attn_k, k), (self.attn_v, v)])
        attention(plan, q, k, v, self.rope, self.heads, mixed, sight)
        add_matmul(plan, mixed, self.attn_output, x, self.scale)


def _head_norms(hyper: Hyper, block: str, queries: int, keys: int) -> tuple[Vector, Vector]:
    """Weights of the norms of queries and of keys, so many each."""
    q_norm = vector(hyper.file, f"{block}.attn_q_norm.weight", queries)
    return q_norm, vector(hyper.file, f"{block}.attn_k_norm.weight", keys)


def _projections(hyper: Hyper, block: str, rows: tuple[int, int, int]) -> tuple[Matrix, Matrix, Matrix]:
    """Queries, keys and values, so many rows each; files that were converted so have them in one tensor."""
    file, n, fused = hyper.file, hyper.hidden_size, f"{block}.attn_qkv"
    if f"{fused}.weight" not in file.tensors:
        q, k, v = (linear(file, f"{block}.attn_{part}", count, n) for part, count in zip("qkv", rows, strict=True))
        return q, k, v
    whole, (to_k, to_v) = linear(file, fused, sum(rows), n), (rows[0], rows[0] + rows[1])
    return whole.part(0, to_k), whole.part(to_k, to_v), whole.part(to_v, whole.rows)


@dataclass(frozen=True)
class Layer:
    """x += mixer(norm(x)), x += feed-forward(norm(x)); with post-norms, what is added is normed, too."""

    attn_norm: Norm
    mixer: Part
    ffn_norm: Norm
    ffn: Part
    post_attention_norm: Norm | None = None
    post_ffw_norm: Norm | None = None

    def trace(self, plan: Plan, x: Activation) -> None:
        _add(plan, x, self.attn_norm, self.mixer, self.post_attention_norm)
        _add(plan, x, self.ffn_norm, self.ffn, self.post_ffw_norm)


def _add(plan: Plan, x: Activation, norm: Norm, part: Part, post: Norm | None) -> None:
    h = plan.rows("h", x.columns)
    norm.trace(plan, x, h)
    if post is None:
        part.trace(plan, h, x)
        return
    added = plan.rows("added", x.columns)  # zero before and after
    part.trace(plan, h, added)
    plan.part = "norms"
    add_rms_norm(plan, added, post.weight, post.eps, x)


@dataclass(frozen=True)
class Decoder:
    """A whole model: token_embd -> layers -> output_norm -> output."""

    token_embd: Matrix
    layers: tuple[Layer, ...]
    output_norm: Norm
    output: Matrix
    embedding_scale: float

    @classmethod
    def read(
        cls, hyper: Hyper, layers: Iterable[Layer], *, embedding_scale: float = 1.0, logit_scale: float = 1.0,
        norm: str = "output_norm",
    ) -> Decoder:  # fmt: skip
        """What is around the layers; an output that the file lacks is tied to the embedding; norm: of the last rows."""
        file, n = hyper.file, hyper.hidden_size
        vocab = file.tensor("token_embd.weight").shape[0]
        table = matrix(file, "token_embd.weight", vocab, n)
        every = tuple(layers)
        refuse_unread(hyper)
        return cls(
            token_embd=table,
            layers=every,
            output_norm=Norm.read(hyper, norm, logit_scale),
            output=linear(file, "output", vocab, n) if "output.weight" in file.tensors else table,
            embedding_scale=embedding_scale,
        )

    @property
    def vocab_size(self) -> int:
        return self.token_embd.rows

    def trunk(self, plan: Plan, ids: NDArray[np.int64]) -> Activation:
        x = plan.rows("x", self.token_embd.columns)
        plan.part = "embedding"
        embed(plan, ids, self.token_embd, x, self.embedding_scale)
        for layer in self.layers:
            layer.trace(plan, x)
        return x

    def head(self, plan: Plan, x: Activation) -> Activation:
        plan.part = "head"
        h, logits = plan.rows("head", x.columns), plan.rows("logits", self.output.rows)
        rms_norm(plan, x, self.output_norm.weight, self.output_norm.eps, h)
        matmul(plan, h, [(self.output, logits)])
        return logits


def refuse_unread(hyper: Hyper) -> None:
    """A tensor of a layer that nobody read would have changed what the model says."""
    blocks = tuple(f"blk.{i}." for i in range(hyper.layers))
    for name in hyper.file.tensors.keys() - hyper.file.used:
        if name.startswith(blocks):
            hyper.unsupported(
                f'"{name}" is no tensor of {hyper.arch} that qcli knows', "try another file of this model"
            )
