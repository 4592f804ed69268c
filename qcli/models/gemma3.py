"""Gemma 3 (Google, arXiv 2503.19786): five layers of attention within a window to one without, norms before and after.

Text only. Layers with a sliding window have a RoPE base of their own, whose frequencies are not scaled.
"""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import MLP
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from qcli.layers.windows import read_windows
from quant.kernels.rope import Rope, frequencies

VERIFIED: Final = (
    "logits within 7.9e-5 of float32 Transformers (tiny random weights), greedy text exact; "
    "Gemma 3 270M Q4_K_M chooses llama.cpp's token at 97.9 % of 960, and is nearer to float64 (KL 0.002, not 0.004)"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    whole = read_rope(hparams)
    local = Rope(frequencies(hparams.head_dim, hparams.number("rope.freq_base_swa", 1, 1e30, 10_000.0)))
    windows = read_windows(hparams)
    # the largest of the family divides by the width that a head would have without a key of its own
    scale = (hparams.hidden_size / hparams.num_attention_heads[0]) ** -0.5 if hparams.num_hidden_layers == 62 else 0.0

    def layer(i: int) -> DecoderLayer:
        block = f"blk.{i}"
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"{block}.attn_norm"),
            mixer=Attention.read(
                hparams,
                i,
                state,
                local if windows[i] else whole,
                norms="head",
                window=windows[i],
                score_scale=scale,
            ),
            ffn_norm=Norm.read(hparams, f"{block}.ffn_norm"),
            ffn=MLP.read(hparams, i, activation="gelu"),
            post_attention_norm=Norm.read(hparams, f"{block}.post_attention_norm"),
            post_ffw_norm=Norm.read(hparams, f"{block}.post_ffw_norm"),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)), embedding_scale=hparams.hidden_size**0.5)
