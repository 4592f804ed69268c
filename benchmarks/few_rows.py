"""What products of a step of several tokens cost: one thread, from a cache and from memory.

    python benchmarks/few_rows.py [TYPE …] [--tokens 1,2,4,8,16] [--columns 2048] [--memory MB] [--seconds 4]

Nanoseconds of processor time for 256 weights and all tokens, the least of many short runs that take turns, so that neighbours
matter little. From a cache: 256 rows, which fit into the second level. --memory: a matrix of so many MB, each row read once a
run; beside it what the thread reads of the same memory, likewise. In a checkout of an earlier version, copy this file there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

import qcli.host.kernels  # noqa: F401  (compiled kernels are kept)
from qcli.bench.random_blocks import random_blocks
from quant import formats
from quant.activation import quantize_row, row_bytes
from quant.jit import Kernel, function
from quant.kernels.bandwidth import STEP, sum_lines
from quant.kernels.few_rows import few_operands, few_scratch_bytes, multiply_few
from quant.plan import aligned
from quant.tile import ENTRY
from quant.weights import MATRIX, Matrix

CACHED_ROWS: Final = 256
TYPES: Final = "Q4_K Q6_K Q8_0 Q5_K Q3_K Q2_K Q4_0 Q4_1 Q5_0 IQ4_XS".split()


@function("p" * 7)
def repeat(times, matrix, w, rows, entries, count, scratch):
    """A step's products, so many times."""
    for _ in range(times):
        multiply_few(matrix, w, rows, entries, count, count, 0, scratch)


@function("pppp")
def quantize(x, tokens, columns, q):
    """float32 [tokens, columns] -> rows of q8, one behind the other."""
    stride = (columns + columns // 2 + 63) // 64 * 64
    for t in range(tokens):
        quantize_row(x + 4 * t * columns, columns, q + t * stride, 0, 0, columns // 32)


def product(w: Matrix, tokens: int, keep: list[Any]) -> Callable[[int], None]:
    """A function that multiplies a matrix with random rows, so many times."""
    x, stride = aligned((tokens, w.columns), np.float32), row_bytes("q8", w.columns)
    x[:] = np.random.default_rng(1).standard_normal(x.shape)
    q, y = aligned((tokens, stride), np.uint8), aligned((tokens, w.rows), np.float32)
    assert stride == (w.columns + w.columns // 2 + 63) // 64 * 64
    quantize(x.ctypes.data, tokens, w.columns, q.ctypes.data)
    table, entries = aligned(len(MATRIX.names), np.int64), aligned((tokens, ENTRY.bytes // 8), np.int64)
    fields = few_operands(w) | {"addresses": 0, "scales": 0, "bias": 0}
    table[:] = MATRIX.in_order({name: v.address if isinstance(v, Kernel) else v for name, v in fields.items()})
    for token in range(tokens):
        given = {"activation": q[token].ctypes.data, "result": y[token].ctypes.data, "unused": 0}
        entries[token] = ENTRY.in_order(given | {"factor": int(np.float32(1).view(np.int32))})
    scratch = aligned(few_scratch_bytes([w], tokens), np.uint8)
    keep += [x, q, y, table, entries, scratch, w]
    given = table.ctypes.data, w.address, w.rows, entries.ctypes.data, tokens, scratch.ctypes.data
    return lambda times: repeat(times, *given) and None


def least(runs: dict[Any, Callable[[], object]], seconds: float) -> dict[Any, float]:
    """Processor time of each, the least of many, in turns."""
    found = dict.fromkeys(runs, np.inf)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, run in runs.items():
            start = time.thread_time_ns()
            run()
            found[name] = min(found[name], time.thread_time_ns() - start)
    return found


def random_matrix(name: str, rows: int, columns: int) -> Matrix:
    """Of a thousand random blocks, over and over."""
    kind = formats.find(name)
    blocks = random_blocks(np.random.default_rng(2), name, 1021, spread=1.0)
    data = aligned((rows, kind.row_bytes(columns)), np.uint8)
    data[:] = np.resize(blocks, data.size).reshape(data.shape)
    return Matrix(data, kind, columns)


def cached(names: list[str], tokens: list[int], columns: int, seconds: float) -> None:
    """A table of products from a cache."""
    print("type    " + "".join(f"{t:>8}" for t in tokens) + "   tokens: ns for 256 weights, from a cache")
    for name in names:
        w, keep = random_matrix(name, CACHED_ROWS, columns), list[Any]()
        runs: dict[Any, Callable[[], object]] = {}
        for t in tokens:
            run, times = product(w, t, keep), max(1, 16 // t)
            run(1)
            runs[t] = lambda run=run, times=times: run(times)
        found = least(runs, seconds)
        each = (found[t] / max(1, 16 // t) / (w.rows * columns // 256) for t in tokens)
        print(f"{name:8}" + "".join(f"{ns:8.1f}" for ns in each), flush=True)


def from_memory(names: list[str], tokens: list[int], columns: int, seconds: float, size: float) -> None:
    """A table of products from memory, and of what was read there."""
    print("type    " + "".join(f"{t:>8}" for t in tokens) + "  reading  tokens: ns for 256 weights, from memory")
    for name in names:
        rows = int(size * 1e6 / formats.find(name).row_bytes(columns)) // 16 * 16
        w, keep = random_matrix(name, rows, columns), list[Any]()
        steps, sums = w.data.nbytes // STEP, aligned(16, np.float32)
        runs: dict[Any, Callable[[], object]] = {
            "reading": lambda w=w, n=steps, sums=sums: sum_lines(0, 1, w.address, n, sums.ctypes.data)
        }
        for t in tokens:
            run = product(w, t, keep)
            run(1)
            runs[t] = lambda run=run: run(1)
        found = least(runs, seconds)
        each = (found[name] / (rows * columns // 256) for name in [*tokens, "reading"])
        print(f"{name:8}" + "".join(f"{ns:8.1f}" for ns in each), flush=True)


def main() -> None:
    """Tables of all types."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("types", nargs="*", default=TYPES)
    parser.add_argument("--tokens", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4, 8, 16])
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--memory", type=float)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each type")
    given = parser.parse_args()
    if given.memory:
        from_memory(given.types, given.tokens, given.columns, given.seconds, given.memory)
    else:
        cached(given.types, given.tokens, given.columns, given.seconds)


if __name__ == "__main__":
    main()
