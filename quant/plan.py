"""A plan: the records of one forward pass, traced once in Python and then replayed by threads without Python.

Trace. A model's Python code runs once, with a plan instead of numbers. It computes nothing: `plan.add(kernel, *operands)`
appends a record, and `plan.activation(name, columns)` gives memory for what passes from one record to the next. An operand
is an int64 in the end (`quant.operands`): an integer, a float (its float32 bits), an array or a `Batch` (their address, the
memory kept alive by the plan), a kernel (its address), a table of operands (`plan.table`), or a function that is asked for
one of these when the plan is compiled.

Compile. `plan.compile()` compiles the kernels, or loads them from the kernel cache, and resolves every operand: int64 [records,
RECORD], the address of the kernel, into how many shares each thread's part is cut, then its operands.

Replay. `quant.team.Team.run` walks through these records. The work of each is cut into shares: for each of them some thread
calls the kernel with its rank among the shares, their number and the operands, and the next record begins when all are done.
What differs from one replay to the next is in the memory that operands point to: token ids, `batch` (how many tokens, and
the position of the first), and the state of the model. Where Python has something to do between records, it begins a stage.

Memory that is shared by name. All layers ask for the same few names, so a plan needs the memory of one layer:

- Same name, same shape: the same memory (`activation`, `buffer`), as long as the plan exists. Zero at the beginning only.
- The record that writes a name fills the rows of this replay's tokens; rows behind them hold what they held before. It
  writes those layouts of an activation that anybody has asked for by `read`, before or after the writer was traced.
- The contents live until the next record that writes the same name, often the same step of the next layer. So a reader
  comes between the two; if a record needs something longer, it gets a name of its own. Nothing is left for the next replay:
  what has to stay is state, and belongs to whoever traces.
- Four names are added to rather than filled: the residual stream "x", by every part of a layer; "added", where a norm
  follows a part, zero again after it was added to x; "both", likewise, for two such parts; "latent added", cleared before.
- `once` is for what all layers read and none writes again, such as the angles of a position.
- `scratch` belongs to one share of one record: its contents mean nothing before and after.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from quant import activation
from quant.batch import Batch, Slots
from quant.jit import Kernel
from quant.layout import FIELD_BYTES, Layout
from quant.operands import Noted, Operands, address_of
from quant.operands import Operand as Operand  # what traces records imports it from here

OPERANDS = 10  # that a record has room for; what needs more reads a table
RECORD = 2 + OPERANDS  # int64: the kernel, shares of a thread, operands
RECORD_BYTES = 8 * RECORD
_TABLE_WORDS = 8192  # int64 that tables are given memory for at a time
_RECORDS = [struct.Struct(f"={n + 2}q").pack_into for n in range(OPERANDS + 1)]

T = TypeVar("T")
Ids = NDArray[np.int64]


def aligned(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeroed memory on a 64-byte border."""
    size = np.dtype(dtype).itemsize * (shape if isinstance(shape, int) else math.prod(shape))
    raw = np.zeros(size + 64, np.uint8)
    start = -address_of(raw) % 64
    memory: NDArray[Any] = raw[start : start + size].view(dtype).reshape(shape)
    return memory


# Python code that runs before each replay of a stage: a stage is replayed as often as it yields.
StageCallback = Callable[[], Iterator[None]]


class Activation:
    """Rows [tokens, columns] that pass from one record to others, in the layouts that those read (see quant.activation)."""

    def __init__(self, tokens: int, columns: int) -> None:
        self.tokens, self.columns = tokens, columns
        self._buffers: dict[str, NDArray[np.uint8]] = {}
        self._whole: Activation | None = None  # that this one is a part of

    def stride(self, kind: str) -> int:
        """Bytes from one token's row to the next."""
        return activation.row_bytes(kind, self._whole.columns if self._whole else self.columns)

    def read(self, kind: str) -> NDArray[np.uint8]:
        """For a reader's record: the rows in this layout, uint8 [tokens, stride], which the writer will fill, too."""
        if kind != "f32" and self.columns % 32:
            raise ValueError(f"quantized activations need a multiple of 32 columns, not {self.columns}")
        if kind not in self._buffers:
            self._buffers[kind] = aligned((self.tokens, self.stride(kind)), np.uint8)
        return self._buffers[kind]

    def written(self, kind: str) -> Callable[[], NDArray[np.uint8] | int]:
        """For the writer's record: the rows in this layout, or 0 if no record reads it; known when the plan is compiled."""
        return lambda: self._buffers.get(kind, 0)

    @property
    def n_bytes(self) -> int:
        """Memory of every layout that is read."""
        return sum(array.nbytes for array in self._buffers.values())

    def after(self, first: int) -> Activation:
        """The float32 rows from `first` on, in the same memory."""
        tail = Activation(self.tokens - first, self.columns)
        tail._buffers["f32"] = self.read("f32")[first:]
        return tail

    def part(self, first: int, columns: int) -> Activation:
        """So many columns from `first` on, float32 alone, in the same memory: for who writes or reads these."""
        part = Activation(self.tokens, columns)
        part._whole, part._buffers["f32"] = self, self.read("f32")[:, 4 * first : 4 * (first + columns)]
        return part

    @property
    def values(self) -> NDArray[np.float32]:
        """float32 [tokens, columns]."""
        return self.read("f32").view(np.float32)[:, : self.columns]


