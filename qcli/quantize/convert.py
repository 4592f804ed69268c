"""Converts the tensors of a quantization job and writes its files.

A tensor is read in slices of some rows; threads dequantize and quantize them; they are written in the file's order.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError
from qcli.gguf.writer import GGUFWriter
from qcli.host import kernels
from qcli.host.atomic_files import AtomicFiles
from qcli.progress import Progress
from qcli.quantize import range_check
from qcli.quantize.job import Change, Job
from quant import formats, quantizers

_SLICE = 1 << 19  # weights that a thread takes at once: 2 MB as float32, some ms of work
_AHEAD = 3  # slices a thread that are read and not yet written


@dataclass(frozen=True, eq=False)
class Slice:
    """Some rows of one tensor; of one expert where experts differ in importance."""

    change: Change
    first: int
    rows: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the rows in the source."""
        return self.rows * int(self.change.tensor.data.shape[1])

    @property
    def offset(self) -> int:
        """Where they begin in the source's file."""
        return self.change.tensor.offset + self.first * int(self.change.tensor.data.shape[1])

    @property
    def importance(self) -> NDArray[np.float32] | None:
        """Of their columns, float32 [columns]."""
        table = self.change.importance
        if table is None:
            return None
        per_expert = self.change.tensor.data.shape[0] // len(table)
        row: NDArray[np.float32] = table[self.first // per_expert]
        return row


def compile_kernels(job: Job, progress: Progress | None = None) -> None:
    """Have every kernel compiled that the job needs."""
    kinds = sorted({change.type for change in job.changes if change.converts})
    kernels.prepare([quantizers.quantize_rows, *(quantizers.find(kind).kernel for kind in kinds)], progress)
    quantizers.is_finite(np.zeros(16, np.float32))


def check_output(job: Job, overwrite: bool = False) -> AtomicFiles:
    """The job's files, not yet open; OutputError if one may not be written, or the disk is too full."""
    output = AtomicFiles(job.paths, overwrite, reads=job.reads)
    output.require_space(job.n_bytes)
    return output


def run(job: Job, threads: int, overwrite: bool = False, progress: Progress | None = None) -> None:
    """Write the job's files, all of them or none. Raises OutputError, ModelFileError."""
    output = check_output(job, overwrite)
    compile_kernels(job, progress)
    with output:
        whole, done = sum(change.tensor.n_bytes for change in job.changes), 0
        for path, keys, changes in job.parts:
            writer = GGUFWriter(output, path, keys, [change.new for change in changes], job.alignment)
            for piece, converted in _converted(changes, threads):
                writer.write(converted)
                done += piece.n_bytes
                if progress:
                    progress("quantizing", done / whole)
            writer.finish()


def slices(change: Change) -> Iterator[Slice]:
    """A tensor's rows in order."""
    rows = change.tensor.data.shape[0]
    together = rows // len(change.importance) if change.importance is not None else rows
    size = max(1, min(together, _SLICE // change.tensor.shape[-1]))
    for start in range(0, rows, together):
        for first in range(start, start + together, size):
            yield Slice(change, first, min(size, start + together - first))


def _converted(changes: list[Change], threads: int) -> Iterator[tuple[Slice, NDArray[np.uint8]]]:
    """Each slice in order, and its bytes to write; at most _AHEAD slices a thread are in memory."""
    waiting: deque[tuple[Slice, Future[NDArray[np.uint8]]]] = deque()
    with ExitStack() as stack:
        files: dict[Path, BufferedReader] = {}
        pool = ThreadPoolExecutor(threads)
        stack.callback(pool.shutdown, cancel_futures=True)
        for change in changes:
            path = change.tensor.path
            if path not in files:
                files[path] = stack.enter_context(open(path, "rb"))
            for piece in slices(change):
                waiting.append((piece, pool.submit(_convert, piece, _read(files[path], piece))))
                if len(waiting) >= _AHEAD * threads:
                    piece, future = waiting.popleft()
                    yield piece, future.result()
        for piece, future in waiting:
            yield piece, future.result()


def _read(file: BufferedReader, piece: Slice) -> NDArray[np.uint8]:
    """The slice's bytes, uint8 [rows, bytes per row]; read, not mapped, so that a bad disk is an error, not a crash."""
    data = np.empty((piece.rows, piece.change.tensor.data.shape[1]), np.uint8)
    path = piece.change.tensor.path
    try:
        file.seek(piece.offset)
        got = file.readinto(data.reshape(-1).data)
    except OSError as problem:
        raise ModelFileError(
            f"{path}: cannot be read: {problem.strerror}", "check that the disk is there and that you may write to it"
        ) from None
    if got != data.nbytes:
        raise ModelFileError(f"{path}: has become shorter while it was read", "download the model again")
    return data


def _convert(piece: Slice, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [rows, bytes per row] of the old type -> of the new one; ModelFileError for numbers that it cannot hold."""
    change = piece.change
    if not change.converts:
        return data
    values = formats.find(change.tensor.type).dequantize(data)
    if not quantizers.is_finite(values):
        raise _unfit(change, "holds numbers that are not finite", "the model is damaged: download it again")
    converted = quantizers.find(change.type).quantize(values, piece.importance)
    if range_check.holds(change.type, values, piece.importance, converted):
        return converted
    largest = range_check.largest(values)
    if largest <= range_check.SURE:
        raise _unfit(change, f"has an importance that {change.type} cannot be made by", "measure the imatrix again")
    other = "BF16" if change.type != "BF16" else "F32"
    hint = f"--tensor '{re.escape(change.tensor.name)}={other}' makes it a type that holds them"
    raise _unfit(change, f"holds numbers too large for {change.type}: {largest:.3g}", hint)


def _unfit(change: Change, what: str, hint: str) -> ModelFileError:
    return ModelFileError(f'{change.tensor.path}: the tensor "{change.tensor.name}" {what}', hint)
