"""Qwen3-Next: three Gated DeltaNet layers to one of gated attention, each followed by routed experts and a shared one.

A token's life: token_embd -> (attn_norm -> mixer -> + -> post_attention_norm -> router -> experts -> +) x layers
-> output_norm -> output. A block behind the layers, with full attention, is the head of multi-token prediction. Weights are
named as in GGUF, hyperparameters as in Hugging Face configs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm, Sublayer
from qcli.layers.feed_forward import FeedForward, MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.mtp import with_mtp
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from qcli.layers.weights import linear, vector, with_rows
from quant.kernels.deferred import catch_up, deferred_floats
from quant.kernels.delta_net import DeltaNet
from quant.kernels.delta_net_chunk import delta_net_chunk
from quant.kernels.delta_net_step import delta_net_step
from quant.kernels.matmul import add_matmul, matmul
from quant.plan import Activation, Plan
from quant.weights import Matrix

VERIFIED: Final = (
    "logits within 3.5e-5 of float32 Transformers (tiny random weights), within 9.5e-5 (storyteller); "
    "greedy and chat text exact"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and recurrent states taken from `state`."""
    return hybrid(file, state, _projections, moe_with_shared_expert)


def hybrid(
    file: GGUFFile,
    state: State,
    projections: Callable[[Hyperparameters, int, Shape], tuple[Projections, int]],
    feed_forward: Callable[[Hyperparameters, int, State], FeedForward],
) -> Decoder:
    """A model whose mixers are linear or full attention.

    projections(hparams, i, shape): the matrices of layer i, and the `share` of its quant.kernels.delta_net.DeltaNet.
    """
    hparams = Hyperparameters(file)
    rope, shape, recurrent = read_rope(hparams), Shape.read(hparams), (*recurrent_layers(hparams), False)

    def mixer(hparams: Hyperparameters, i: int) -> Sublayer:
        if recurrent[i]:
            return LinearAttention.read(hparams, i, state, shape, *projections(hparams, i, shape))
        return Attention.read(hparams, i, state, rope, norms="head", gated=True)

    def layer(hparams: Hyperparameters, i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=mixer(hparams, i),
            ffn_norm=Norm.read(hparams, f"blk.{i}.post_attention_norm"),
            ffn=feed_forward(hparams, i, state),
        )

    model = Decoder.read(hparams, map(partial(layer, hparams), range(hparams.num_hidden_layers)))
    return with_mtp(model, hparams, state, layer)


def recurrent_layers(hparams: Hyperparameters) -> tuple[bool, ...]:
    """For each layer: whether its mixer is linear attention (Gated DeltaNet), not full attention."""
    flags = hparams.sizes("attention.recurrent_layers", [0], least=0)
    if hparams.has("attention.recurrent_layers"):
        return tuple(map(bool, flags))
    interval = hparams.size("full_attention_interval", 4)
    return tuple((i + 1) % interval != 0 for i in range(hparams.num_hidden_layers))


def moe_with_shared_expert(hparams: Hyperparameters, i: int, state: State) -> MoE:
    """The routed experts and the shared one of layer i."""
    shared, routing = hparams.size("expert_shared_feed_forward_length"), read_routing(hparams, normalised=True)
    return MoE.read(hparams, i, state, routing, shared=shared, shared_gate=True)


