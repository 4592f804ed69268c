"""Granite 4 hybrid (IBM): nine layers of Mamba 2 to one of attention, most often without positions; scales of Granite 3.

A layer with key-value heads has attention. The small models have no experts.
"""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder, Sublayer
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.mamba2 import StateSpace
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from qcli.models.granitemoe import attention, residual_scale, scaled

VERIFIED: Final = "logits within 1.5e-5 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and recurrent states taken from `state`."""
    hparams = Hyperparameters(file)
    rope = read_rope(hparams, interleaved=True) if hparams.flag("rope.scaling.finetuned", True) else None

    def mixer(i: int) -> Sublayer:
        if hparams.num_key_value_heads[i]:
            return attention(hparams, i, state, rope, fine=True)
        return StateSpace.read(hparams, i, state, residual_scale(hparams))

    return scaled(hparams, state, mixer)
