"""Hunyuan-A13B (Tencent): queries and keys are normed after they are rotated; routed experts and one that all tokens share."""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State

VERIFIED: Final = (
    "logits within 1.4e-4 of a float32 reference (tiny random weights), 2e-6 with --kv-type f32; greedy text exact"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams), read_routing(hparams, normalised=True)
    shared = hparams.size("expert_shared_feed_forward_length", hparams.sizes("feed_forward_length")[0])

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, norms="head", normed_last=True, fine=True),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=MoE.read(hparams, i, state, routing, shared=shared),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
