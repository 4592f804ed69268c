"""Qwen3-MoE (arXiv 2505.09388): attention whose heads are normed, and routed experts."""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State

VERIFIED: Final = "logits within 3.5e-4 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State, *, fine: bool = False) -> Decoder:
    """The model of a file, its caches taken from `state`; fine: see State.cache."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams), read_routing(hparams, normalised=True)

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, norms="head", fine=fine),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=MoE.read(hparams, i, state, routing),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
