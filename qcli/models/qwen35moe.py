"""Qwen3.5-MoE and Qwen3.6-MoE: Qwen3-Next with other projections of its linear layers, whose value heads are re-ordered.

Their M-RoPE gives every section the position of a token of text, so that it is plain RoPE.
"""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state import State
from qcli.layers.weights import linear
from qcli.models.qwen3next import Projections, Shape, hybrid, moe_with_shared_expert

VERIFIED: Final = "logits within 8.9e-5 of float32 Transformers (tiny random weights), greedy text exact"


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and recurrent states taken from `state`."""
    return hybrid(file, state, projections, moe_with_shared_expert)


def projections(hparams: Hyperparameters, i: int, shape: Shape) -> tuple[Projections, int]:
    """The projections of layer i; value head j uses key head j % key heads."""
    file, block, n, heads = hparams.file, f"blk.{i}", hparams.hidden_size, shape.linear_num_value_heads
    matrices = (
        linear(file, f"{block}.attn_qkv", shape.channels, n),
        linear(file, f"{block}.attn_gate", shape.value_columns, n),
        linear(file, f"{block}.ssm_beta", heads, n),
        linear(file, f"{block}.ssm_alpha", heads, n),
    )
    return matrices, 1
