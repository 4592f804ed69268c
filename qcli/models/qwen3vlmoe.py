"""Qwen3-VL with experts (arXiv 2511.21631): its text model is Qwen3-MoE.

Text only. M-RoPE gives every section the position of a token of text, so that it is plain RoPE.
"""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder
from qcli.layers.state import State
from qcli.models import qwen3moe

VERIFIED: Final = (
    "logits within 2e-6 of a float32 reference (tiny random weights) "
    "with --kv-type f32, 6.2e-5 with f16; greedy text exact"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches taken from `state`."""
    return qwen3moe.load(file, state, fine=True)
