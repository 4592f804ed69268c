"""ERNIE 4.5 with experts (Baidu, technical report of June 2025): chosen by their softmax plus a bias, weighted without it.

RoPE's pairs are interleaved. From the first layer with experts on, every `interleave_moe_layer_step`th has them.
"""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import MLP, MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State

VERIFIED: Final = (
    "logits within 1.4e-4 of a float32 reference (tiny random weights), 3e-6 with --kv-type f32; greedy text exact"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams, interleaved=True), read_routing(hparams, normalised=True)
    dense, step = hparams.count("leading_dense_block_count"), hparams.size("interleave_moe_layer_step", 1)
    shared = hparams.count("expert_shared_feed_forward_length")

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, fine=True),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=MLP.read(hparams, i)
            if i < dense or (i + 1) % step
            else MoE.read(hparams, i, state, routing, shared=shared),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
