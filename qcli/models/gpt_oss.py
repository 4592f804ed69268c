"""gpt-oss (OpenAI, arXiv 2508.10925): attention with sinks, every other layer within a window, and experts with biases.

YaRN's borders are not rounded to whole pairs here: the model's own code and Transformers agree in that, llama.cpp rounds.
"""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import MoE
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from qcli.layers.windows import read_windows
from quant.kernels.router import Routing

VERIFIED: Final = "logits within 6.8e-4 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams, truncate=False), Routing(hparams.num_experts_per_tok)
    windows = read_windows(hparams)

    def layer(i: int) -> DecoderLayer:
        block = f"blk.{i}"
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"{block}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, biased="qkv", sinks=True, window=windows[i]),
            ffn_norm=Norm.read(hparams, f"{block}.post_attention_norm"),
            ffn=MoE.read(hparams, i, state, routing, activation="clamped"),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
