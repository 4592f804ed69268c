"""A model of a known shape with random weights, in memory: no file is read or written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.bench.random_blocks import random_blocks
from qcli.bench.shapes import Role, Shape
from qcli.errors import QcliError, UsageError
from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.header import Header, Value
from qcli.gguf.types import BLOCKS
from qcli.host.memory import available
from qcli.host.pages import pages
from qcli.host.threads import default_threads
from qcli.wording import counted
from quant import formats

Progress = Callable[[str, float], None]

_RESERVE = 2 << 30  # bytes of memory left to the state, the bandwidth's buffer and everybody else
_ALIGNMENT = 32  # bytes, as in a file
_PATTERN = 8 << 20  # random bytes of a type, which all its tensors repeat; F32 ones, routers among them, do not
_STD = 0.02  # of the weights, about

Mix = dict[Role, tuple[str, ...]]  # the types of a role, layer by layer in turn


def _mix(most: str, head: str = "", down: tuple[str, ...] = ()) -> Mix:
    mix: Mix = {"embedding": (most,), "mixer": (most,), "experts": (most,)}
    return mix | {"head": (head or most,), "down": down or (most,)}


# Types as files of these names have them; what is not listed is F32.
MIXES = {
    "q4_0": _mix("Q4_0", head="Q8_0"),
    "q4_k_m": _mix("Q4_K", head="Q6_K", down=("Q6_K", "Q4_K")),
    "q5_k_m": _mix("Q5_K", head="Q6_K", down=("Q6_K", "Q5_K")),
}


def quants() -> list[str]:
    """The names that `find_mix` knows: those of files, and every type, which all matrices then have."""
    return sorted({*MIXES, *(name.lower() for name in formats.names())})


def find_mix(name: str) -> Mix:
    """The types of a quantization; UsageError lists those there are."""
    if name.lower() not in quants():
        raise UsageError(f"no quantization is called {name!r}", f"--quant takes {', '.join(quants())}")
    return MIXES.get(name.lower()) or _mix(name.upper())


def layers_that_fit(shape: Shape, mix: Mix, wanted: int | None) -> int:
    """The layers wanted, or as many as memory holds: whole cycles of mixers if possible. QcliError if they do not fit."""
    room = available() - _RESERVE
    fitting = max((n for n in range(shape.layers + 1) if size_of(shape, mix, n) <= room), default=0)
    if (wanted or 1) > fitting:
        needed, free = (f"{count / 1e9:.1f} GB" for count in (size_of(shape, mix, wanted or 1), available()))
        hint = f"give --layers {fitting} or less" if fitting else "free some memory, or try a smaller --quant"
        raise QcliError(
            f"{counted(wanted or 1, 'layer')} of {shape.name} would take {needed}, and {free} of memory are free", hint
        )
    cycle = len(shape.mixers)
    return wanted or (fitting // cycle * cycle or fitting)


def size_of(shape: Shape, mix: Mix, layers: int) -> int:
    """Bytes of the weights of the first layers."""
    return _end(_slots(shape, mix, layers))


def random_file(shape: Shape, mix: Mix, layers: int, progress: Progress | None = None) -> GGUFFile:
    """The model cut to its first layers, as if it had been read from a file."""
    slots = list(_slots(shape, mix, layers))
    memory = pages(_end(slots), huge=False)
    path, tensors = Path(shape.name), {}
    with ThreadPoolExecutor(default_threads()) as pool:
        fill = _Filler(pool)
        for slot in slots:
            data = memory[slot.offset : slot.offset + slot.n_bytes]
            fill(data, slot.role, slot.type)
            data.flags.writeable = False
            blocks = data.reshape(math.prod(slot.shape[:-1]), -1)
            tensors[slot.name] = Tensor(slot.name, slot.type, slot.shape, blocks, path, slot.offset, slot.n_bytes)
            if progress:
                progress("making weights", slot.offset / len(memory))
    return GGUFFile(path, Header(3, _metadata(shape, layers), []), tensors)


@dataclass(frozen=True)
class _Slot:
    """A tensor, and its place in memory."""

    name: str
    role: Role
    type: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def _slots(shape: Shape, mix: Mix, layers: int) -> Iterator[_Slot]:
    offset = 0
    for name, role, dimensions in shape.rows(layers):
        types = mix.get(role, ("F32",))
        block = name.split(".")[1]
        kind = types[int(block) % len(types) if block.isdigit() else 0]
        n_bytes = BLOCKS[kind].row_bytes(math.prod(dimensions))
        yield _Slot(name, role, kind, dimensions, offset, n_bytes)
        offset += -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _end(slots: Iterable[_Slot]) -> int:
    return max(slot.offset + slot.n_bytes for slot in slots)


def _metadata(shape: Shape, layers: int) -> dict[str, Value]:
    keys = {**shape.keys, "block_count": layers, "context_length": shape.context}
    own: dict[str, Value] = {f"{shape.architecture}.{key}": value for key, value in keys.items()}
    return {"general.architecture": shape.architecture, "general.name": shape.name} | own


class _Filler:
    """Fills tensors, uint8 [bytes] each, as their role wants it."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._random = np.random.default_rng(0)
        self._patterns: dict[str, NDArray[np.uint8]] = {}

    def __call__(self, data: NDArray[np.uint8], role: Role, kind: str) -> None:
        if role == "ones":
            data.view(np.float32)[:] = 1
        elif role == "decay":
            data.view(np.float32)[:] = -np.linspace(0.1, 8, len(data) // 4)
        elif kind == "F32":
            data[:] = random_blocks(self._random, kind, len(data) // 4, _STD).reshape(-1)
        else:
            self._repeat(self._pattern(kind), data)

    def _pattern(self, kind: str) -> NDArray[np.uint8]:
        """Random blocks, begun elsewhere for every tensor: layers that are alike agree on a few experts."""
        blocks, n_bytes = _PATTERN // BLOCKS[kind].bytes, BLOCKS[kind].bytes
        if kind not in self._patterns:
            self._patterns[kind] = random_blocks(self._random, kind, blocks, _STD).reshape(-1)
        return np.roll(self._patterns[kind], int(self._random.integers(blocks)) * n_bytes)

    def _repeat(self, pattern: NDArray[np.uint8], data: NDArray[np.uint8]) -> None:
        """Several threads, because it is the system that takes the time: for pages that nobody had yet."""
        pieces = [data[start : start + len(pattern)] for start in range(0, len(data), len(pattern))]
        list(self._pool.map(lambda piece: np.copyto(piece, pattern[: len(piece)]), pieces))
