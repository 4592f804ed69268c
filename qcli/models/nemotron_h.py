"""Nemotron-H (NVIDIA, arXiv 2504.03624): each layer is one of Mamba 2, attention without positions, or a ReLU^2 network.

A layer with key-value heads has attention; one that has neither those nor a feed-forward network is a Mamba 2 mixer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, Norm, Sublayer, add_sublayer
from qcli.layers.feed_forward import MLP, FeedForward
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.mamba2 import StateSpace
from qcli.layers.state import State
from quant.plan import Activation, Plan

VERIFIED: Final = "logits within 9.7e-5 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and recurrent states taken from `state`."""
    return one_sublayer_each(file, state, lambda hparams, i, _: MLP.read(hparams, i, activation="relu2"))


def one_sublayer_each(
    file: GGUFFile, state: State, feed_forward: Callable[[Hyperparameters, int, State], FeedForward]
) -> Decoder:
    """A model each of whose layers is one sublayer; feed_forward(hparams, i, state): that of layer i."""
    hparams = Hyperparameters(file)
    widths = hparams.sizes("feed_forward_length", least=0)

    def sublayer(i: int) -> Sublayer:
        if hparams.num_key_value_heads[i]:
            return Attention.read(hparams, i, state, None, fine=True)
        return feed_forward(hparams, i, state) if widths[i] else StateSpace.read(hparams, i, state)

    def layer(i: int) -> Layer:
        return Layer(Norm.read(hparams, f"blk.{i}.attn_norm"), sublayer(i))

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))


@dataclass(frozen=True)
class Layer:
    """A norm and what follows it."""

    attn_norm: Norm
    sublayer: Sublayer

    def trace(self, plan: Plan, x: Activation) -> None:
        """Change x [tokens, n], the residual stream."""
        add_sublayer(plan, x, self.attn_norm, self.sublayer, None)
