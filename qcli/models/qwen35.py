"""Qwen3.5 and Qwen3.6, dense: the mixers of Qwen3.5-MoE with a dense feed-forward network."""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder
from qcli.layers.feed_forward import MLP
from qcli.layers.state import State
from qcli.models.qwen3next import hybrid
from qcli.models.qwen35moe import projections

VERIFIED: Final = (
    "bit for bit Qwen3.5-MoE whose only expert is always chosen (tiny random weights); "
    "logits within 7.1e-5 of llama.cpp in float32"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and recurrent states taken from `state`."""
    return hybrid(file, state, projections, lambda hparams, i, _: MLP.read(hparams, i))
