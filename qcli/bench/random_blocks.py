"""Random blocks of every type, for weights that spread about as those of models do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.types import TENSOR_TYPES

_TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}

Blocks = NDArray[np.uint8]  # [n, bytes]
Scales = NDArray[np.float32]  # [n]


def half(blocks: Blocks, at: int, scales: Scales) -> None:
    """Write float16."""
    blocks[:, at : at + 2] = scales.astype(np.float16).view(np.uint8).reshape(-1, 2)


def power_of_two(blocks: Blocks, at: int, scales: Scales) -> None:
    """Write E8M0, halved as ggml reads it: 2^(byte - 128)."""
    blocks[:, at] = np.rint(np.log2(scales)) + 128


def tiny_float(blocks: Blocks, at: int, scales: Scales) -> None:
    """Write UE4M3, halved as ggml reads it: below 2^-7 steps of 2^-10, above 3 bits after the first."""
    exponent = np.maximum(np.floor(np.log2(scales)), -7)
    steps = np.rint(scales / np.exp2(exponent - 3))
    blocks[:, at] = (exponent + 7) * 8 + steps


def four_nibbles(blocks: Blocks, at: int, scales: Scales) -> None:
    """Write float16 into the top nibbles of four uint16, lowest bits first."""
    bits = scales.astype(np.float16).view(np.uint16)
    for i in range(4):
        place = at + 2 * i + 1
        blocks[:, place] = blocks[:, place] & 15 | (bits >> 4 * i & 15).astype(np.uint8) << 4


class Scale(NamedTuple):
    """A scale of a block: its first byte, and its value where all other bits are random and weights spread about 1."""

    at: int
    one: float
    write: Callable[[Blocks, int, Scales], None] = half


SCALES = {
    "Q4_0": [Scale(0, 1 / 8)],
    "Q4_1": [Scale(0, 1 / 8), Scale(2, -7.5 / 8)],
    "Q5_0": [Scale(0, 1 / 16)],
    "Q5_1": [Scale(0, 1 / 16), Scale(2, -15.5 / 16)],
    "Q8_0": [Scale(0, 1 / 127)],
    "Q2_K": [Scale(80, 1 / 16), Scale(82, 1.5 / 16)],
    "Q3_K": [Scale(108, 1 / 64)],
    "Q4_K": [Scale(0, 3 / 32 / 15), Scale(2, 1.5 / 32)],
    "Q5_K": [Scale(0, 3 / 32 / 31), Scale(2, 1.5 / 32)],
    "Q6_K": [Scale(208, 1 / 64 / 32)],
    "TQ1_0": [Scale(52, 1)],
    "TQ2_0": [Scale(64, 1)],
    "IQ1_S": [Scale(0, 1 / 8)],
    "IQ1_M": [Scale(48, 1 / 8, four_nibbles)],
    "IQ2_XXS": [Scale(0, 1 / 64)],
    "IQ2_XS": [Scale(0, 1 / 64)],
    "IQ2_S": [Scale(0, 1 / 64)],
    "IQ3_XXS": [Scale(0, 1 / 128)],
    "IQ3_S": [Scale(0, 1 / 128)],
    "IQ4_NL": [Scale(0, 1 / 64)],
    "IQ4_XS": [Scale(0, 1 / 2048)],
    "MXFP4": [Scale(0, 1 / 8, power_of_two)],
    "NVFP4": [Scale(at, 1 / 8, tiny_float) for at in range(4)],
}


def random_blocks(random: np.random.Generator, kind: str, count: int, spread: float) -> Blocks:
    """Valid blocks of a type, uint8 [count, bytes]; `spread` is the standard deviation of the weights, about."""
    if kind not in SCALES:
        return _floats(random.standard_normal((count, 1), np.float32) * np.float32(spread), kind)
    blocks = random.integers(0, 256, (count, _TYPES[kind].n_bytes), np.uint8)
    if kind == "TQ2_0":  # ternary: of its two bits, 3 is no value, and would make all weights lean one way
        codes = blocks[:, :64]
        codes &= ~((codes & codes >> 1 & 0x55) << 1)
    write_scales(random, kind, blocks, spread)
    return blocks


def write_scales(random: np.random.Generator, kind: str, blocks: Blocks, spread: float) -> None:
    """Give blocks that hold anything scales that suit such weights."""
    for at, one, write in SCALES[kind]:
        write(blocks, at, (spread * one * random.uniform(0.75, 1.25, len(blocks))).astype(np.float32))


def _floats(values: NDArray[np.float32], kind: str) -> Blocks:
    if kind == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    return values.astype({"F16": np.float16, "F32": np.float32}[kind]).view(np.uint8)
