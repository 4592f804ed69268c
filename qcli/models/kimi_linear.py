"""Kimi Linear (arXiv 2510.26692): three layers of Kimi Delta Attention to one of latent attention without RoPE, experts.

Layers with no key-value heads have Kimi Delta Attention (`qcli/layers/kimi_delta.py`), the others that of DeepSeek-V2. The
first layer is dense; the experts of the others are chosen by sigmoid scores and a bias, beside a shared one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder, DecoderLayer, Norm, Sublayer
from qcli.layers.feed_forward import dense_then_moe, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.kimi_delta import KimiDeltaAttention
from qcli.layers.state import State
from qcli.models.deepseek2 import LatentAttention, Shape

VERIFIED: Final = "logits within 3.5e-5 of a float32 model (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and recurrent states taken from `state`."""
    hparams = Hyperparameters(file)
    shape = Shape.read(hparams)

    def attention(i: int) -> Sublayer:
        return LatentAttention.read(hparams, i, state, shape, None)

    return hybrid(hparams, state, attention)


def hybrid(
    hparams: Hyperparameters, state: State, attention: Callable[[int], Sublayer], lower_bound: float = 0.0
) -> Decoder:
    """A model whose mixers are Kimi Delta Attention, or what `attention` gives for a layer; lower_bound: see the former."""
    routing = read_routing(hparams, scores="sigmoid", normalised=True)
    shared = hparams.count("expert_shared_feed_forward_length")
    shared = shared or hparams.count("expert_shared_count") * hparams.size("expert_feed_forward_length")

    def mixer(i: int) -> Sublayer:
        if hparams.num_key_value_heads[i]:
            return attention(i)
        return KimiDeltaAttention.read(hparams, i, state, lower_bound)

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=mixer(i),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=dense_then_moe(hparams, i, state, routing, shared),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
