"""Operands of records and tables as int64: at once where their number is known, else when the plan is compiled."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.batch import Batch
from quant.jit import Kernel

Operand = int | float | NDArray[Any] | Kernel | Batch | Callable[[], Any]
Noted = int | Kernel | Callable[[], Any]  # an operand until the plan is compiled
_FLOAT32 = struct.Struct("<f").pack


def address_of(array: NDArray[Any]) -> int:
    """Where an array begins; quicker than `.ctypes`."""
    address: int = array.__array_interface__["data"][0]
    return address


class Operands:
    """What becomes of the operands of a plan. Arrays are kept alive, as records know them by their address only.

    `kernels`: every one among the operands.
    """

    def __init__(self) -> None:
        self.kernels: dict[Kernel, None] = {}
        self._kept: dict[int, tuple[NDArray[Any], int]] = {}  # arrays by id, and where they begin

    def noted(self, operands: Sequence[Operand]) -> list[Noted]:
        """Operands, as far as they are known now, as int64."""
        return [operand if type(operand) is int else self._note(operand) for operand in operands]

    def resolved(self, noted: Sequence[Noted]) -> list[int]:
        """What was noted, as int64: kernels are compiled, functions asked."""
        return [operand if type(operand) is int else self._resolve(operand) for operand in noted]

    def _note(self, operand: Operand) -> Noted:
        if isinstance(operand, np.ndarray):
            if (kept := self._kept.get(id(operand))) is None:
                kept = self._kept[id(operand)] = operand, address_of(operand)
            return kept[1]
        if isinstance(operand, Kernel):
            self.kernels[operand] = None
            return operand
        if isinstance(operand, float):
            return int.from_bytes(_FLOAT32(operand), "little", signed=True)
        if isinstance(operand, Batch):
            return self._note(operand.table)
        return operand if callable(operand) else int(operand)  # also one of NumPy's

    def _resolve(self, operand: Noted) -> int:
        while not isinstance(operand, int):
            operand = operand.address if isinstance(operand, Kernel) else self._note(operand())
        return operand
