"""DeepSeek-V2, V3 (arXiv 2405.04434, 2412.19437), GLM-4.7-Flash: multi-head latent attention, experts from the best groups.

Keys and values of all heads come from one short latent row, which is what the cache holds. Files have the matrix that makes
them (`attn_kv_b`, older), or its two halves: `attn_k_b`, turned over to meet queries instead of latents, and `attn_v_b`,
which meets what attention gives, so that all heads share one key and one value. Lanes that turn go first here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Protocol

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder, Layer, Norm, Vector
from qcli.layers.feed_forward import dense_then_routed, routing
from qcli.layers.hyperparameters import Hyper
from qcli.layers.rotary import rotary
from qcli.layers.state import State
from qcli.layers.weights import experts, linear, vector
from quant.kernels.attention import Heads, attention
from quant.kernels.columns import place, quantize, rows_of_heads
from quant.kernels.head_matmul import head_matmul
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.norm import rms_norm
from quant.kernels.rope import Rope
from quant.plan import Activation, Plan
from quant.weights import Experts, Matrix

VERIFIED: Final = (
    "logits within 1e-3 of a plain float64 model in tiny random shapes of V2, V2-Lite, V3 and GLM-4.7-Flash; "
    "llama.cpp is within 4e-6 of that model for the last two"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hyper = Hyper(file)
    shape, (rope, scale) = Shape.read(hyper), _turning(hyper)
    dense = hyper.count("leading_dense_block_count")
    by_bias = f"blk.{dense}.exp_probs_b.bias" in file.tensors  # files that do not say: a bias comes with sigmoid scores
    choice = routing(hyper, scores="sigmoid" if by_bias else "softmax")
    shared = hyper.count("expert_shared_count") * hyper.size("expert_feed_forward_length")

    def layer(i: int) -> Layer:
        return Layer(
            attn_norm=Norm.read(hyper, f"blk.{i}.attn_norm"),
            mixer=LatentAttention.read(hyper, i, state, shape, rope, scale),
            ffn_norm=Norm.read(hyper, f"blk.{i}.ffn_norm"),
            ffn=dense_then_routed(hyper, i, state, choice, shared),
        )

    return Decoder.read(hyper, map(layer, range(hyper.layers)))


def _turning(hyper: Hyper) -> tuple[Rope, float]:
    """How heads turn, and what scores are multiplied with beside 1 / sqrt(width).

    YaRN enlarges queries and keys, unless the file says that it enlarges the scores instead (as Transformers does where
    `mscale` and `mscale_all_dim` are the same).
    """
    if hyper.has("attention.temperature_scale"):
        hyper.unsupported("attention whose temperature depends on the position is not supported", "try another model")
    rope = rotary(hyper, width=hyper.size("rope.dimension_count"), interleaved=True)
    multiplier = 10 * hyper.number("rope.scaling.yarn_log_multiplier", 0, 100, 0.0)  # stored as a tenth
    if not multiplier or hyper.text("rope.scaling.type", "none") != "yarn":
        return rope, 1.0
    stretched = 1 + 0.1 * multiplier * math.log(max(1.0, hyper.number("rope.scaling.factor", 0, 1e6, 1.0)))
    return replace(rope, magnitude=1.0), stretched**2


@dataclass(frozen=True)
class Shape:
    """Widths of the heads: lanes that turn, lanes that do not, and the value; and of the latent row."""

    turning: int
    plain: int
    value: int
    latent: int

    @classmethod
    def read(cls, hyper: Hyper) -> Shape:
        turning, latent = hyper.size("rope.dimension_count"), hyper.size("attention.kv_lora_rank")
        suffix = "_mla" if hyper.has("attention.key_length_mla") else ""
        key, value = hyper.size(f"attention.key_length{suffix}"), hyper.size(f"attention.value_length{suffix}")
        if turning >= key:
            hyper.wrong(f"heads of {key} with {turning} turning dimensions")
        return cls(turning, key - turning, value, latent)

    @property
    def key(self) -> int:
        """The width of a query and of a key."""
        return self.turning + self.plain


class KeysAndValues(Protocol):
    """What makes of queries and latents what attention meets."""

    def trace(self, plan: Plan, q: Activation, turning: Activation, latent: Activation, out: Activation) -> None:
        """q [tokens, heads, (plain, turning)], turning, latent [tokens, …] -> out [tokens, heads * value]."""


@dataclass(frozen=True)
class Apart:
    """Every head has keys and values of its own, made from the latents."""

    attn_kv_b: Matrix
    heads: Heads
    rope: Rope
    shape: Shape

    @classmethod
    def read(cls, hyper: Hyper, i: int, state: State, shape: Shape, rope: Rope, scale: float) -> Apart:
        heads = hyper.queries[i]
        key, value = state.cache(heads, shape.key), state.cache(heads, shape.value)
        shared = Heads(heads, heads, shape.key, key, value, shape.value, scale=scale)
        return cls(
            linear(hyper.file, f"blk.{i}.attn_kv_b", heads * (shape.plain + shape.value), shape.latent),
            shared,
            rope,
            shape,
        )

    def trace(self, plan: Plan, q: Activation, turning: Activation, latent: Activation, out: Activation) -> None:
        s, heads = self.shape, self.heads.queries
        both = plan.rows("latent keys and values", self.attn_kv_b.rows)
        query, key = plan.rows("turned query", heads * s.key), plan.rows("turned key", heads * s.key)
        value = plan.rows("latent value", heads * s.value)
        matmul(plan, latent, [(self.attn_kv_b, both)])
        place(plan, q, heads, s.plain, s.turning, query, 0)
        place(plan, q, heads, 0, s.plain, query, s.turning)
        place(plan, turning, heads, 0, s.turning, key, 0, shared=True)
        place(plan, both, heads, 0, s.plain, key, s.turning)
        place(plan, both, heads, s.plain, s.value, value, 0)
        attention(plan, query, key, value, self.rope, self.heads, out)


@dataclass(frozen=True)
class Absorbed:
    """All heads share the latents as key and as value; each has a matrix for its queries, and one for what it gets."""

    attn_k_b: Experts
    attn_v_b: Experts
    heads: Heads
    rope: Rope
    shape: Shape

    @classmethod
    def read(cls, hyper: Hyper, i: int, state: State, shape: Shape, rope: Rope, scale: float) -> Absorbed:
        file, heads, s = hyper.file, hyper.queries[i], shape
        key = state.cache(1, s.turning + s.latent)
        value = key[:, :, s.turning :] if state.kv_type == "f16" else state.cache(1, s.latent)  # a part of the key
        return cls(
            attn_k_b=experts(file, f"blk.{i}.attn_k_b.weight", heads, s.latent, s.plain),
            attn_v_b=experts(file, f"blk.{i}.attn_v_b.weight", heads, s.value, s.latent),
            heads=Heads(heads, 1, s.turning + s.latent, key, value, s.latent, scale=scale),
            rope=rope,
            shape=shape,
        )

    def trace(self, plan: Plan, q: Activation, turning: Activation, latent: Activation, out: Activation) -> None:
        s, heads, width = self.shape, self.heads.queries, self.heads.width
        query, key = plan.rows("latent query", heads * width), plan.rows("latent key", width)
        plain, met = plan.rows("plain query", s.plain, plan.tokens * heads), plan.rows("latent met", heads * s.latent)
        given = plan.rows("latent given", s.latent, plan.tokens * heads)
        rows_of_heads(plan, q, heads, 0, s.plain, plain)
        place(plan, q, heads, s.plain, s.turning, query, 0)
        head_matmul(plan, plain, self.attn_k_b, query, s.turning)
        place(plan, turning, 1, 0, s.turning, key, 0)
        place(plan, latent, 1, 0, s.latent, key, s.turning)
        attention(plan, query, key, latent, self.rope, self.heads, met)
        rows_of_heads(plan, met, heads, 0, s.latent, given)
        head_matmul(plan, given, self.attn_v_b, out)
        quantize(plan, out)


@dataclass(frozen=True)
class LatentAttention:
    """Queries, by way of a short row of their own or not; latents; and one of the two ways from there."""

    attn_q_a: Matrix | None
    attn_q_a_norm: Vector | None
    attn_q: Matrix
    latent_rows: Matrix
    turning_rows: Matrix
    attn_kv_a_norm: Vector
    attn_output: Matrix
    inner: KeysAndValues
    eps: float

    @classmethod
    def read(cls, hyper: Hyper, i: int, state: State, shape: Shape, rope: Rope, scale: float) -> LatentAttention:
        """Layer i of a file."""
        file, block, n, heads = hyper.file, f"blk.{i}", hyper.hidden_size, hyper.queries[i]
        short = f"{block}.attn_q_a.weight" in file.tensors
        rank = hyper.size("attention.q_lora_rank") if short else n
        both = linear(file, f"{block}.attn_kv_a_mqa", shape.latent + shape.turning, n)
        inner = Absorbed if f"{block}.attn_k_b.weight" in file.tensors else Apart
        file.used.add(f"{block}.attn_kv_b.weight")  # some files have it beside its halves
        return cls(
            attn_q_a=linear(file, f"{block}.attn_q_a", rank, n) if short else None,
            attn_q_a_norm=vector(file, f"{block}.attn_q_a_norm.weight", rank) if short else None,
            attn_q=linear(file, f"{block}.attn_q_b" if short else f"{block}.attn_q", heads * shape.key, rank),
            latent_rows=both.part(0, shape.latent),
            turning_rows=both.part(shape.latent, both.rows),
            attn_kv_a_norm=vector(file, f"{block}.attn_kv_a_norm.weight", shape.latent),
            attn_output=linear(file, f"{block}.attn_output", n, heads * shape.value),
            inner=inner.read(hyper, i, state, shape, rope, scale / math.sqrt(shape.key)),
            eps=hyper.rms_norm_eps,
        )

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        plan.part = "attention"
        q, mixed = plan.rows("q", self.attn_q.rows), plan.rows("attention out", self.attn_output.columns)
        raw, latent = plan.rows("raw latent", self.latent_rows.rows), plan.rows("latent", self.latent_rows.rows)
        turning = plan.rows("turning", self.turning_rows.rows)
        outputs = [(self.latent_rows, raw), (self.turning_rows, turning)]
        if self.attn_q_a is None or self.attn_q_a_norm is None:
            matmul(plan, h, [(self.attn_q, q), *outputs])
        else:
            short, normed = plan.rows("raw q", self.attn_q_a.rows), plan.rows("short q", self.attn_q_a.rows)
            matmul(plan, h, [(self.attn_q_a, short), *outputs])
            rms_norm(plan, short, self.attn_q_a_norm, self.eps, normed)
            matmul(plan, normed, [(self.attn_q, q)])
        rms_norm(plan, raw, self.attn_kv_a_norm, self.eps, latent)
        self.inner.trace(plan, q, turning, latent, mixed)
        add_matmul(plan, mixed, self.attn_output, x)
