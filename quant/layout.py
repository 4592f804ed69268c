"""Tables of operands: a kernel that needs more than a few reads them from a table, each by its name.

    MATRIX = Layout("rows", "row_bytes", "scale")                     # declared once, beside the kernel
    load_i64(matrix + MATRIX.rows), load_f32(matrix + MATRIX.scale)   # in compiled code: the field's offset in bytes
    plan.table(MATRIX, rows=16, row_bytes=144, scale=0.5)             # the writer; every field by name

A field is eight bytes: an integer, an address, or a float32 in the lower four.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from operator import itemgetter
from typing import Any

FIELD_BYTES = 8


class Layout:
    """Named fields of a table, in order; an attribute is the offset of its field in bytes."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.bytes = FIELD_BYTES * len(names)
        self._offsets = {name: FIELD_BYTES * i for i, name in enumerate(names)}
        self.pack_into = struct.Struct(f"={len(names)}q").pack_into  # (memory, offset, *values): write a table
        self._in_order = itemgetter(*names) if len(names) > 1 else lambda values: (values[names[0]],)
        if len(self._offsets) != len(names):
            raise ValueError(f"a field is named twice: {names}")

    def __getattr__(self, name: str) -> int:
        try:
            offset: int = self.__dict__["_offsets"][name]
        except KeyError:
            raise AttributeError(f"no field is called {name!r}") from None
        return offset

    def in_order(self, values: dict[str, Any]) -> tuple[Any, ...]:
        """The values of all fields, by name, in the table's order; TypeError if one is missing or unknown."""
        try:
            ordered: tuple[Any, ...] = self._in_order(values)
        except KeyError:
            ordered = ()
        if len(values) == len(ordered):  # quicker than to compare the names
            return ordered
        wrong = sorted(values.keys() ^ self._offsets.keys())
        raise TypeError(f"fields missing or unknown: {', '.join(wrong)}")

    def as_constants(self) -> Any:
        """The offsets as a named tuple, which compiled code reads as constants."""
        kind: Any = namedtuple  # whose names are not written here
        return kind("Offsets", [*self.names, "bytes"])(*self._offsets.values(), self.bytes)
