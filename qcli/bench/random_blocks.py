"""Random blocks of every type, for weights that spread about as those of models do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quant.block import Scale, Ternary, Weight, declared

Blocks = NDArray[np.uint8]  # [n, bytes]
Scales = NDArray[np.float32]  # [n]


def random_blocks(random: np.random.Generator, kind: str, count: int, spread: float) -> Blocks:
    """Valid blocks of a type, uint8 [count, bytes]; `spread` is the standard deviation of the weights, about."""
    block = declared()[kind]
    first = next(iter(block.fields.values()))
    if isinstance(first, Weight):
        return _floats(random.standard_normal((count, 1), np.float32) * np.float32(spread), first)
    blocks = random.integers(0, 256, (count, block.bytes), np.uint8)
    for field, holds in block.fields.items():
        if isinstance(holds, Ternary):  # 3 becomes 1: as it is no value, it would make all weights lean one way
            codes = blocks[:, block.offsets[field] :][:, : holds.bytes]
            codes &= ~((codes & codes >> 1 & 0x55) << 1)
    write_scales(random, kind, blocks, spread)
    return blocks


def write_scales(random: np.random.Generator, kind: str, blocks: Blocks, spread: float) -> None:
    """Overwrite the scales of blocks with random ones, by which the standard deviation of their weights is about `spread`."""
    block = declared()[kind]
    for field, holds in block.fields.items():
        if isinstance(holds, Scale):
            for at in range(block.offsets[field], block.offsets[field] + holds.bytes, holds.bytes // holds.count):
                scales = spread * holds.unit * random.uniform(0.75, 1.25, len(blocks))
                _WRITE[holds.encoding](blocks, at, scales.astype(np.float32))


def _write_f16(blocks: Blocks, at: int, scales: Scales) -> None:
    blocks[:, at : at + 2] = scales.astype(np.float16).view(np.uint8).reshape(-1, 2)


def _write_f16_in_nibbles(blocks: Blocks, at: int, scales: Scales) -> None:
    """Float16 in the top nibbles of four uint16, lowest bits first."""
    bits = scales.astype(np.float16).view(np.uint16)
    for i in range(4):
        place = at + 2 * i + 1
        blocks[:, place] = blocks[:, place] & 15 | (bits >> 4 * i & 15).astype(np.uint8) << 4


def _write_e8m0(blocks: Blocks, at: int, scales: Scales) -> None:
    """A power of two, halved as ggml reads it: 2^(byte - 128)."""
    blocks[:, at] = np.rint(np.log2(scales)) + 128


def _write_ue4m3(blocks: Blocks, at: int, scales: Scales) -> None:
    """An 8-bit float, halved as ggml reads it: below 2^-7 steps of 2^-10, above 3 bits after the first."""
    exponent = np.maximum(np.floor(np.log2(scales)), -7)
    steps = np.rint(scales / np.exp2(exponent - 3))
    blocks[:, at] = (exponent + 7) * 8 + steps


_WRITE: dict[str, Callable[[Blocks, int, Scales], None]] = {
    "f16": _write_f16,
    "f16 in nibbles": _write_f16_in_nibbles,
    "e8m0": _write_e8m0,
    "ue4m3": _write_ue4m3,
}


def _floats(values: NDArray[np.float32], weight: Weight) -> Blocks:
    if weight.encoding == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    return values.astype({"f16": np.float16, "f32": np.float32}[weight.encoding]).view(np.uint8)
