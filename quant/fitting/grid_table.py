"""Tables for quant.fitting.grid_search, one a grid; compiled code holds them.

 0  float32 level[8]    what the codes of a value stand for; those that a value does not have are 0
32  float32 other[8]    the same with the other shift, for IQ1
64  of each point, 8 bytes: uint16 first, uint16 second: where the errors of its halves are, in bytes from the begin of
    the search's tables of them; uint32 word: its codes, and its index from bit 16 on
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quant.blocks.grids import codes, constant_bytes
from quant.declarations import Intrinsic
from quant.jit import intrinsic

OTHER_LEVELS, RECORDS, RECORD_BYTES = 32, 64, 8  # bytes


def search_table(name: str, width: int, levels: Sequence[float], others: Sequence[float] = ()) -> Intrinsic:
    """Declare an intrinsic, the address of a grid's table.

    width: values of a point, 8 or 4; levels: what the codes 0, 1, … of a value stand for; others: with the other shift.
    """

    def generate(builder: Any) -> Any:
        values = np.zeros((2, 8), np.float32)
        values[0, : len(levels)], values[1, : len(others)] = levels, others
        table = np.concatenate([values.reshape(-1).view(np.uint8), _records(name, width).view(np.uint8)])
        return constant_bytes(builder, f"{name}.search", table)

    return intrinsic(lambda: ("i64", generate))


def _records(name: str, width: int) -> np.ndarray[Any, Any]:
    packed, bits = codes(name).astype(np.uint32), 2 if width == 8 else 3
    each = packed[:, None] >> np.arange(width, dtype=np.uint32) * np.uint32(bits) & np.uint32((1 << bits) - 1)
    places = (3 if width == 8 else 8) ** np.arange(width // 2, dtype=np.uint32) * 64
    first, second = each[:, : width // 2] @ places, each[:, width // 2 :] @ places
    words = packed | np.arange(len(packed), dtype=np.uint32) << 16
    records = np.zeros(len(packed), np.dtype([("first", "<u2"), ("second", "<u2"), ("word", "<u4")]))
    records["first"], records["second"], records["word"] = first, second, words
    return records
