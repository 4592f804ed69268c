"""Quant types: `find("Q4_K")` imports `quant.formats.q4_k`, which declares one `Block` and one `Format`.

A format brings four things. `dequantize` is plain NumPy: the definition. `dot_rows` multiplies rows with one
activation row, for decode. `unpack_tile` spreads 16 rows into the interleaved tile that is multiplied with several, and in
prefill with many. `unpack_rows` spreads rows into one number per column, for embeddings.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quant.block import Block
from quant.jit import Kernel, function

# dot_rows(w, rows, columns, x, y, alpha, accumulate): y[r] = alpha * (w[r] . x), added to y[r] if accumulate is not 0.
# w: blocks [rows, columns]; x: an activation row of the format's kind; y: float32 [rows].
dot_rows = function("pppppfp")

# unpack_rows(w, rows, columns, q, scale, minimum): w[r, c] = scale[r, c // group] * q[r, c] - minimum[r, c // group].
# q: int8 [rows, columns] (float32, and no scale or minimum, for 'f32'); scale, minimum: float32 [rows, columns / group].
unpack_rows = function("pppppp")

# unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch): 16 rows, `row_bytes` apart, as a tile of quant.tile;
# scales and minima: float32 [columns / group, 16] (unused for 'f32'); scratch: TILE_SCRATCH bytes.
unpack_tile = function("ppppppp")
TILE_SCRATCH = 2048


# step_rows(w, rows, columns, entries, count, added, accumulate, scratch): rows times `count` activation rows, each of which gets
# what dot_rows gives it, bit by bit; the other operands are those of quant.kernels.step_tiles.
step_rows = function("p" * 8)


@dataclass(frozen=True, kw_only=True)
class Format:
    """One quant type: its block, the activation it is multiplied with, and its kernels."""

    block: Block
    activation: Literal["f32", "q8"]
    group: int  # columns that share a scale once unpacked: 16 or 32; 0 for 'f32'
    dequantize: Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # [rows, row bytes] -> [rows, columns]
    dot_rows: Kernel
    unpack_rows: Kernel
    unpack_tile: Kernel
    bits: Literal[0, 4, 5, 6] = 0  # that an unpacked weight has at most, if it is never negative; 0: any int8
    by_tiles: bool = (
        False  # whether dot_rows adds up as quant.blocks.totals tells, as tiles do in a step of several tokens
    )

    step_rows: Kernel | None = None  # for a step of several tokens, where rows are quicker than tiles

    @property
    def name(self) -> str:
        """What ggml calls the type."""
        return self.block.name

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns`, a multiple of the block's."""
        return self.block.row_bytes(columns)


@cache
def find(name: str) -> Format:
    """The format that GGUF calls `name`; KeyError if there is no file for it here."""
    if name not in names():
        raise KeyError(name)
    found: Format = importlib.import_module(f"quant.formats.{name.lower()}").FORMAT
    return found


@cache
def names() -> tuple[str, ...]:
    """Every format there is a file for."""
    return tuple(sorted(module.name.upper() for module in pkgutil.iter_modules(__path__)))
