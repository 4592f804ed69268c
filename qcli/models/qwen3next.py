"""Qwen3-Next: three Gated DeltaNet layers to one of gated attention, each followed by routed experts and a shared one.

A token's life: token_embd -> (attn_norm -> mixer -> + -> post_attention_norm -> router -> experts -> +) x layers
-> output_norm -> output. Weights are named as in GGUF, hyperparameters as in Hugging Face configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf_file import GGUFFile
from qcli.state import State
from qcli.tensors import experts, gate_up_experts, matrix, one_expert, vector, with_rows
from quant.kernels import rope
from quant.kernels.attention import Heads, gated_attention
from quant.kernels.delta_net import DeltaNet, delta_net_step
from quant.kernels.delta_net_chunk import delta_net_chunk
from quant.kernels.embed import embed
from quant.kernels.experts import ExpertLayer, experts_step
from quant.kernels.experts_grouped import experts_grouped
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.norm import rms_norm
from quant.plan import Activation, Plan
from quant.weights import Experts, Matrix

Vector = NDArray[np.float32]

VERIFIED: Final = (
    "logits within 3.5e-5 of float32 Transformers (tiny random weights), within 9.5e-5 (storyteller); "
    "greedy and chat text exact"
)


@dataclass(frozen=True)
class Config:
    """Hyperparameters; a layer's MTP block, if the file has one, is not part of the trunk."""

    hidden_size: int
    recurrent: tuple[bool, ...]  # a layer: DeltaNet or attention
    rms_norm_eps: float
    rope_theta: float
    rotary_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: tuple[int, ...]  # of each layer
    shared_expert_intermediate_size: int
    expert_weights_scale: float

    @classmethod
    def read(cls, file: GGUFFile) -> Config:
        arch = file.get_str("general.architecture")

        def size(key: str, default: int | None = None) -> int:
            value = file.get_int(f"{arch}.{key}", *(() if default is None else (default,)))
            if not 0 < value < 1 << 31:
                raise ModelFileError(f'{file.path}: the key "{arch}.{key}" is {value}', "download the model again")
            return value

        def number(key: str, low: float, high: float, default: float | None = None) -> float:
            value = file.get_float(f"{arch}.{key}", *(() if default is None else (default,)))
            if not low <= value <= high:
                raise ModelFileError(f'{file.path}: the key "{arch}.{key}" is {value:g}', "download the model again")
            return value

        layers = size("block_count") - file.get_int(f"{arch}.nextn_predict_layers", 0)
        if not 0 < layers <= 1024:
            raise ModelFileError(f"{file.path}: {layers} layers", "download the model again")
        if file.get_str(f"{arch}.rope.scaling.type", "none") != "none":
            raise UnsupportedModelError(f"{file.path}: a scaled RoPE is not supported", "get the file without YaRN")
        heads, keys = size("attention.head_count"), size("attention.head_count_kv")
        value_heads, key_heads = size("ssm.time_step_rank"), size("ssm.group_count")
        if heads % keys or value_heads % key_heads or size("ssm.inner_size") % value_heads:
            raise ModelFileError(f"{file.path}: heads do not divide into groups", "download the model again")
        scale = number("expert_weights_scale", -1e6, 1e6, 0.0)
        return cls(
            hidden_size=size("embedding_length"),
            recurrent=_recurrent_layers(file, arch, layers),
            rms_norm_eps=number("attention.layer_norm_rms_epsilon", 0, 1),
            rope_theta=number("rope.freq_base", 1, 1e30),
            rotary_dim=size("rope.dimension_count"),
            num_attention_heads=heads,
            num_key_value_heads=keys,
            head_dim=_head_dim(file, arch),
            linear_num_key_heads=key_heads,
            linear_num_value_heads=value_heads,
            linear_key_head_dim=size("ssm.state_size"),
            linear_value_head_dim=size("ssm.inner_size") // value_heads,
            linear_conv_kernel_dim=size("ssm.conv_kernel"),
            num_experts=size("expert_count"),
            num_experts_per_tok=size("expert_used_count"),
            moe_intermediate_size=_widths(file, f"{arch}.expert_feed_forward_length", layers),
            shared_expert_intermediate_size=size("expert_shared_feed_forward_length"),
            expert_weights_scale=scale or 1.0,
        )

    @property
    def share(self) -> int:
        """Value heads that share a key head."""
        return self.linear_num_value_heads // self.linear_num_key_heads

    @property
    def key_columns(self) -> int:
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_columns(self) -> int:
        return self.linear_num_value_heads * self.linear_value_head_dim


