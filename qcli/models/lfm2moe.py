"""LFM2-MoE (Liquid AI, arXiv 2511.23404): gated short convolutions, a few layers of attention, and routed experts.

A layer without key-value heads is a convolution. The first layers are dense; experts are chosen by their sigmoid score
plus a bias, and weighted by the scores alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm, Vector
from qcli.layers.feed_forward import dense_then_moe, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from qcli.layers.weights import linear, vector
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.short_conv import short_conv
from quant.plan import Activation, Plan
from quant.weights import Matrix

VERIFIED: Final = "logits within 9.9e-5 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and the states of its convolutions taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams), read_routing(hparams, scores="sigmoid", normalised=True)

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=(
                Attention.read(hparams, i, state, rope, norms="head")
                if hparams.num_key_value_heads[i]
                else ShortConv.read(hparams, i, state)
            ),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=dense_then_moe(hparams, i, state, routing),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)), norm="token_embd_norm")


@dataclass(frozen=True)
class ShortConv:
    """A gated short convolution and its state; conv float32 [taps, n], conv_state [rows, n]."""

    in_proj: Matrix
    out_proj: Matrix
    conv: Vector
    conv_state: Vector

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, state: State) -> ShortConv:
        """Layer i of a file, whose convolution keeps its last inputs in the state."""
        file, block, n, taps = (
            hparams.file,
            f"blk.{i}.shortconv",
            hparams.hidden_size,
            hparams.size("shortconv.l_cache"),
        )
        conv = vector(file, f"{block}.conv.weight", n, taps)
        return cls(
            in_proj=linear(file, f"{block}.in_proj", 3 * n, n),
            out_proj=linear(file, f"{block}.out_proj", n, n),
            conv=np.ascontiguousarray(conv.T),
            conv_state=state.ring(taps, n),
        )

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """x += convolution of h, both [tokens, n]."""
        plan.part = "convolution"
        bcx, mixed = plan.activation("bcx", self.in_proj.rows), plan.activation("convolved", self.out_proj.columns)
        matmul(plan, h, [(self.in_proj, bcx)])
        short_conv(plan, bcx, self.conv, self.conv_state, mixed)
        add_matmul(plan, mixed, self.out_proj, x)
