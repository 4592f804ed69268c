"""A plan: the records of one forward pass, traced once in Python and then replayed by threads without Python.

Trace. A model's Python code runs once, with a plan instead of numbers. It computes nothing: `plan.add(kernel, *operands)`
appends a record, and `plan.activation(name, columns)` gives memory for what passes from one record to the next. An operand
is an int64 in the end: an integer, a float (its float32 bits), an array or a `Batch` (their address, the memory kept alive
by the plan), a kernel (its address), a table of operands (`plan.table`), or a function that is asked for one of these when
the plan is compiled.

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
from quant.layout import Layout

OPERANDS = 10  # that a record has room for; what needs more reads a table
RECORD = 2 + OPERANDS  # int64: the kernel, shares of a thread, operands
RECORD_BYTES = 8 * RECORD
_TABLE_WORDS = 8192  # int64 that tables are given memory for at a time
_FLOAT32, _RECORDS = struct.Struct("<f").pack, [struct.Struct(f"={n + 2}q").pack_into for n in range(OPERANDS + 1)]

T = TypeVar("T")
Ids = NDArray[np.int64]


def aligned(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeroed memory on a 64-byte border."""
    size = np.dtype(dtype).itemsize * (shape if isinstance(shape, int) else math.prod(shape))
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    memory: NDArray[Any] = raw[start : start + size].view(dtype).reshape(shape)
    return memory


Operand = int | float | NDArray[Any] | Kernel | Batch | Callable[[], Any]


# Python code that runs before each replay of a stage: a stage is replayed as often as it yields.
StageCallback = Callable[[], Iterator[None]]


class Activation:
    """Rows [tokens, columns] that pass from one record to others, in the layouts that those read (see quant.activation)."""

    def __init__(self, tokens: int, columns: int) -> None:
        self.tokens, self.columns = tokens, columns
        self._buffers: dict[str, NDArray[np.uint8]] = {}
        self._whole: Activation = self  # that this one is a part of

    def stride(self, kind: str) -> int:
        """Bytes from one token's row to the next."""
        return activation.row_bytes(kind, self._whole.columns)

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
        self._records: list[tuple[Kernel, int, tuple[Operand, ...]]] = []
        self._scratch_bytes = 64
        self._scratch: NDArray[np.uint8] | None = None
        self._kept, self._addresses = list[Any](), dict[int, int]()  # the latter are of arrays among them, by id
        self._free_words: NDArray[np.int64] = aligned(0, np.int64)  # behind the last table
        self.kernels: dict[Kernel, None] = {}  # every kernel that a replay may call
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
        for used in (kernel, *operands):
            if isinstance(used, Kernel):
                self.use(used)
        self._records.append((kernel, shares, operands))
        self.parts.append(self.part)

    def table(self, layout: Layout, **operands: Operand) -> Operand:
        """An operand: the address of a table of this layout, whose fields are resolved when the plan is compiled."""
        return self.tables(layout, [operands])

    def tables(self, layout: Layout, rows: Sequence[dict[str, Operand]]) -> Operand:
        """The same for several tables, one behind the other, `layout.bytes` apart."""
        ordered = [layout.in_order(row) for row in rows]
        for kernel in [used for row in ordered for used in row if isinstance(used, Kernel)]:
            self.use(kernel)
        filled = self._table_words(len(ordered) * len(layout.names))

        def fill() -> NDArray[np.int64]:
            for at, row in zip(range(0, filled.nbytes, layout.bytes), ordered, strict=True):
                layout.pack_into(filled.data, at, *self._resolved(row))
            return filled

        return fill

    def _table_words(self, count: int) -> NDArray[np.int64]:
        """Memory for a table, right behind the last one: a record finds its tables in neighbouring cache lines."""
        if len(self._free_words) < count:
            self._free_words = aligned(max(count, _TABLE_WORDS), np.int64)
        words, self._free_words = self._free_words[:count], self._free_words[count:]
        return words

    def output(self, x: Activation) -> Operand:
        """An operand for the writer of x: the table of quant.activation.OUTPUT, with the layouts that records read."""
        f32, q8, residual = (x.written(kind) for kind in ("f32", "q8", "residual"))
        strides = {"f32_stride": x.stride("f32"), "q8_stride": x.stride("q8")}
        return self.table(activation.OUTPUT, f32=f32, q8=q8, residual=residual, **strides)

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
        self._scratch_bytes = max(self._scratch_bytes, -(-size // 64) * 64)
        return self._scratch_base, lambda: self._scratch_bytes

    def _scratch_base(self) -> NDArray[np.uint8]:
        if self._scratch is None:
            shares = max((shares for _, shares, _ in self._records), default=1)
            self._scratch = aligned(self.threads * shares * self._scratch_bytes, np.uint8)
        return self._scratch

    @property
    def n_bytes(self) -> int:
        """Memory of its buffers, once it is compiled."""
        rows = sum(activation.n_bytes for activation in self._activations.values())
        return rows + sum(array.nbytes for array in (*self._buffers.values(), self._scratch_base()))

    def compile(self) -> NDArray[np.int64]:
        """int64 [records, RECORD]: compile the kernels and resolve every operand."""
        compiled = aligned((len(self._records), RECORD), np.int64)
        for row, (kernel, shares, operands) in enumerate(self._records):
            fields = kernel.address, shares, *self._resolved(operands)
            _RECORDS[len(operands)](compiled.data, RECORD_BYTES * row, *fields)
        return compiled

    def _resolved(self, operands: Sequence[Operand]) -> list[int]:
        return [operand if type(operand) is int else self._resolve(operand) for operand in operands]

    def _resolve(self, operand: Operand) -> int:
        while callable(operand) and not isinstance(operand, Kernel):
            operand = operand()
        if isinstance(operand, np.ndarray):
            if (address := self._addresses.get(id(operand))) is None:
                self._kept.append(operand)
                address = self._addresses[id(operand)] = operand.__array_interface__["data"][0]  # quicker than .ctypes
            return address
        if isinstance(operand, Kernel):
            return operand.address
        if isinstance(operand, float):
            return int.from_bytes(_FLOAT32(operand), "little", signed=True)
        return self._resolve(operand.table) if isinstance(operand, Batch) else int(operand)  # also one of NumPy's