def _recurrent_layers(file: GGUFFile, arch: str, layers: int) -> tuple[bool, ...]:
    interval = file.get_int(f"{arch}.full_attention_interval", 4)
    flags = file.get_ints(f"{arch}.attention.recurrent_layers", [])
    if flags and len(flags) >= layers:
        return tuple(bool(flag) for flag in flags[:layers])
    if flags or interval < 1:
        raise ModelFileError(
            f"{file.path}: which of {layers} layers are recurrent is unclear", "download the model again"
        )
    return tuple((i + 1) % interval != 0 for i in range(layers))


def _widths(file: GGUFFile, key: str, layers: int) -> tuple[int, ...]:
    widths = file.get_ints(key)
    widths = widths * layers if len(widths) == 1 else widths
    if len(widths) < layers or min(widths) < 1:
        raise ModelFileError(
            f'{file.path}: "{key}" does not give a width for {layers} layers', "download the model again"
        )
    return tuple(widths[:layers])


def _head_dim(file: GGUFFile, arch: str) -> int:
    width = file.get_int(f"{arch}.attention.key_length")
    rotary = file.get_int(f"{arch}.rope.dimension_count")
    if width != file.get_int(f"{arch}.attention.value_length", width) or not 0 < rotary <= width or rotary % 2:
        raise ModelFileError(
            f"{file.path}: heads of {width} with {rotary} turning dimensions", "download the model again"
        )
    return width


@dataclass(frozen=True)
class Attention:
    """The weights of one attention mixer."""

    attn_q: Matrix
    attn_k: Matrix
    attn_v: Matrix
    attn_q_norm: Vector
    attn_k_norm: Vector
    attn_output: Matrix
    heads: Heads

    @classmethod
    def read(cls, file: GGUFFile, block: str, c: Config, state: State) -> Attention:
        n, width = c.hidden_size, c.head_dim
        queries, keys = c.num_attention_heads, c.num_key_value_heads
        return cls(
            attn_q=matrix(file, f"{block}.attn_q.weight", 2 * queries * width, n),
            attn_k=matrix(file, f"{block}.attn_k.weight", keys * width, n),
            attn_v=matrix(file, f"{block}.attn_v.weight", keys * width, n),
            attn_q_norm=vector(file, f"{block}.attn_q_norm.weight", width),
            attn_k_norm=vector(file, f"{block}.attn_k_norm.weight", width),
            attn_output=matrix(file, f"{block}.attn_output.weight", n, queries * width),
            heads=Heads(queries, keys, width, state.cache(keys, width), state.cache(keys, width)),
        )

    def trace(self, plan: Plan, h: Activation, eps: float, turns: Vector, x: Activation) -> None:
        plan.part = "attention"
        q_gate = plan.rows("q_gate", self.attn_q.rows)
        k, v = plan.rows("k", self.attn_k.rows), plan.rows("v", self.attn_v.rows)
        mixed = plan.rows("attention out", self.attn_output.columns)
        matmul(plan, h, [(self.attn_q, q_gate), (self.attn_k, k), (self.attn_v, v)])
        gated_attention(plan, q_gate, k, v, (self.attn_q_norm, self.attn_k_norm), eps, turns, self.heads, mixed)
        add_matmul(plan, mixed, self.attn_output, x)


