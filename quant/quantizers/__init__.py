"""Quantizers: `find("Q4_K")` imports `quant.quantizers.q4_k`, which declares one `Quantizer`.

A kernel makes sixteen blocks at once, a lane each, even of several rows; `quantize_rows` calls it for all blocks of some
rows. Rows are divided into pieces, and a thread takes the next piece when it has done one. Numbers that are not finite
make a block without meaning, never a crash: see `is_finite`.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quant.atomics import call
from quant.block import Block
from quant.fitting.importance import ROW_MEANS, mean_squares
from quant.jit import Kernel, function, inline
from quant.plan import aligned
from quant.simd import add, load_f32, load_f32x16, store_f32, store_i64, sub, sum_lanes, zero_f32x16

# (x, importance, out, scratch): float32 [16 blocks, columns] -> 16 blocks; importance: 0, or int64 [16], the address of
# each block's, float32 [columns], and at ROW_MEANS float32 [16] for types of `row_means`; scratch: _SCRATCH bytes.
sixteen_blocks = function("pppp")
_SCRATCH = 128 * 1024
_TABLE = ROW_MEANS + 64  # bytes of the addresses and means of sixteen blocks
_LANES = 16
_MODERATE = 32  # exponents of 2 between which the importance of a row is taken as it is
_PIECE = 1 << 17  # numbers that a thread takes at once: 1 to 10 ms of work

Importance = NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """How the blocks of one quant type are made from float32."""

    block: Block
    kernel: Kernel  # a `sixteen_blocks`
    uses_importance: bool  # whether errors count by importance, if it is given
    needs_importance: bool = False  # without, blocks would be of no use
    row_means: bool = False  # with importance, the mean of x^2 of a block's row is asked for

    @property
    def name(self) -> str:
        """What ggml calls the type."""
        return self.block.name

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns`, a multiple of the block's."""
        return self.block.row_bytes(columns)

    def quantize(self, x: NDArray[np.float32], importance: Importance = None, threads: int = 1) -> NDArray[np.uint8]:
        """float32 [rows, columns], importance [columns] -> uint8 [rows, row bytes]; ValueError if shapes do not fit."""
        out = np.empty((len(x), self.row_bytes(x.shape[1])), np.uint8)
        self.quantize_into(out, x, importance, threads)
        return out

    def quantize_into(
        self, out: NDArray[np.uint8], x: NDArray[np.float32], importance: Importance = None, threads: int = 1
    ) -> None:
        """The same, written into `out`: uint8 [rows, row bytes], as a slice of a larger tensor's rows."""
        x = np.ascontiguousarray(x, np.float32)
        self._check(out, x, importance)
        importance = None if importance is None else _moderate(np.ascontiguousarray(importance, np.float32))
        blocks = x.size // self.block.columns
        if 0 < blocks < _LANES:
            self._quantize_few(out, x, importance)
        elif blocks:
            self._quantize(out, x, importance, threads)

    def _check(self, out: NDArray[np.uint8], x: NDArray[np.float32], importance: Importance) -> None:
        rows, columns = x.shape
        if columns % self.block.columns:
            raise ValueError(f"{self.name} needs rows of a multiple of {self.block.columns} columns, not {columns}")
        if out.dtype != np.uint8 or out.shape != (rows, self.row_bytes(columns)) or not out.flags.c_contiguous:
            raise ValueError(
                f"{self.name} of {x.shape} makes bytes [{rows}, {self.row_bytes(columns)}], not {out.shape}"
            )
        if importance is None and self.needs_importance:
            raise ValueError(f"{self.name} is only made by importance: it needs an importance matrix")
        if importance is not None and importance.shape != (columns,):
            raise ValueError(f"importance of {importance.shape} for rows of {columns} columns")

    def _quantize_few(self, out: NDArray[np.uint8], x: NDArray[np.float32], importance: Importance) -> None:
        """Fewer blocks than a kernel makes at once: with rows of zeros behind them."""
        rows = -(-_LANES * self.block.columns // x.shape[1])
        enough = np.zeros((rows, x.shape[1]), np.float32)
        enough[: len(x)] = x
        out[:] = self.quantize(enough, importance)[: len(x)]

    def _quantize(self, out: NDArray[np.uint8], x: NDArray[np.float32], importance: Importance, threads: int) -> None:
        rows, columns = x.shape
        count = max(1, min(rows, x.size // _PIECE))
        pieces = deque(pairwise(rows * i // count for i in range(count + 1)))
        weights = 0 if importance is None else importance.ctypes.data
        kind = self.kernel.address, self.block.columns, self.block.bytes, self.row_means

        def work() -> None:
            scratch = aligned(_SCRATCH + _TABLE + 4 * -(-rows // count), np.uint8)
            with suppress(IndexError):  # no piece left
                while True:
                    first, last = pieces.popleft()
                    source, target = x[first:last].ctypes.data, out[first:last].ctypes.data
                    quantize_rows(*kind, source, weights, last - first, columns, target, scratch.ctypes.data)

        if min(threads, count) == 1:
            return work()
        with ThreadPoolExecutor(min(threads, count)) as pool:
            try:
                for done in [pool.submit(work) for _ in range(min(threads, count))]:
                    done.result()
            finally:
                pieces.clear()  # interrupted: each thread ends with the piece that it has


def _moderate(importance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Importance, float32 [columns], the largest brought near 1 if sums of products with it would leave float32.

    Only relations count, and a power of two changes none of them.
    """
    largest = float(importance.max(initial=0))
    if largest == 0 or 2.0**-_MODERATE < largest < 2.0**_MODERATE:
        return importance
    return np.ldexp(importance, -math.frexp(largest)[1]).astype(np.float32)


@function("pppppppppp")
def quantize_rows(kernel, block, size, row_means, x, importance, rows, columns, out, scratch):
    """float32 [rows, columns] of at least 16 blocks -> blocks; the last call of the kernel may make some a second time."""
    count, table = rows * columns // block, scratch + _SCRATCH
    means = table + _TABLE
    if importance and row_means:
        mean_squares(x, rows, columns, means)
    for group in range((count + 15) // 16):
        first = min(16 * group, count - 16)
        if importance:
            _tabulate(importance, means if row_means else 0, first, block, columns, table)
        call(kernel, (x + 4 * block * first, table if importance else 0, out + size * first, scratch))


@inline
def _tabulate(importance, means, first, block, columns, table):
    for lane in range(16):
        row, column = divmod(block * (first + lane), columns)
        store_i64(table + 8 * lane, importance + 4 * column)
        if means:
            store_f32(table + ROW_MEANS + 4 * lane, load_f32(means + 4 * row))


@cache
def find(name: str) -> Quantizer:
    """The quantizer of the type that GGUF calls `name`; KeyError if there is no file for it here."""
    if name not in names():
        raise KeyError(name)
    found: Quantizer = importlib.import_module(f"quant.quantizers.{name.lower()}").QUANTIZER
    return found


@cache
def names() -> tuple[str, ...]:
    """Every quantizer there is a file for."""
    return tuple(sorted(module.name.upper() for module in pkgutil.iter_modules(__path__)))


def is_finite(x: NDArray[np.float32]) -> bool:
    """Whether float32 of any shape, contiguous, holds neither an infinity nor a NaN."""
    whole = x.size // _LANES * _LANES
    flat = x.reshape(-1)
    return bool(_finite(flat.ctypes.data, whole)) and bool(np.isfinite(flat[whole:]).all())


@function("pp", returns=True)
def _finite(x, count):
    total = zero_f32x16()
    for i in range(count // 16):
        value = load_f32x16(x + 64 * i)
        total = add(total, sub(value, value))
    return 1 if sum_lanes(total) == 0 else 0
