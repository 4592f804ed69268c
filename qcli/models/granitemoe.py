"""Granite 3 MoE (IBM): what is embedded, added to the trunk, and read from it at last is scaled; perhaps a shared expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm, Sublayer
from qcli.layers.feed_forward import MLP, FeedForward, MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from quant.kernels.rope import Rope

VERIFIED: Final = "logits within 8.2e-5 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope = read_rope(hparams, interleaved=True)
    return scaled(hparams, state, lambda i: attention(hparams, i, state, rope))


def scaled(hparams: Hyperparameters, state: State, mixer: Callable[[int], Sublayer]) -> Decoder:
    """A model with Granite's scales around its layers; mixer: that of a layer."""

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=mixer(i),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=_feed_forward(hparams, i, state),
        )

    return Decoder.read(
        hparams,
        map(layer, range(hparams.num_hidden_layers)),
        embedding_scale=hparams.number("embedding_scale", -1e6, 1e6, 1.0),
        logit_scale=1 / hparams.number("logit_scale", 1e-6, 1e6),
    )


def attention(hparams: Hyperparameters, i: int, state: State, rope: Rope | None, *, fine: bool = False) -> Attention:
    """The attention of layer i; fine: see State.cache."""
    score_scale = hparams.number("attention.scale", 0, 1e6, 0.0)
    return Attention.read(hparams, i, state, rope, score_scale=score_scale, scale=residual_scale(hparams), fine=fine)


def residual_scale(hparams: Hyperparameters) -> float:
    """What all that is added to the trunk is multiplied by."""
    return hparams.number("residual_scale", -1e6, 1e6, 1.0)


def _feed_forward(hparams: Hyperparameters, i: int, state: State) -> FeedForward:
    """The experts of layer i, or the one network of a model that has none."""
    scale = residual_scale(hparams)
    if not hparams.count("expert_count"):
        return MLP.read(hparams, i, scale=scale)
    shared, routing = hparams.count("expert_shared_feed_forward_length"), read_routing(hparams, normalised=True)
    return MoE.read(hparams, i, state, routing, shared=shared, scale=scale)
