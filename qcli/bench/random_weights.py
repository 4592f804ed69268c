"""A model of a known shape with random weights, in memory: no file is read or written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.bench.model_shape import ModelShape, Role
from qcli.bench.random_blocks import random_blocks
from qcli.errors import QcliError, UsageError
from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.header import Header
from qcli.gguf.names import layer_of
from qcli.gguf.types import BLOCKS
from qcli.host.memory import available_memory
from qcli.host.pages import allocate_pages
from qcli.host.threads import default_threads
from qcli.progress import Progress
from qcli.quantize.tensor_types import in_place_of
from qcli.wording import counted, size
from quant import formats

_RESERVE = 2 << 30  # bytes of memory left to the state, the buffer of `Bandwidth` and other programs
_ALIGNMENT = 32  # bytes, as in a file
_PATTERN = (
    8 << 20
)  # random bytes of a type that its tensors repeat; F32 tensors, routers among them, are random throughout
_STD = 0.02  # standard deviation of the weights, about

# The types of a role: layer 0 has the first, layer 1 the second, …, then again the first.
Mix = dict[Role, tuple[str, ...]]


def _mix(most: str, head: str = "", down: tuple[str, ...] = ()) -> Mix:
    mix: Mix = {"embedding": (most,), "mixer": (most,), "experts": (most,)}
    return mix | {"head": (head or most,), "down": down or (most,)}


# Types as in files of these names; roles that are not listed are F32.
MIXES = {
    "q4_0": _mix("Q4_0", head="Q8_0"),
    "q4_k_m": _mix("Q4_K", head="Q6_K", down=("Q6_K", "Q4_K")),
    "q5_k_m": _mix("Q5_K", head="Q6_K", down=("Q6_K", "Q5_K")),
}


def quants() -> list[str]:
    """The names that `find_mix` knows: of mixes, and of types, which then all matrices have."""
    return sorted({*MIXES, *(name.lower() for name in formats.names())})


def find_mix(name: str) -> Mix:
    """The mix of this name. Raises UsageError, which lists the names."""
    if name.lower() not in quants():
        raise UsageError(f"no quantization is called {name!r}", f"give one of: {', '.join(quants())}")
    return MIXES.get(name.lower()) or _mix(name.upper())


def layers_that_fit(shape: ModelShape, mix: Mix, wanted: int | None) -> int:
    """`wanted` layers, or as many as fit into memory: whole cycles of mixers if possible. Raises QcliError if they do not fit."""
    free_bytes = available_memory() - _RESERVE
    fitting = max((n for n in range(shape.layers + 1) if size_of(shape, mix, n) <= free_bytes), default=0)
    if (wanted or 1) > fitting:
        needed, free = size(size_of(shape, mix, wanted or 1)), size(available_memory())
        hint = (f"give --layers {fitting} or less" if fitting else "try a smaller --quant", "free some memory")
        raise QcliError(
            f"{counted(wanted or 1, 'layer')} of {shape.name} would take {needed}, and {free} of memory are free", hint
        )
    cycle = len(shape.mixers)
    return wanted or (fitting // cycle * cycle or fitting)


def size_of(shape: ModelShape, mix: Mix, layers: int) -> int:
    """Bytes of the weights of the model cut to its first layers."""
    return _total_bytes(_layout(shape, mix, layers))


def random_file(
    shape: ModelShape, mix: Mix, layers: int, progress: Progress | None = None, *, mtp: bool = False
) -> GGUFFile:
    """The model cut to its first layers, with random weights in memory, as if a file had been opened.

    mtp: with its block for multi-token prediction, if it is known.
    """
    layout = list(_layout(shape, mix, layers, mtp))
    memory = allocate_pages(_total_bytes(layout), huge=False)
    path, tensors = Path(shape.name), {}
    with ThreadPoolExecutor(default_threads()) as pool:
        fill = _Filler(pool)
        for placed in layout:
            data = memory[placed.offset : placed.offset + placed.n_bytes]
            fill(data, placed.role, placed.type)
            data.flags.writeable = False
            blocks = data.reshape(math.prod(placed.shape[:-1]), -1)
            tensors[placed.name] = Tensor(
                placed.name, placed.type, placed.shape, blocks, path, placed.offset, placed.n_bytes
            )
            if progress:
                progress("making weights", placed.offset / len(memory))
    return GGUFFile(path, Header(3, shape.metadata(layers, mtp), []), tensors)


@dataclass(frozen=True)
class _PlacedTensor:
    """A tensor to make, and where in the memory."""

    name: str
    role: Role
    type: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def _layout(shape: ModelShape, mix: Mix, layers: int, mtp: bool = False) -> Iterator[_PlacedTensor]:
    offset = 0
    for name, role, dimensions in shape.rows(layers, mtp):
        types = mix.get(role, ("F32",))
        kind = in_place_of(types[max(0, layer_of(name)) % len(types)], dimensions[-1])
        n_bytes = BLOCKS[kind].row_bytes(math.prod(dimensions))
        yield _PlacedTensor(name, role, kind, dimensions, offset, n_bytes)
        offset += -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _total_bytes(layout: Iterable[_PlacedTensor]) -> int:
    return max(placed.offset + placed.n_bytes for placed in layout)


class _Filler:
    """Fills tensors, uint8 [bytes] each, with values that suit their role."""

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
        """Random blocks, rotated for every tensor: layers with equal weights would all choose the same few experts."""
        blocks, n_bytes = _PATTERN // BLOCKS[kind].bytes, BLOCKS[kind].bytes
        if kind not in self._patterns:
            self._patterns[kind] = random_blocks(self._random, kind, blocks, _STD).reshape(-1)
        return np.roll(self._patterns[kind], int(self._random.integers(blocks)) * n_bytes)

    def _repeat(self, pattern: NDArray[np.uint8], data: NDArray[np.uint8]) -> None:
        """Fill a tensor with copies of the pattern, by several threads: most of the time goes to page faults of new memory."""
        pieces = [data[start : start + len(pattern)] for start in range(0, len(data), len(pattern))]
        list(self._pool.map(lambda piece: np.copyto(piece, pattern[: len(piece)]), pieces))