@dataclass(frozen=True)
class Shape:
    """Heads of the linear attention layers, named as in Hugging Face's config."""

    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int

    @classmethod
    def read(cls, hparams: Hyperparameters) -> Shape:
        """From the keys ssm.* of a file. Raises ModelFileError for sizes that contradict each other."""
        keys, values, columns = (
            hparams.size("ssm.group_count"),
            hparams.size("ssm.time_step_rank"),
            hparams.size("ssm.inner_size"),
        )
        if values % keys or columns % values:
            hparams.wrong("heads do not divide into groups")
        return cls(keys, values, hparams.size("ssm.state_size"), columns // values, hparams.size("ssm.conv_kernel"))

    @property
    def share(self) -> int:
        """Value heads that share a key head."""
        return self.linear_num_value_heads // self.linear_num_key_heads

    @property
    def key_columns(self) -> int:
        """Columns of the keys of all heads."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_columns(self) -> int:
        """Columns of the values of all heads."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def channels(self) -> int:
        """Columns of q, k and v together."""
        return 2 * self.key_columns + self.value_columns


Projections = tuple[Matrix, Matrix, Matrix, Matrix]  # attn_qkv, attn_gate, ssm_beta, ssm_alpha


@dataclass(frozen=True)
class LinearAttention:
    """The weights of one Gated DeltaNet mixer."""

    attn_qkv: Matrix
    attn_gate: Matrix
    ssm_beta: Matrix
    ssm_alpha: Matrix
    ssm_out: Matrix
    net: DeltaNet
    eps: float

    @classmethod
    def read(
        cls, hparams: Hyperparameters, i: int, state: State, shape: Shape, projections: Projections, share: int
    ) -> LinearAttention:
        """Layer i of a file; value head j uses key head j // share % key heads."""
        file, block, heads, width = hparams.file, f"blk.{i}", shape.linear_num_value_heads, shape.linear_value_head_dim
        taps = shape.linear_conv_kernel_dim
        conv = vector(file, f"{block}.ssm_conv1d.weight", shape.channels, taps)
        out = linear(file, f"{block}.ssm_out", hparams.hidden_size, shape.value_columns)
        net = DeltaNet(
            key_heads=shape.linear_num_key_heads,
            value_heads=heads,
            key_dim=shape.linear_key_head_dim,
            value_dim=width,
            share=share,
            conv=np.ascontiguousarray(conv.T),
            a=vector(file, f"{block}.ssm_a", heads),
            dt_bias=vector(file, f"{block}.ssm_dt.bias", heads),
            norm=vector(file, f"{block}.ssm_norm.weight", width),
            conv_state=state.ring(taps, shape.channels),
            state=state.recurrent(heads, width // 16, shape.linear_key_head_dim, 16),
            deferred=state.deferred(heads, deferred_floats(shape.linear_key_head_dim, width)),
        )
        state.on_catch_up(partial(catch_up, net=net))
        return cls(*projections, out, net, hparams.rms_norm_eps)

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """x += linear attention of h, both [tokens, n]."""
        plan.part = "linear attention"
        mixed, z = plan.activation("qkv", self.attn_qkv.rows), plan.activation("z", self.attn_gate.rows)
        beta, alpha = plan.activation("beta", self.ssm_beta.rows), plan.activation("alpha", self.ssm_alpha.rows)
        out = plan.activation("linear attention out", self.ssm_out.columns)
        outputs = (self.attn_qkv, mixed), (self.attn_gate, z), (self.ssm_beta, beta), (self.ssm_alpha, alpha)
        matmul(plan, h, outputs)
        delta_net = delta_net_step if plan.stepwise else delta_net_chunk
        delta_net(plan, self.net, mixed, z, beta, alpha, self.eps, out)
        add_matmul(plan, out, self.ssm_out, x)


def _projections(hparams: Hyperparameters, i: int, shape: Shape) -> tuple[Projections, int]:
    """The projections of layer i, and how many value heads share a key head."""
    heads = shape.linear_num_value_heads
    ba = linear(hparams.file, f"blk.{i}.ssm_ba", 2 * heads, hparams.hidden_size)
    beta, alpha = np.arange(2 * heads).reshape(-1, 2, shape.share).swapaxes(0, 1)  # for each key head: beta, then alpha
    return (
        *_read_qkv(hparams, i, shape),
        with_rows(ba, beta.reshape(-1)),
        with_rows(ba, alpha.reshape(-1)),
    ), shape.share


def _read_qkv(hparams: Hyperparameters, i: int, shape: Shape) -> tuple[Matrix, Matrix]:
    """q, k and v of all heads, and z; older files have `ssm_in` instead: q, k, v and z of each key head in turn."""
    file, block, n = hparams.file, f"blk.{i}", hparams.hidden_size
    if f"{block}.ssm_in.weight" not in file.tensors:
        qkv = linear(file, f"{block}.attn_qkv", shape.channels, n)
        return qkv, linear(file, f"{block}.attn_gate", shape.value_columns, n)
    fused = linear(file, f"{block}.ssm_in", shape.channels + shape.value_columns, n)
    key, value = shape.linear_key_head_dim, shape.share * shape.linear_value_head_dim
    groups = np.arange(fused.rows).reshape(shape.linear_num_key_heads, -1)
    q, k, v, z = np.split(groups, [key, 2 * key, 2 * key + value], axis=1)
    return with_rows(fused, np.concatenate([q, k, v], axis=None)), with_rows(fused, z.reshape(-1))
