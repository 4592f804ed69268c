"""K-EXAONE (LG AI Research, arXiv 2601.01739): three layers within a window to one without, experts as in DeepSeek-V3.

Layers with a window are rotated, those without one are not.
"""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, DecoderLayer, Norm
from qcli.layers.feed_forward import dense_then_moe, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from qcli.layers.windows import read_windows

VERIFIED: Final = (
    "logits within 1.7e-4 of a float32 reference (tiny random weights), 3e-6 with --kv-type f32; greedy text exact"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    rope, routing = read_rope(hparams), read_routing(hparams, scores="sigmoid", normalised=True)
    windows = read_windows(hparams)
    width = hparams.size("expert_shared_feed_forward_length", hparams.size("expert_feed_forward_length"))
    shared = width if hparams.count("expert_shared_count", 1) else 0

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            attn_norm=Norm.read(hparams, f"blk.{i}.attn_norm"),
            mixer=Attention.read(
                hparams, i, state, rope if windows[i] else None, norms="head", window=windows[i], fine=True
            ),
            ffn_norm=Norm.read(hparams, f"blk.{i}.ffn_norm"),
            ffn=dense_then_moe(hparams, i, state, routing, shared),
        )

    return Decoder.read(hparams, map(layer, range(hparams.num_hidden_layers)))
