"""Blocks: how a quant type packs some columns of a row into bytes, declared once, at the top of its file in quant.formats.

    BLOCK = Block("Q8_0", number=8, columns=32, d=Scale("f16", 1 / 127), qs=32)

    BLOCK.columns, BLOCK.bytes, BLOCK.qs   # 32, 34, 2: in NumPy and, as constants, in compiled code
    d, qs = BLOCK.split(data)              # the fields of all blocks of some rows

Each keyword is a field, in order, with the name that ggml's structs give it: a number of bytes, or what they hold
(Scale, Ternary, Weight). An attribute is the offset of its field in bytes.

Compiled helpers that several types share take the block, not its numbers: each call is compiled with that type's
constants, as if they had been written into the helper's loops.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scale:
    """`count` numbers that all weights of a block, or of a part of it, are multiples of, or are shifted by.

    unit: the value with which a block of otherwise random bits has weights of about mean 0 and standard deviation 1.
    """

    encoding: Literal["f16", "f16 in nibbles", "e8m0", "ue4m3"]
    unit: float
    count: int = 1

    @property
    def bytes(self) -> int:
        """Bytes of all of them; "f16 in nibbles" is the top four bits of four uint16, the lowest ones first."""
        return self.count * {"f16": 2, "f16 in nibbles": 8, "e8m0": 1, "ue4m3": 1}[self.encoding]


@dataclass(frozen=True)
class Ternary:
    """Bytes of 2-bit numbers that are 0, 1 or 2, never 3."""

    bytes: int


@dataclass(frozen=True)
class Weight:
    """A block that is one weight, as a float."""

    encoding: Literal["f32", "f16", "bf16"]

    @property
    def bytes(self) -> int:
        """Bytes of the weight."""
        return 4 if self.encoding == "f32" else 2


_FORMATS = Path(__file__).parent / "formats"
_DECLARATION = re.compile(r"^BLOCK = (Block\(.*?\))$", re.MULTILINE | re.DOTALL)

Field = int | Scale | Ternary | Weight


class Block:
    """The block of one of ggml's tensor types: `columns` weights in `bytes` bytes; `number` is what files call the type."""

    def __init__(self, name: str, *, number: int, columns: int, **fields: Field) -> None:
        self.name, self.number, self.columns = name, number, columns
        self.fields = fields
        self.offsets: dict[str, int] = {}
        self.bytes = 0
        for field, holds in fields.items():
            self.offsets[field] = self.bytes
            self.bytes += holds if isinstance(holds, int) else holds.bytes

    def __getattr__(self, field: str) -> int:
        try:
            offset: int = self.__dict__["offsets"][field]
        except KeyError:
            raise AttributeError(f"no field is called {field!r}") from None
        return offset

    def __repr__(self) -> str:
        return f"Block({self.name}: {self.columns} columns in {self.bytes} bytes)"

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns`, a multiple of the block's."""
        return columns // self.columns * self.bytes

    def split(self, data: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """uint8 [rows, row bytes] -> each field in order: "f16" scales as float32 [rows, blocks, count], others as they
        are, uint8 [rows, blocks, bytes].
        """
        blocks = data.reshape(data.shape[0], -1, self.bytes)
        ends = [*self.offsets.values(), self.bytes][1:]
        parts = [blocks[..., at:end] for at, end in zip(self.offsets.values(), ends, strict=True)]
        return [
            halves(part) if isinstance(holds, Scale) and holds.encoding == "f16" else part
            for holds, part in zip(self.fields.values(), parts, strict=True)
        ]

    def as_constants(self) -> ModuleType:
        """Columns, bytes and the offsets of all fields as attributes of a module, which compiled code reads as constants."""
        constants = ModuleType(self.name)
        vars(constants).update(columns=self.columns, bytes=self.bytes, **self.offsets)
        return constants


@cache
def declared() -> dict[str, Block]:
    """The block of every quant type by its name.

    Declarations are read without the rest of their files: kernels import LLVM, which takes 0.1 s that whoever only looks
    into a model file need not wait.
    """
    return {path.stem.upper(): _declaration(path) for path in sorted(_FORMATS.glob("[a-z]*.py"))}


def _declaration(path: Path) -> Block:
    found = _DECLARATION.search(path.read_text("utf-8"))
    if not found:
        raise TypeError(f"{path.name} declares no BLOCK")
    block: Block = eval(found[1])
    return block


def halves(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [..., 2n] holding float16 -> float32 [..., n]."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def rows_of(values: NDArray[Any]) -> NDArray[np.float32]:
    """[rows, blocks, …] -> float32 [rows, columns]."""
    return values.reshape(values.shape[0], -1).astype(np.float32, copy=False)
