"""Qwen1.5-MoE and Qwen2-MoE (arXiv 2407.10671): biases on queries, keys and values, routed experts and a shared one."""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State

VERIFIED: Final = "logits within 3.9e-4 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams), read_routing(hparams)
    shared = hparams.size("expert_shared_feed_forward_length")

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, biased="qkv"),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=MoE.read(hparams, i, state, routing, shared=shared, shared_gate=True),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