@dataclass(frozen=True)
class LinearAttention:
    """The weights of one Gated DeltaNet mixer."""

    attn_qkv: Matrix
    attn_gate: Matrix
    ssm_beta: Matrix
    ssm_alpha: Matrix
    ssm_out: Matrix
    net: DeltaNet

    @classmethod
    def read(cls, file: GGUFFile, block: str, c: Config, state: State) -> LinearAttention:
        heads, channels = c.linear_num_value_heads, 2 * c.key_columns + c.value_columns
        qkv, gate = _read_qkv(file, block, c)
        ba = matrix(file, f"{block}.ssm_ba.weight", 2 * heads, c.hidden_size)
        beta = np.arange(2 * heads).reshape(-1, 2, c.share)  # a key head: its value heads' beta, then their alpha
        conv = vector(file, f"{block}.ssm_conv1d.weight", channels, c.linear_conv_kernel_dim)
        state_shape = heads, c.linear_value_head_dim // 16, c.linear_key_head_dim, 16
        net = DeltaNet(
            key_heads=c.linear_num_key_heads,
            value_heads=heads,
            key_width=c.linear_key_head_dim,
            value_width=c.linear_value_head_dim,
            share=c.share,
            conv=np.ascontiguousarray(conv.T),
            a=vector(file, f"{block}.ssm_a", heads),
            dt=vector(file, f"{block}.ssm_dt.bias", heads),
            norm=vector(file, f"{block}.ssm_norm.weight", c.linear_value_head_dim),
            recent=state.recurrent(c.linear_conv_kernel_dim, channels),
            state=state.recurrent(*state_shape),
        )
        return cls(
            attn_qkv=qkv,
            attn_gate=gate,
            ssm_beta=with_rows(ba, beta[:, 0].reshape(-1)),
            ssm_alpha=with_rows(ba, beta[:, 1].reshape(-1)),
            ssm_out=matrix(file, f"{block}.ssm_out.weight", c.hidden_size, c.value_columns),
            net=net,
        )

    def trace(self, plan: Plan, h: Activation, eps: float, turns: Vector, x: Activation) -> None:
        plan.part = "linear attention"
        mixed, z = plan.rows("qkv", self.attn_qkv.rows), plan.rows("z", self.attn_gate.rows)
        beta, alpha = plan.rows("beta", self.ssm_beta.rows), plan.rows("alpha", self.ssm_alpha.rows)
        out = plan.rows("linear attention out", self.ssm_out.columns)
        outputs = (self.attn_qkv, mixed), (self.attn_gate, z), (self.ssm_beta, beta), (self.ssm_alpha, alpha)
        matmul(plan, h, outputs)
        delta_net = delta_net_step if plan.tokens == 1 else delta_net_chunk
        delta_net(plan, self.net, mixed, z, beta, alpha, eps, out)
        add_matmul(plan, out, self.ssm_out, x)


def _read_qkv(file: GGUFFile, block: str, c: Config) -> tuple[Matrix, Matrix]:
    """q, k and v of all heads, and z; older files have `ssm_in` instead: q, k, v and z of each key head in turn."""
    n, channels = c.hidden_size, 2 * c.key_columns + c.value_columns
    if f"{block}.ssm_in.weight" not in file.tensors:
        qkv = matrix(file, f"{block}.attn_qkv.weight", channels, n)
        return qkv, matrix(file, f"{block}.attn_gate.weight", c.value_columns, n)
    fused = matrix(file, f"{block}.ssm_in.weight", channels + c.value_columns, n)
    key, value = c.linear_key_head_dim, c.share * c.linear_value_head_dim
    groups = np.arange(fused.rows).reshape(c.linear_num_key_heads, -1)
    q, k, v, z = np.split(groups, [key, 2 * key, 2 * key + value], axis=1)
    return with_rows(fused, np.concatenate([q, k, v], axis=None)), with_rows(fused, z.reshape(-1))


@dataclass(frozen=True)
class FeedForward:
    """The router, the routed experts and the shared one of a layer."""

    ffn_gate_inp: Matrix
    ffn_gate_inp_shexp: Matrix
    layer: ExpertLayer

    @classmethod
    def read(cls, file: GGUFFile, block: str, c: Config, width: int, state: State) -> FeedForward:
        n, count, shared = c.hidden_size, c.num_experts, c.shared_expert_intermediate_size
        gate, up = _read_gate_up(file, block, count, width, n)
        layer = ExpertLayer(
            gate=gate,
            up=up,
            down=experts(file, f"{block}.ffn_down_exps.weight", count, n, width),
            shared=(
                one_expert(matrix(file, f"{block}.ffn_gate_shexp.weight", shared, n)),
                one_expert(matrix(file, f"{block}.ffn_up_shexp.weight", shared, n)),
                one_expert(matrix(file, f"{block}.ffn_down_shexp.weight", n, shared)),
            ),
            chosen=c.num_experts_per_tok,
            scale=c.expert_weights_scale,
            touched=state.touched(count),
        )
        router = matrix(file, f"{block}.ffn_gate_inp.weight", count, n)
        return cls(router, matrix(file, f"{block}.ffn_gate_inp_shexp.weight", 1, n), layer)

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        plan.part = "router"
        logits, shared_gate = plan.rows("router", self.ffn_gate_inp.rows), plan.rows("shared gate", 1)
        matmul(plan, h, [(self.ffn_gate_inp, logits), (self.ffn_gate_inp_shexp, shared_gate)])
        plan.part = "experts"
        routed = experts_step if plan.tokens == 1 else experts_grouped
        routed(plan, self.layer, h, logits, shared_gate, x)