class Plan:
    """Records in order, for at most `tokens` tokens a replay and `threads` threads; `batch`: what the next replay takes.

    In a stepwise plan every token of a replay is computed as in a step of its own, by the same sums in the same order, while
    weights are read once for all: a plan of one token, of a few that are guessed, of one of each of several texts.

    `weight_bytes` adds up the bytes of weights that one token reads; `part` is the part of the model that the records which
    follow belong to, as profiles name it, and `parts` holds that of each record.
    """

    def __init__(
        self,
        tokens: int,
        threads: int,
        batch: Batch,
        *hooks: object,
        stepwise: bool = False,
        slots: Slots | None = None,
    ) -> None:
        """hooks: objects that take part in tracing, see `hook`; None is no hook. stepwise: also with several tokens.

        slots: where tokens are of several texts, the memory of these.
        """
        self.tokens, self.threads, self.batch = tokens, threads, batch
        self.stepwise = stepwise or tokens == 1
        self.rows = batch if tokens > 1 else Batch(1)  # those of its activations: one in a plan of one token
        self._hooks, self._slots = hooks, slots
        self._records: list[tuple[Kernel, int, list[Noted]]] = []
        self._tables: list[tuple[Callable[..., None], memoryview, int, list[Noted]]] = []  # memory, where in it, fields
        self._table_memory, self._table_address, self._free = memoryview(b""), 0, 0  # the last: where nothing is yet
        self._operands, self._scratch, self._kept = Operands(), _Scratch(), list[Any]()
        self.kernels = self._operands.kernels  # every kernel that a replay may call
        self._activations: dict[tuple[str, int, int], Activation] = {}
        self._buffers: dict[tuple[str, int | tuple[int, ...]], NDArray[Any]] = {}
        self._once: dict[Any, Any] = {}
        self._stages: list[tuple[int, StageCallback | None]] = [(0, None)]
        self.weight_bytes, self.part, self.parts = 0, "", list[str]()

    def activation(self, name: str, columns: int, tokens: int | None = None) -> Activation:
        """The activation of this name, [tokens, columns]; tokens: by default as many as the plan takes."""
        key = name, self.tokens if tokens is None else tokens, columns
        return self._activations.get(key) or self._activations.setdefault(key, Activation(key[1], columns))

    def buffer(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """The buffer of this name and shape, zero at the beginning."""
        if (name, shape) not in self._buffers:
            self._buffers[name, shape] = aligned(shape, dtype)
        return self._buffers[name, shape]

    def once(self, key: Any, build: Callable[[], T]) -> T:
        """What `build` returned when `key` was new: it adds records whose result many layers read."""
        if key not in self._once:
            self._once[key] = build()
        result: T = self._once[key]
        return result

    def share(self, other: Plan) -> None:
        """Take memory from another plan by name, from now on: each of the two writes over what the other one's replay left."""
        self._activations, self._buffers = other._activations, other._buffers

    def keep(self, *objects: Any) -> None:
        """Keep objects alive, whose memory records know by its address only."""
        self._kept.extend(objects)

    def hook(self, kind: type[Any]) -> Any:
        """The hook of a class, or None.

        The class is declared beside the code that asks for its hook and calls it while tracing: so a plan knows none of
        them. Hooks may add records of their own.
        """
        return next((hook for hook in self._hooks if isinstance(hook, kind)), None)

    def slotted(self, array: NDArray[Any]) -> tuple[Operand, int]:
        """What this plan has in place of a state's array: its first text's, and the bytes from one text's to the next's."""
        return self._slots.of(array) if self._slots else (array, 0)

    def in_place_of(self, array: NDArray[Any]) -> tuple[int, ...]:
        """The shape, for one text, of what this plan has in place of a state's array."""
        return self._slots.like(array).shape[1:] if self._slots else array.shape

    def use(self, kernel: Kernel) -> Kernel:
        """Note a kernel that is not a record's, but called through its address."""
        self.kernels[kernel] = None
        return kernel

    def add(self, kernel: Kernel, *operands: Operand, shares: int = 1) -> None:
        """Append a record; its kernel gets (rank, size, *operands).

        shares: of each thread. With more than one, threads that are done take what others, slower ones, have not begun.
        """
        if len(operands) > OPERANDS or len(operands) + 2 != len(kernel.parameters):
            most = min(OPERANDS, len(kernel.parameters) - 2)
            raise ValueError(f"{kernel.name} takes {most} operands, not {len(operands)}")
        self._records.append((self.use(kernel), shares, self._operands.noted(operands)))
        self.parts.append(self.part)

    def table(self, layout: Layout, **operands: Operand) -> int:
        """An operand: the address of a table of this layout, whose fields are resolved when the plan is compiled."""
        return self.tables(layout, [operands])

    def tables(self, layout: Layout, rows: Sequence[dict[str, Operand]]) -> int:
        """The same for several tables, one behind the other, `layout.bytes` apart."""
        first = self._room_for_tables(len(rows) * layout.bytes)
        for row in rows:
            fields = self._operands.noted(layout.in_order(row))
            self._tables.append((layout.pack_into, self._table_memory, self._free, fields))
            self._free += layout.bytes
        return first

    def _room_for_tables(self, size: int) -> int:
        """The address of so many bytes, behind the last table: a record finds its tables in neighbouring cache lines."""
        if self._free + size > self._table_memory.nbytes:
            words = aligned(max(size // FIELD_BYTES, _TABLE_WORDS), np.int64)
            self._table_memory, self._table_address, self._free = words.data, address_of(words), 0
        return self._table_address + self._free

    def output(self, x: Activation) -> int:
        """An operand for the writer of x: the table of quant.activation.OUTPUT, with the layouts that records read."""

        def table() -> int:
            f32, q8, residual = (x.written(kind) for kind in ("f32", "q8", "residual"))
            strides = {"f32_stride": x.stride("f32"), "q8_stride": x.stride("q8")}
            return self.table(activation.OUTPUT, f32=f32, q8=q8, residual=residual, **strides)

        return self.once(("output", x), table)

    def begin_stage(self, callback: StageCallback | None) -> None:
        """End a stage: the records that follow are replayed whenever the callback yields; without one, just once."""
        self._stages.append((len(self._records), callback))

    def stages(self) -> list[tuple[slice, StageCallback | None]]:
        """The records of each stage, in order, and its callback."""
        ends = [first for first, _ in self._stages[1:]] + [len(self._records)]
        pairs = zip(self._stages, ends, strict=True)
        return [(slice(first, end), callback) for (first, callback), end in pairs if end > first]

    def scratch(self, size: int) -> tuple[Operand, Operand]:
        """Two operands: the base of scratch memory and the bytes between shares, at least `size`."""
        self._scratch.bytes = max(self._scratch.bytes, -(-size // 64) * 64)
        return self._scratch.memory, self._scratch.stride

    @property
    def _shares(self) -> int:
        """Into how many a record is cut at most."""
        return self.threads * max((shares for _, shares, _ in self._records), default=1)

    @property
    def n_bytes(self) -> int:
        """Memory of its buffers, once it is compiled."""
        rows = sum(activation.n_bytes for activation in self._activations.values())
        return rows + sum(array.nbytes for array in self._buffers.values()) + self._shares * self._scratch.bytes

    def compile(self) -> NDArray[np.int64]:
        """int64 [records, RECORD]: compile the kernels and resolve every operand."""
        self._scratch.allocate(self._shares)
        for pack_into, memory, at, fields in self._tables:
            pack_into(memory, at, *self._operands.resolved(fields))
        compiled = aligned((len(self._records), RECORD), np.int64)
        for row, (kernel, shares, operands) in enumerate(self._records):
            numbers = kernel.address, shares, *self._operands.resolved(operands)
            _RECORDS[len(operands)](compiled.data, RECORD_BYTES * row, *numbers)
        return compiled


class _Scratch:
    """Scratch memory: so many bytes for each share of a record. Its methods are operands, which do not hold the plan: one
    that is dropped is freed at once."""

    def __init__(self) -> None:
        self.bytes = 64
        self._memory = aligned(0, np.uint8)

    def allocate(self, shares: int) -> None:
        """When no record can ask for more any longer."""
        self._memory = aligned(shares * self.bytes, np.uint8)

    def memory(self) -> NDArray[np.uint8]:
        """That of the first share."""
        return self._memory

    def stride(self) -> int:
        """Bytes from one share's to the next one's."""
        return self.bytes
