"""GLM-4.5 (Zhipu AI, arXiv 2508.06471): attention with partial RoPE, and experts routed by sigmoid scores.

The first layers are dense; the others have a shared expert without a gate beside the routed ones, which are chosen by their
score plus a bias, and weighted by the score alone. The head of multi-token prediction has a layer of that kind.
"""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import dense_then_moe, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.mtp import with_mtp
from qcli.layers.rotary import read_rope
from qcli.layers.state import State

VERIFIED: Final = "logits within 4.8e-4 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams), read_routing(hparams, scores="sigmoid", normalised=True)
    shared = hparams.count("expert_shared_count") * hparams.size("expert_feed_forward_length")
    norms = "head" if "blk.0.attn_q_norm.weight" in file.tensors else ""  # not in GLM-4.5-Air

    def layer(hparams: Hyperparameters, i: int) -> DecoderLayer:
        block = f"blk.{i}"
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"{block}.attn_norm"),
            mixer=Attention.read(hparams, i, state, rope, norms=norms),
            ffn_norm=Norm.read(hparams, f"{block}.post_attention_norm"),
            ffn=dense_then_moe(hparams, i, state, routing, shared),
        )

    model = Decoder.read(hparams, (layer(hparams, i) for i in range(hparams.num_hidden_layers)))
    return with_mtp(model, hparams, state, layer)
