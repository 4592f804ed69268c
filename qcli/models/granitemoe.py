"""Granite 3 MoE (IBM): what is embedded, added to the trunk, and read from it at last is scaled; perhaps a shared expert."""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State

VERIFIED: Final = "logits within 8.2e-5 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams, interleaved=True), read_routing(hparams, normalised=True)
    shared = hparams.count("expert_shared_feed_forward_length")
    score_scale = hparams.number("attention.scale", 0, 1e6, 0.0)
    scale = hparams.number("residual_scale", -1e6, 1e6, 1.0)

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, score_scale=score_scale, scale=scale),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=MoE.read(hparams, i, state, routing, shared=shared, scale=scale),
        )

    return Decoder.read(
        hparams,
        map(layer, range(hparams.num_hidden_layers)),
        embedding_scale=hparams.number("embedding_scale", -1e6, 1e6, 1.0),
        logit_scale=1 / hparams.number("logit_scale", 1e-6, 1e6),
    )
