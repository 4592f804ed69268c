"""Qwen3-VL with experts (arXiv 2511.21631): its text model is Qwen3-MoE.

Text only. M-RoPE gives every section the position of a token of text, so that it is plain RoPE.
"""

from __future__ import annotations

from typing import Final

from qcli.models.qwen3moe import load

__all__ = ["VERIFIED", "load"]

VERIFIED: Final = (
    "logits within 2e-6 of a float32 reference (tiny random weights) "
    "with --kv-type f32, 8.3e-4 with f16; greedy text exact"
)
