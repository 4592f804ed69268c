"""What decoder models are built of: norms, attention, decoder layers, and the model around these.

`read` takes the weights from a file, checked against the shapes that its hyperparameters give; `trace` adds to a plan what
computes the part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state import State
from qcli.layers.weights import linear, matrix, vector
from quant.kernels.attention import Heads, attention
from quant.kernels.block_mask import BlockMask
from quant.kernels.cap_logits import cap_logits
from quant.kernels.embed import embed
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.norm import add_rms_norm, rms_norm
from quant.kernels.rope import Rope
from quant.plan import Activation, Plan
from quant.weights import Matrix

Vector = NDArray[np.float32]
_SCALES = (".scale", ".input_scale")
_OTHER_TYPE = "get a file of another quantization: those called Q4_K_M, Q5_K_M, Q6_K or Q8_0 run, and most others"


class Sublayer(Protocol):
    """What is between two norms of a decoder layer: it mixes tokens (attention, DeltaNet, …) or is a feed-forward network."""

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """x += f(h), both [tokens, n]."""


@dataclass(frozen=True)
class Norm:
    """A root-mean-square norm; weight float32 [n]."""

    weight: Vector
    eps: float

    @classmethod
    def read(cls, hparams: Hyperparameters, name: str, factor: float = 1.0) -> Norm:
        """The tensor `name`.weight, times `factor`."""
        weight = vector(hparams.file, f"{name}.weight", hparams.hidden_size)
        return cls(weight * np.float32(factor), hparams.rms_norm_eps)

    def trace(self, plan: Plan, x: Activation, out: Activation) -> None:
        """x [tokens, n] -> out."""
        plan.part = "norms"
        rms_norm(plan, x, self.weight, self.eps, out)

    def add(self, plan: Plan, y: Activation, x: Activation, scale: float = 1.0) -> None:
        """x = scale * (x + norm of y), both [tokens, n]; y becomes zero."""
        plan.part = "norms"
        add_rms_norm(plan, y, self.weight, self.eps, x, scale)


@dataclass(frozen=True)
class Attention:
    """Attention with its projections of queries, keys, values and outputs, each with a bias where the file has one.

    Without a projection of values these are the keys as projected; without one of keys the layer has the caches of another.
    """

    attn_q: Matrix
    attn_k: Matrix | None
    attn_v: Matrix | None
    attn_output: Matrix
    heads: Heads
    rope: Rope | None
    scale: float
    attn_gate: Matrix | None = None  # of each column of what heads give

    @classmethod
    def read(
        cls, hparams: Hyperparameters, i: int, state: State, rope: Rope | None, *, norms: str = "",
        normed_last: bool = False, gated: bool = False, gate_apart: bool = False, biased: Sequence[str] = (),
        sinks: bool = False, window: int = 0, softcap: float = 0.0, score_scale: float = 0.0, scale: float = 1.0,
        fine: bool = False,
    ) -> Attention:  # fmt: skip
        """Layer i of a file.

        norms: "head" or "row" where queries and keys are normed, each head by itself or all heads together; gated: `attn_q`
        gives (query, gate) of each head; gate_apart: `attn_gate` gives the gates; biased: the projections that must have a
        bias (any may); scale: of the output; fine: see State.cache; for the others see Heads.
        """
        file, block, n = hparams.file, f"blk.{i}", hparams.hidden_size
        queries, keys, width, values = (
            hparams.num_attention_heads[i],
            hparams.num_key_value_heads[i],
            hparams.head_dim,
            hparams.v_head_dim,
        )
        if not queries or not keys:
            hparams.wrong(f"layer {i} has {queries} query and {keys} key-value heads")
        rows = queries * width * (2 if gated else 1), keys * width, keys * values
        matrices = *_projections(hparams, block, rows), linear(file, f"{block}.attn_output", n, queries * values)
        for part, weights in zip(("q", "k", "v", "output"), matrices, strict=True):
            if part in biased and weights.bias is None:
                file.tensor(f"{block}.attn_{part}.bias")  # missing
        spans = (queries * width, keys * width) if norms == "row" else (width, width)
        heads = Heads(
            query_heads=queries,
            key_value_heads=keys,
            head_dim=width,
            value_dim=values,
            k_cache=state.cache(keys, width, window, fine=fine),
            v_cache=state.cache(keys, values, window, fine=fine),
            norms=_head_norms(hparams, block, *spans) if norms else None,
            normed_last=normed_last,
            eps=hparams.rms_norm_eps,
            gated=gated,
            sinks=vector(file, f"{block}.attn_sinks.weight", queries) if sinks else None,
            window=window,
            softcap=softcap,
            scale=score_scale,
        )
        gate = linear(file, f"{block}.attn_gate", queries * values, n) if gate_apart else None
        return cls(*matrices, heads, rope, scale, gate)

    def trace(self, plan: Plan, h: Activation, x: Activation, mask: BlockMask | None = None) -> None:
        """x += scale * attention(h), both [tokens, n]; mask: the blocks of positions that tokens attend to, if not all."""
        plan.part = "attention"
        q = plan.activation("q", self.attn_q.rows)
        k = plan.activation("k", self.attn_k.rows) if self.attn_k else None
        v = plan.activation("v", self.attn_v.rows) if self.attn_v else None
        mixed = plan.activation("attention out", self.attn_output.columns)
        outputs = [(w, y) for w, y in ((self.attn_q, q), (self.attn_k, k), (self.attn_v, v)) if w and y]
        gates = plan.activation("attention gates", self.attn_gate.rows) if self.attn_gate else None
        if self.attn_gate and gates:
            outputs.append((self.attn_gate, gates))
        matmul(plan, h, outputs)
        attention(plan, q, k, v or k, self.rope, self.heads, mixed, mask, gates)
        add_matmul(plan, mixed, self.attn_output, x, self.scale)


def _head_norms(hparams: Hyperparameters, block: str, queries: int, keys: int) -> tuple[Vector, Vector]:
    """Weights of the norms of queries and of keys, float32 of these lengths."""
    q_norm = vector(hparams.file, f"{block}.attn_q_norm.weight", queries)
    return q_norm, vector(hparams.file, f"{block}.attn_k_norm.weight", keys)


def _projections(hparams: Hyperparameters, block: str, rows: tuple[int, int, int]) -> tuple[Matrix, Matrix, Matrix]:
    """The projections of queries, keys and values, of so many rows; some files have all three in one tensor."""
    file, n, fused = hparams.file, hparams.hidden_size, f"{block}.attn_qkv"
    if f"{fused}.weight" not in file.tensors:
        q, k, v = (linear(file, f"{block}.attn_{part}", count, n) for part, count in zip("qkv", rows, strict=True))
        return q, k, v
    whole, (to_k, to_v) = linear(file, fused, sum(rows), n), (rows[0], rows[0] + rows[1])
    return whole.part(0, to_k), whole.part(to_k, to_v), whole.part(to_v, whole.rows)


class Layer(Protocol):
    """A layer of a decoder."""

    def trace(self, plan: Plan, x: Activation) -> None:
        """Change x [tokens, n], the residual stream."""


@dataclass(frozen=True)
class DecoderLayer:
    """x += mixer(norm(x)), then x += ffn(norm(x)); with post-norms, what a sublayer gives is normed before it is added."""

    attn_norm: Norm
    mixer: Sublayer
    ffn_norm: Norm
    ffn: Sublayer
    post_attention_norm: Norm | None = None
    post_ffw_norm: Norm | None = None

    def trace(self, plan: Plan, x: Activation) -> None:
        """Change x [tokens, n], the residual stream."""
        add_sublayer(plan, x, self.attn_norm, self.mixer, self.post_attention_norm)
        add_sublayer(plan, x, self.ffn_norm, self.ffn, self.post_ffw_norm)


def add_sublayer(plan: Plan, x: Activation, norm: Norm, sublayer: Sublayer, post: Norm | None) -> None:
    """x += post(sublayer(norm(x))), all [tokens, n]; post: no norm where it is None."""
    h = plan.activation("h", x.columns)
    norm.trace(plan, x, h)
    if post is None:
        sublayer.trace(plan, h, x)
        return
    added = plan.activation("added", x.columns)  # zero before and after
    sublayer.trace(plan, h, added)
    post.add(plan, added, x)


@dataclass(frozen=True)
class Decoder:
    """A whole model: token_embd -> layers -> output_norm -> output; softcap: what logits are held within, unless it is 0."""

    token_embd: Matrix
    layers: tuple[Layer, ...]
    output_norm: Norm
    output: Matrix
    embedding_scale: float
    softcap: float

    @classmethod
    def read(
        cls, hparams: Hyperparameters, layers: Iterable[Layer], *, embedding_scale: float = 1.0, logit_scale: float = 1.0,
        norm: str = "output_norm",
    ) -> Decoder:  # fmt: skip
        """What is around the layers; where the file has no `output` it is tied to the embedding; norm: name of the last."""
        file, n = hparams.file, hparams.hidden_size
        vocab = file.tensor("token_embd.weight").shape[0]
        table = matrix(file, "token_embd.weight", vocab, n)
        every = tuple(layers)
        output = linear(file, "output", vocab, n) if "output.weight" in file.tensors else table
        refuse_unread_tensors(hparams)
        return cls(
            token_embd=table,
            layers=every,
            output_norm=Norm.read(hparams, norm, logit_scale),
            output=output,
            embedding_scale=embedding_scale,
            softcap=hparams.number("final_logit_softcapping", 0, 1e6, 0.0),
        )

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""
        return self.token_embd.rows

    def trunk(self, plan: Plan, ids: NDArray[np.int64]) -> Activation:
        """ids [tokens] -> the residual stream after the last layer, [tokens, n]."""
        x = self.embed(plan, ids)
        self.through_layers(plan, x)
        return x

    def through_layers(self, plan: Plan, x: Activation) -> None:
        """Change x [tokens, n], the residual stream, by all layers."""
        for layer in self.layers:
            layer.trace(plan, x)

    def embed(self, plan: Plan, ids: NDArray[np.int64]) -> Activation:
        """ids [tokens] -> the residual stream before the first layer, [tokens, n]."""
        x = plan.activation("x", self.token_embd.columns)
        plan.part = "embedding"
        embed(plan, ids, self.token_embd, x, self.embedding_scale)
        return x

    def head(self, plan: Plan, x: Activation) -> Activation:
        """x [tokens, n] -> logits [tokens, vocab]; the last token's alone where the plan takes one."""
        plan.part = "head"
        h, logits = plan.activation("head", x.columns), plan.activation("logits", self.output.rows)
        rms_norm(plan, x, self.output_norm.weight, self.output_norm.eps, h)
        matmul(plan, h, [(self.output, logits)])
        if self.softcap:
            cap_logits(plan, logits, self.softcap)
        return logits


def refuse_unread_tensors(hparams: Hyperparameters) -> None:
    """UnsupportedModelError if the file has a tensor of a layer that was not read: the model would compute something else.

    So it would without a scale of the head's weights.
    """
    blocks = tuple(f"blk.{i}." for i in range(hparams.num_hidden_layers))
    for name in sorted(hparams.file.tensors.keys() - hparams.file.used):
        if name.endswith(_SCALES) and name.startswith((*blocks, "output.")):
            hparams.unsupported(f'"{name}" scales a tensor in a way that qcli cannot do', _OTHER_TYPE)
        if name.startswith(blocks):
            hparams.unsupported(f'"{name}" is no tensor of {hparams.arch} that qcli knows')
