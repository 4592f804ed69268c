"""MiniMax-M2: norms over whole rows of queries and keys, of which a part is rotated, and experts by sigmoid and bias."""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State

VERIFIED: Final = (
    "logits within 3.6e-5 of a float32 reference (tiny random weights), 1e-6 with --kv-type f32; greedy text exact"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams), read_routing(hparams, scores="sigmoid", normalised=True)

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, norms="row", fine=True),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=MoE.read(hparams, i, state, routing),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
