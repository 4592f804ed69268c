"""Llama (arXiv 2302.13971) and what is shaped like it: Mistral, SmolLM; with experts, Mixtral (arXiv 2401.04088).

RoPE's pairs are interleaved, and the frequencies of Llama 3.1 and later are divided by factors that the file gives.
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
    "logits within 7.3e-4 of float32 Transformers (tiny random weights; 6.4e-4 with experts), greedy text exact; "
    "SmolLM2-135M-Instruct Q4_1 chooses llama.cpp's token at 97.4 % of 1,046, and is as near to float64 (KL 0.005)"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope = read_rope(hparams, interleaved=True, ctx=state.ctx)
    routing = read_routing(hparams, normalised=True) if hparams.count("expert_count") else None

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=MoE.read(hparams, i, state, routing) if routing else MLP.read(hparams, i),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
