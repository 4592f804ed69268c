"""Weights as kernels see them: an address, a format and a shape. The bytes stay where they are, in the mapped file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.formats import Format
from quant.jit import inline
from quant.layout import Layout
from quant.simd import load_i64

MATRIX = Layout(  # a matrix, or the same matrix of every expert, as kernels read it
    "addresses",  # int64 [experts] of the first rows; 0 for a matrix that is no expert's
    "scales",  # float32 [experts], of every product before the bias is added, or 0
    "bias",  # float32 [experts, rows], or 0
    "rows",
    "columns",
    "row_bytes",
    "group",  # columns that share a scale
    "dot",  # dot_rows of the format
    "unpack",  # unpack_tile of the format; 0 where only one token is multiplied
    "multiply",  # see quant.kernels.multiply, or in a step of several tokens quant.kernels.step_tiles; likewise
)


@dataclass(frozen=True)
class Matrix:
    """[rows, columns] blocks of one format; `data` is uint8 [rows, bytes per row].

    Every product is multiplied by `scale`, then a bias, float32 [rows], is added. The name is the tensor's, by which observers
    know the matrix, or "".
    """

    data: NDArray[np.uint8]
    format: Format
    columns: int
    bias: NDArray[np.float32] | None = None
    name: str = ""
    scale: float = 1.0

    def __post_init__(self) -> None:
        if (
            self.data.ndim != 2
            or not self.data.flags.c_contiguous
            or self.row_bytes != self.format.row_bytes(self.columns)
        ):
            raise ValueError(f"{self.data.shape} bytes are not {self.format.name} rows of {self.columns} columns")
        if self.columns % (16 if self.format.activation == "f32" else 32):
            raise ValueError(f"rows of {self.columns} columns: kernels need a multiple of 16 ({self.format.name})")
        if self.bias is not None and self.bias.shape != (self.rows,):
            raise ValueError(f"a bias {self.bias.shape} for {self.rows} rows")

    @property
    def rows(self) -> int:
        """Rows of the matrix: outputs of a product."""
        return len(self.data)

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next."""
        return int(self.data.shape[1])

    @property
    def address(self) -> int:
        """Where the first row begins."""
        return self.data.ctypes.data

    def part(self, first: int, last: int) -> Matrix:
        """Rows first to last."""
        bias = None if self.bias is None else self.bias[first:last]
        return replace(self, data=self.data[first:last], bias=bias)


@dataclass(frozen=True)
class ExpertMatrices:
    """The same matrix of every expert: `addresses` int64 [experts] of blocks [rows, columns] of one format.

    The addresses may change between replays (an expert may move); `keep` holds what they point into.
    Products are multiplied by scales, float32 [experts], then a bias, float32 [experts, rows], is added.
    """

    addresses: NDArray[np.int64]
    format: Format
    rows: int
    columns: int
    keep: object
    name: str = ""
    bias: NDArray[np.float32] | None = None
    scales: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.scales is not None and self.scales.shape != (self.count,):
            raise ValueError(f"scales {self.scales.shape} for {self.count} experts")
        if self.bias is not None and (self.bias.shape != (self.count, self.rows) or not self.bias.flags.c_contiguous):
            raise ValueError(f"a bias {self.bias.shape} for {self.count} experts of {self.rows} rows")

    @property
    def count(self) -> int:
        """How many experts there are."""
        return len(self.addresses)

    @property
    def row_bytes(self) -> int:
        """Bytes from one row of an expert to the next."""
        return self.format.row_bytes(self.columns)

    @property
    def bytes(self) -> int:
        """Bytes of one expert's matrix."""
        return self.rows * self.row_bytes


def experts_of(stacked: Matrix, count: int, first: int = 0, rows: int | None = None) -> ExpertMatrices:
    """Split [count * all rows, columns] into experts; `first` and `rows` choose a part of each expert's rows."""
    per_expert = stacked.rows // count
    rows = per_expert if rows is None else rows
    if per_expert * count != stacked.rows or first + rows > per_expert:
        raise ValueError(f"{stacked.rows} rows are not {count} experts with rows {first} to {first + rows}")
    addresses = stacked.address + (np.arange(count, dtype=np.int64) * per_expert + first) * stacked.row_bytes
    return ExpertMatrices(addresses, stacked.format, rows, stacked.columns, stacked, stacked.name)


def operands_of(weights: Matrix | ExpertMatrices, **kernels: Any) -> dict[str, Any]:
    """Fields of MATRIX; kernels: those for many tokens, if a table needs them. Of one matrix, its scale is the product's."""
    scales = weights.scales if isinstance(weights, ExpertMatrices) else None
    return {
        "addresses": weights.addresses if isinstance(weights, ExpertMatrices) else 0,
        "scales": 0 if scales is None else scales,
        "bias": 0 if weights.bias is None else weights.bias,
        "rows": weights.rows,
        "columns": weights.columns,
        "row_bytes": weights.row_bytes,
        "group": weights.format.group,
        "dot": weights.format.dot_rows,
        "unpack": 0,
        "multiply": 0,
        **kernels,
    }


@inline
def row_address(matrix: Any, expert: Any, row: Any) -> Any:
    """Where a row of an expert's matrix begins, given its MATRIX table."""
    return load_i64(load_i64(matrix + MATRIX.addresses) + 8 * expert) + row * load_i64(matrix + MATRIX.row_bytes)
