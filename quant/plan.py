"""A plan: the records of one forward pass, traced once in Python and replayed by a team without it.

A record is a kernel's address and its operands, all int64. An operand may be an integer, a float (passed as float32
bits), an array (its address, kept alive by the plan), a kernel (its address), or a function that is asked for one of
these when the plan is compiled. Nothing is compiled before that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from quant import activation
from quant.jit import Kernel
from quant.layout import Layout

OPERANDS = 25  # that a record has room for, after its kernel
RECORD_BYTES = 8 * (1 + OPERANDS)

T = TypeVar("T")
Ids = NDArray[np.int64]


def aligned(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeroed memory on a 64-byte border."""
    count = int(np.prod(shape))
    raw = np.zeros(count * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


BATCH = Layout("tokens", "position")


class Batch:
    """What one replay takes, in memory that kernels read by BATCH: its tokens, and the position of the first of them."""

    def __init__(self) -> None:
        self.table: NDArray[np.int64] = aligned(8, np.int64)  # a cache line

    @property
    def tokens(self) -> int:
        """How many there are."""
        return int(self.table[0])

    def set(self, tokens: int, position: int) -> None:
        """Before a replay: say what it takes."""
        self.table[: len(BATCH.names)] = BATCH.in_order({"tokens": tokens, "position": position})


Operand = int | float | NDArray[Any] | Kernel | Batch | Callable[[], Any]


# Python code that runs before each replay of a stage: a stage is replayed as often as it yields.
StageCallback = Callable[[], Iterator[None]]


class Activation:
    """Rows [tokens, columns] between two records, in the layouts that their readers ask for (see quant.activation)."""

    def __init__(self, tokens: int, columns: int) -> None:
        self.tokens, self.columns = tokens, columns
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def stride(self, kind: str) -> int:
        """Bytes from one token's row to the next."""
        return activation.row_bytes(kind, self.columns)

    def read(self, kind: str) -> NDArray[np.uint8]:
        """The rows in this layout; whoever writes the activation will fill it."""
        if kind != "f32" and self.columns % 32:
            raise ValueError(f"quantized activations need a multiple of 32 columns, not {self.columns}")
        if kind not in self._buffers:
            self._buffers[kind] = aligned((self.tokens, self.stride(kind)), np.uint8)
        return self._buffers[kind]

    def written(self, kind: str) -> Callable[[], NDArray[np.uint8] | int]:
        """For the writer's record: the rows in this layout, or 0 if nobody reads it."""
        return lambda: self._buffers.get(kind, 0)

    @property
    def layouts(self) -> list[NDArray[np.uint8]]:
        """The memory of every layout that anybody has asked for."""
        return list(self._buffers.values())

    def after(self, first: int) -> Activation:
        """The float32 rows from `first` on, in the same memory."""
        tail = Activation(self.tokens - first, self.columns)
        tail._buffers["f32"] = self.read("f32")[first:]
        return tail

    @property
    def values(self) -> NDArray[np.float32]:
        """float32 [tokens, columns]."""
        return self.read("f32").view(np.float32)[:, : self.columns]


class Plan:
    """Records in order; `tokens` is the most that one replay takes, `batch` tells what this replay takes.

    Buffers between records are asked for by name, so that all layers share them. `weight_bytes` adds up what one token
    reads of the weights.
    """

    def __init__(self, tokens: int, threads: int, batch: Batch, *hooks: object) -> None:
        """hooks: what others want to do with the plan while it is traced, see `hook`; None stands for nothing."""
        self.tokens, self.threads, self.batch = tokens, threads, batch
        self._hooks = hooks
        self._records: list[tuple[Kernel, tuple[Operand, ...]]] = []
        self._scratch_bytes = 64
        self._scratch: NDArray[np.uint8] | None = None
        self._kept: list[Any] = []
        self._kernels: dict[Kernel, None] = {}
        self._activations: dict[tuple[str, int, int], Activation] = {}
        self._buffers: dict[tuple[str, int | tuple[int, ...]], NDArray[Any]] = {}
        self._once: dict[Any, Any] = {}
        self.weight_bytes = 0
        self._stages: list[tuple[int, StageCallback | None]] = [(0, None)]
        self.part = ""  # of the model that the next records belong to
        self.parts: list[str] = []  # of each record

    def activation(self, name: str, columns: int, tokens: int | None = None) -> Activation:
        """The activation of this name, [tokens, columns]; tokens: as many as the plan takes."""
        tokens = self.tokens if tokens is None else tokens
        return self._activations.setdefault((name, tokens, columns), Activation(tokens, columns))

    def buffer(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """The buffer of this name and shape, zeroed once."""
        if (name, shape) not in self._buffers:
            self._buffers[name, shape] = aligned(shape, dtype)
        return self._buffers[name, shape]

    def once(self, key: Any, build: Callable[[], T]) -> T:
        """What `build` gave when `key` was new: for records whose result many layers read."""
        if key not in self._once:
            self._once[key] = build()
        result: T = self._once[key]
        return result

    def keep(self, *objects: Any) -> None:
        """Hold what a record knows only by its address."""
        self._kept.extend(objects)

    def hook(self, kind: type[Any]) -> Any:
        """The hook of this class, or None: code that traces a model asks it at the places the class speaks of."""
        return next((hook for hook in self._hooks if isinstance(hook, kind)), None)

    def use(self, kernel: Kernel) -> Kernel:
        """Note a kernel that is called through an address in a buffer, not by a record."""
        self._kernels[kernel] = None
        return kernel

    def add(self, kernel: Kernel, *operands: Operand) -> None:
        """Append a record; its kernel gets (rank, size, *operands)."""
        if len(operands) > OPERANDS or len(operands) + 2 != len(kernel.parameters):
            raise ValueError(
                f"{kernel.name} takes {len(kernel.parameters) - 2} operands of {OPERANDS}, not {len(operands)}"
            )
        for used in (kernel, *operands):
            if isinstance(used, Kernel):
                self.use(used)
        self._records.append((kernel, operands))
        self.parts.append(self.part)

    def table(self, layout: Layout, **operands: Operand) -> Operand:
        """An operand: the address of a table of this layout, whose fields are resolved when the plan is compiled."""
        return self.tables(layout, [operands])

    def tables(self, layout: Layout, rows: Sequence[dict[str, Operand]]) -> Operand:
        """The same for several tables, one behind the other, `layout.bytes` apart."""
        ordered = [layout.in_order(row) for row in rows]
        for used in (used for row in ordered for used in row):
            if isinstance(used, Kernel):
                self.use(used)
        filled = aligned((len(ordered), len(layout.names)), np.int64)

        def fill() -> NDArray[np.int64]:
            for line, row in zip(filled, ordered, strict=True):
                line[:] = [self._resolve(operand) for operand in row]
            return filled

        return fill

    def rows_of(self, x: Activation) -> Operand:
        """An operand: the table of quant.activation.ROWS, by which a kernel writes x in the layouts that are read."""
        f32, q8, residual = (x.written(kind) for kind in ("f32", "q8", "residual"))
        strides = {"f32_stride": x.stride("f32"), "q8_stride": x.stride("q8")}
        return self.table(activation.ROWS, f32=f32, q8=q8, residual=residual, **strides)

    def begin_stage(self, callback: StageCallback | None) -> None:
        """End a stage: the records that follow are replayed whenever the callback yields; without one, just once."""
        self._stages.append((len(self._records), callback))

    def stages(self) -> list[tuple[slice, StageCallback | None]]:
        """The records of each stage, in order, and its callback."""
        ends = [first for first, _ in self._stages[1:]] + [len(self._records)]
        pairs = zip(self._stages, ends, strict=True)
        return [(slice(first, end), callback) for (first, callback), end in pairs if end > first]

    def scratch(self, size: int) -> tuple[Operand, Operand]:
        """Two operands: the base of scratch memory and the bytes between threads, at least `size`."""
        self._scratch_bytes = max(self._scratch_bytes, -(-size // 64) * 64)
        return self._scratch_base, lambda: self._scratch_bytes

    def _scratch_base(self) -> NDArray[np.uint8]:
        if self._scratch is None:
            self._scratch = aligned(self.threads * self._scratch_bytes, np.uint8)
        return self._scratch

    @property
    def n_bytes(self) -> int:
        """Memory of its buffers, once it is compiled."""
        rows = [array for activation in self._activations.values() for array in activation.layouts]
        return sum(array.nbytes for array in (*rows, *self._buffers.values(), self._scratch_base()))

    def kernels(self) -> list[Kernel]:
        """Every kernel that a replay may call."""
        return list(self._kernels)

    def compile(self) -> NDArray[np.int64]:
        """int64 [records, 1 + OPERANDS]: compile the kernels and resolve every operand."""
        compiled = aligned((len(self._records), 1 + OPERANDS), np.int64)
        for row, (kernel, operands) in zip(compiled, self._records, strict=True):
            row[0] = kernel.address
            row[1 : 1 + len(operands)] = [self._resolve(operand) for operand in operands]
        return compiled

    def _resolve(self, operand: Operand) -> int:
        while callable(operand) and not isinstance(operand, Kernel):
            operand = operand()
        if isinstance(operand, Kernel):
            return operand.address
        if isinstance(operand, Batch):
            operand = operand.table
        if isinstance(operand, np.ndarray):
            self._kept.append(operand)
            return operand.ctypes.data
        if isinstance(operand, float):
            return int(struct.unpack("<i", struct.pack("<f", operand))[0])
        return int(operand)
