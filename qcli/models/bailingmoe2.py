"""Ling 2.0 and Ring 2.0 (Ant Group, arXiv 2510.22115): heads normed and partly rotated, experts from the best groups."""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import dense_then_moe, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State

VERIFIED: Final = (
    "logits within 7.5e-5 of a float32 reference (tiny random weights), 2e-6 with --kv-type f32; greedy text exact"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams), read_routing(hparams, scores="sigmoid", normalised=True)
    width = hparams.count("expert_shared_feed_forward_length") or hparams.size("expert_feed_forward_length")
    shared = hparams.count("expert_shared_count") * width

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, norms="head", fine=True),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=dense_then_moe(hparams, i, state, routing, shared),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