def _read_gate_up(file: GGUFFile, block: str, count: int, width: int, n: int) -> tuple[Experts, Experts]:
    if f"{block}.ffn_gate_up_exps.weight" in file.tensors:
        return gate_up_experts(file, f"{block}.ffn_gate_up_exps.weight", count, width, n)
    gate = experts(file, f"{block}.ffn_gate_exps.weight", count, width, n)
    return gate, experts(file, f"{block}.ffn_up_exps.weight", count, width, n)


@dataclass(frozen=True)
class Layer:
    """One block of the trunk."""

    attn_norm: Vector
    mixer: Attention | LinearAttention
    post_attention_norm: Vector
    ffn: FeedForward


@dataclass(frozen=True)
class Qwen3Next:
    """The whole model: weights that are only read, and the trace of its forward pass."""

    config: Config
    token_embd: Matrix
    layers: tuple[Layer, ...]
    output_norm: Vector
    output: Matrix

    @property
    def vocab_size(self) -> int:
        return self.token_embd.rows

    def trunk(self, plan: Plan, ids: NDArray[np.int64]) -> Activation:
        c = self.config
        x, h = plan.rows("x", c.hidden_size), plan.rows("h", c.hidden_size)
        plan.part = "embedding"
        embed(plan, ids, self.token_embd, x)
        turns = rope.angles(plan, rope.frequencies(c.rotary_dim, c.rope_theta))
        for layer in self.layers:
            plan.part = "norms"
            rms_norm(plan, x, layer.attn_norm, c.rms_norm_eps, h)
            layer.mixer.trace(plan, h, c.rms_norm_eps, turns, x)
            plan.part = "norms"
            rms_norm(plan, x, layer.post_attention_norm, c.rms_norm_eps, h)
            layer.ffn.trace(plan, h, x)
        return x

    def head(self, plan: Plan, x: Activation) -> Activation:
        plan.part = "head"
        h, logits = plan.rows("head", x.columns), plan.rows("logits", self.output.rows)
        rms_norm(plan, x, self.output_norm, self.config.rms_norm_eps, h)
        matmul(plan, h, [(self.output, logits)])
        return logits


def load(file: GGUFFile, state: State) -> Qwen3Next:
    """The model of a file, its caches and recurrent states taken from `state`."""
    c = Config.read(file)
    embedding = file.tensor("token_embd.weight")
    vocab = embedding.shape[0]
    table = matrix(file, "token_embd.weight", vocab, c.hidden_size)
    tied = "output.weight" not in file.tensors
    return Qwen3Next(
        config=c,
        token_embd=table,
        layers=tuple(_read_layer(file, i, c, state) for i in range(len(c.recurrent))),
        output_norm=vector(file, "output_norm.weight", c.hidden_size),
        output=table if tied else matrix(file, "output.weight", vocab, c.hidden_size),
    )


def _read_layer(file: GGUFFile, i: int, c: Config, state: State) -> Layer:
    block = f"blk.{i}"
    mixer = LinearAttention if c.recurrent[i] else Attention
    return Layer(
        attn_norm=vector(file, f"{block}.attn_norm.weight", c.hidden_size),
        mixer=mixer.read(file, block, c, state),
        post_attention_norm=vector(file, f"{block}.post_attention_norm.weight", c.hidden_size),
        ffn=FeedForward.read(file, block, c, c.moe_intermediate_size[i], state),
    )
