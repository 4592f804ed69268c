"""DeepSeek-V2, V3 (arXiv 2405.04434, 2412.19437), GLM-4.7-Flash: multi-head latent attention, experts from the best groups.

Keys and values of all heads are made from one compressed row a token. Older files have the matrix that makes them
(`attn_kv_b`): keys and values of every head are cached. Others have its two halves, `attn_k_b` (transposed) and `attn_v_b`:
the first is multiplied with queries, the second with what attention gives, so that the cache holds the compressed rows
alone, one key and one value for all heads. The rotary part of queries and keys goes first here, last in files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Protocol

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder, DecoderLayer, Norm, Vector
from qcli.layers.feed_forward import dense_then_moe, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.mtp import with_mtp
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from qcli.layers.weights import experts, linear, vector
from quant.kernels import kv_cache
from quant.kernels.attention import Heads, attention
from quant.kernels.columns import place, quantize, rows_of_heads
from quant.kernels.head_gates import gate_heads
from quant.kernels.head_matmul import head_matmul
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.norm import rms_norm
from quant.kernels.rope import Rope
from quant.plan import Activation, Plan
from quant.weights import ExpertMatrices, Matrix

VERIFIED: Final = (
    "logits within 5e-6 of float32 references of V2, V2-Lite, V3 and GLM-4.7-Flash (tiny random weights) "
    "with --kv-type f32, 2.3e-4 with f16; greedy text exact"
)
_COMPRESSED_EPS: Final = 1e-6  # of norms of compressed rows, whatever the config says (GLM, Kimi Linear: 1e-5)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    shape, (rope, scale) = Shape.read(hparams), rope_and_scale(hparams)
    dense = hparams.count("leading_dense_block_count")
    by_bias = f"blk.{dense}.exp_probs_b.bias" in file.tensors  # files that do not say: a bias comes with sigmoid scores
    routing = read_routing(hparams, scores="sigmoid" if by_bias else "softmax")
    shared = hparams.count("expert_shared_count") * hparams.size("expert_feed_forward_length")

    def layer(hparams: Hyperparameters, i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=LatentAttention.read(hparams, i, state, shape, rope, scale),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=dense_then_moe(hparams, i, state, routing, shared),
        )

    model = Decoder.read(hparams, (layer(hparams, i) for i in range(hparams.num_hidden_layers)))
    return with_mtp(model, hparams, state, layer)


def rope_and_scale(hparams: Hyperparameters) -> tuple[Rope, float]:
    """RoPE, and what scores are multiplied by beside 1 / sqrt(width).

    YaRN's factor is applied to queries and keys, unless the file says that it is applied to the scores instead (as
    Transformers does where `mscale` and `mscale_all_dim` are the same).
    """
    if hparams.has("attention.temperature_scale"):
        hparams.unsupported("attention whose temperature depends on the position is not supported")
    rope = read_rope(hparams, head_dim=hparams.size("rope.dimension_count"), interleaved=True)
    multiplier = 10 * hparams.number("rope.scaling.yarn_log_multiplier", 0, 100, 0.0)  # stored as a tenth
    if not multiplier or hparams.text("rope.scaling.type", "none") != "yarn":
        return rope, 1.0
    mscale = 1 + 0.1 * multiplier * math.log(max(1.0, hparams.number("rope.scaling.factor", 0, 1e6, 1.0)))
    return replace(rope, attention_factor=1.0), mscale**2


@dataclass(frozen=True)
class Shape:
    """Widths of the heads: of the part of queries and keys with RoPE, of that without, of values; and of compressed rows."""

    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int
    kv_lora_rank: int

    @classmethod
    def read(cls, hparams: Hyperparameters) -> Shape:
        """From the keys of a file: those that end in `_mla` are there where heads share keys and values."""
        rotary, rank = hparams.size("rope.dimension_count"), hparams.size("attention.kv_lora_rank")
        suffix = "_mla" if hparams.has("attention.key_length_mla") else ""
        key, value = hparams.size(f"attention.key_length{suffix}"), hparams.size(f"attention.value_length{suffix}")
        if rotary >= key:
            hparams.wrong(f"heads of {key} with {rotary} rotary dimensions")
        return cls(rotary, key - rotary, value, rank)

    @property
    def qk_head_dim(self) -> int:
        """The width of a query and of a key."""
        return self.qk_rope_head_dim + self.qk_nope_head_dim


class AttentionCore(Protocol):
    """From queries and compressed rows to the outputs of the heads."""

    def trace(self, plan: Plan, q: Activation, k_rope: Activation, kv: Activation, out: Activation) -> None:
        """q [tokens, heads, (nope, rope)], k_rope [tokens, rope], kv [tokens, kv_lora_rank] -> out [tokens, heads * value]."""


@dataclass(frozen=True)
class NaiveAttention:
    """Every head has keys and values of its own, made from the compressed rows before they are cached."""

    attn_kv_b: Matrix
    heads: Heads
    rope: Rope | None
    shape: Shape

    @classmethod
    def read(
        cls, hparams: Hyperparameters, i: int, state: State, shape: Shape, rope: Rope | None, scale: float
    ) -> NaiveAttention:
        """Layer i of a file; scale: of the scores."""
        s, heads = shape, hparams.num_attention_heads[i]
        rows = heads * (s.qk_nope_head_dim + s.v_head_dim)
        key = state.cache(heads, s.qk_head_dim, fine=True, first=s.qk_rope_head_dim)
        value = state.cache(heads, s.v_head_dim, fine=True)
        return cls(
            attn_kv_b=linear(hparams.file, f"blk.{i}.attn_kv_b", rows, s.kv_lora_rank),
            heads=Heads(heads, heads, s.qk_head_dim, s.v_head_dim, key, value, scale=scale, first=s.qk_rope_head_dim),
            rope=rope,
            shape=shape,
        )

    def trace(self, plan: Plan, q: Activation, k_rope: Activation, kv: Activation, out: Activation) -> None:
        """See `AttentionCore`."""
        s, heads = self.shape, self.heads.query_heads
        rope, nope, value_dim = s.qk_rope_head_dim, s.qk_nope_head_dim, s.v_head_dim
        both = plan.activation("keys and values", self.attn_kv_b.rows)
        query, key = (
            plan.activation("queries of heads", heads * s.qk_head_dim),
            plan.activation("keys of heads", heads * s.qk_head_dim),
        )
        value = plan.activation("values of heads", heads * value_dim)
        matmul(plan, kv, [(self.attn_kv_b, both)])
        place(plan, q, heads, nope, rope, query, 0)
        place(plan, q, heads, 0, nope, query, rope)
        place(plan, k_rope, heads, 0, rope, key, 0, shared=True)
        place(plan, both, heads, 0, nope, key, rope)
        place(plan, both, heads, nope, value_dim, value, 0)
        attention(plan, query, key, value, self.rope, self.heads, out)


@dataclass(frozen=True)
class AbsorbedAttention:
    """All heads share the compressed rows as keys and values; matrices of each head are applied to its queries and outputs."""

    attn_k_b: ExpertMatrices  # of each head [kv_lora_rank, nope]
    attn_v_b: ExpertMatrices  # of each head [value, kv_lora_rank]
    heads: Heads
    rope: Rope | None
    shape: Shape

    @classmethod
    def read(
        cls, hparams: Hyperparameters, i: int, state: State, shape: Shape, rope: Rope | None, scale: float
    ) -> AbsorbedAttention:
        """Layer i of a file; scale: of the scores."""
        file, heads, s = hparams.file, hparams.num_attention_heads[i], shape
        width, rank = s.qk_rope_head_dim + s.kv_lora_rank, s.kv_lora_rank
        key = state.cache(1, width, fine=True, first=s.qk_rope_head_dim)
        part = key[:, :, s.qk_rope_head_dim :][:, :, : kv_cache.row_shape(kv_cache.kind_of(key), rank)[0]]  # of the key
        value = state.cache(1, rank) if state.kv_type == "q8_0" else part
        return cls(
            attn_k_b=experts(file, f"blk.{i}.attn_k_b.weight", heads, rank, s.qk_nope_head_dim),
            attn_v_b=experts(file, f"blk.{i}.attn_v_b.weight", heads, s.v_head_dim, rank),
            heads=Heads(heads, 1, width, rank, key, value, scale=scale, first=s.qk_rope_head_dim),
            rope=rope,
            shape=shape,
        )

    def trace(self, plan: Plan, q: Activation, k_rope: Activation, kv: Activation, out: Activation) -> None:
        """See `AttentionCore`."""
        s, heads, width = self.shape, self.heads.query_heads, self.heads.head_dim
        rope, nope, rank = s.qk_rope_head_dim, s.qk_nope_head_dim, s.kv_lora_rank
        query, key = plan.activation("latent queries", heads * width), plan.activation("latent key", width)
        q_nope, attended = (
            plan.activation("nope query", nope, plan.tokens * heads),
            plan.activation("latent attended", heads * rank),
        )
        by_head = plan.activation("latent attended by head", rank, plan.tokens * heads)
        rows_of_heads(plan, q, heads, 0, nope, q_nope)
        place(plan, q, heads, nope, rope, query, 0)
        head_matmul(plan, q_nope, self.attn_k_b, query, rope)
        place(plan, k_rope, 1, 0, rope, key, 0)
        place(plan, kv, 1, 0, rank, key, rope)
        attention(plan, query, key, kv, self.rope, self.heads, attended)
        rows_of_heads(plan, attended, heads, 0, rank, by_head)
        head_matmul(plan, by_head, self.attn_v_b, out)
        quantize(plan, out)


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention: the projections of a layer, and one of the two ways between them.

    Queries may be made from a compressed row of their own (`attn_q_a`, then a norm, then `attn_q`).
    """

    attn_q_a: Matrix | None
    attn_q_a_norm: Vector | None
    attn_q: Matrix
    kv_a_rows: Matrix  # of attn_kv_a_mqa: those of the compressed row
    k_rope_rows: Matrix  # of attn_kv_a_mqa: those of the keys' rotary part, which all heads share
    attn_kv_a_norm: Vector
    attn_output: Matrix
    core: AttentionCore
    attn_gate: Matrix | None = None  # a gate of each head

    @classmethod
    def read(
        cls, hparams: Hyperparameters, i: int, state: State, shape: Shape, rope: Rope | None, scale: float = 1.0,
        *, gated: bool = False,
    ) -> LatentAttention:  # fmt: skip
        """Layer i of a file; scale: of the scores, beside 1 / sqrt(width); gated: outputs are, by a sigmoid for each head."""
        file, block, n, heads = hparams.file, f"blk.{i}", hparams.hidden_size, hparams.num_attention_heads[i]
        compressed = f"{block}.attn_q_a.weight" in file.tensors
        q_rank, kv_rank = hparams.size("attention.q_lora_rank") if compressed else n, shape.kv_lora_rank
        both = linear(file, f"{block}.attn_kv_a_mqa", kv_rank + shape.qk_rope_head_dim, n)
        core = AbsorbedAttention if f"{block}.attn_k_b.weight" in file.tensors else NaiveAttention
        file.used.add(f"{block}.attn_kv_b.weight")  # some files have it beside its halves
        return cls(
            attn_q_a=linear(file, f"{block}.attn_q_a", q_rank, n) if compressed else None,
            attn_q_a_norm=vector(file, f"{block}.attn_q_a_norm.weight", q_rank) if compressed else None,
            attn_q=linear(file, f"{block}.attn_q{'_b' if compressed else ''}", heads * shape.qk_head_dim, q_rank),
            kv_a_rows=both.part(0, kv_rank),
            k_rope_rows=both.part(kv_rank, both.rows),
            attn_kv_a_norm=vector(file, f"{block}.attn_kv_a_norm.weight", kv_rank),
            attn_output=linear(file, f"{block}.attn_output", n, heads * shape.v_head_dim),
            core=core.read(hparams, i, state, shape, rope, scale / math.sqrt(shape.qk_head_dim)),
            attn_gate=linear(file, f"{block}.attn_gate", heads, n) if gated else None,
        )

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """x [tokens, n] += attention(h [tokens, n])."""
        plan.part = "attention"
        q, mixed = plan.activation("q", self.attn_q.rows), plan.activation("attention out", self.attn_output.columns)
        kv_a, kv = plan.activation("kv_a", self.kv_a_rows.rows), plan.activation("kv_a normed", self.kv_a_rows.rows)
        k_rope = plan.activation("k_rope", self.k_rope_rows.rows)
        outputs = [(self.kv_a_rows, kv_a), (self.k_rope_rows, k_rope)]
        if self.attn_gate:
            outputs.append((self.attn_gate, plan.activation("gates of heads", self.attn_gate.rows)))
        if self.attn_q_a is None or self.attn_q_a_norm is None:
            matmul(plan, h, [(self.attn_q, q), *outputs])
        else:
            q_a, normed = plan.activation("q_a", self.attn_q_a.rows), plan.activation("q_a normed", self.attn_q_a.rows)
            matmul(plan, h, [(self.attn_q_a, q_a), *outputs])
            rms_norm(plan, q_a, self.attn_q_a_norm, _COMPRESSED_EPS, normed)
            matmul(plan, normed, [(self.attn_q, q)])
        rms_norm(plan, kv_a, self.attn_kv_a_norm, _COMPRESSED_EPS, kv)
        if self.attn_gate:
            whole = plan.activation("attention before gates", mixed.columns)
            self.core.trace(plan, q, k_rope, kv, whole)
            gate_heads(plan, whole, plan.activation("gates of heads", self.attn_gate.rows), mixed)
        else:
            self.core.trace(plan, q, k_rope, kv, mixed)
        add_matmul(plan, mixed, self.attn_output, x)
