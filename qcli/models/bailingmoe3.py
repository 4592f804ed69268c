"""Ling 3 (inclusionAI): Kimi Delta Attention with bounded decays, latent attention with gated heads, grouped experts.

As in Kimi Linear but for the safe gate of decays, projections of decays and gates without a narrow row, RoPE, a gate of each
head of attention, and experts that come from the best groups.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder, Sublayer
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state import State
from qcli.models.deepseek2 import LatentAttention, Shape, rope_and_scale
from qcli.models.kimi_linear import hybrid

VERIFIED: Final = "logits within 4.6e-5 of a float32 model (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and recurrent states taken from `state`."""
    hparams = Hyperparameters(file)
    shape, (rope, scale) = Shape.read(hparams), rope_and_scale(hparams)
    _refuse_clamps(hparams)
    bound = hparams.number("kda.gate_lower_bound", -80, 0, -5.0) if hparams.flag("kda.safe_gate", True) else 0.0

    def attention(i: int) -> Sublayer:
        return LatentAttention.read(hparams, i, state, shape, rope, scale, gated=True)

    return hybrid(hparams, state, attention, bound)


def _refuse_clamps(hparams: Hyperparameters) -> None:
    """UnsupportedModelError for a file whose experts limit what their gates give."""
    for key in ("swiglu_clamp_exp", "swiglu_clamp_shexp"):
        value = hparams.file.metadata.get(f"{hparams.arch}.{key}", 0)
        if np.any(np.asarray(value)):
            hparams.unsupported(f'experts with limits ("{hparams.arch}.{key}") are not supported')
