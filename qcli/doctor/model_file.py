"""A model's file read once from beginning to end: its checksum, and all of its weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from qcli.catalog.entries import load_catalog
from qcli.catalog.entry import Entry
from qcli.doctor.finding import FAIL, PASS, WARN, Finding
from qcli.doctor.weights_scan import Damage, Scan
from qcli.errors import ModelFileError
from qcli.gguf.file import GGUFFile, Tensor
from qcli.host.named_files import resolved
from qcli.progress import Progress
from qcli.wording import counted, size
from quant.block import declared

_PIECE: Final = 16 << 20  # bytes that are read at a time
_NAMED_BY_SUM: Final = re.compile(r"(?:sha256-)?([0-9a-f]{64})")  # in the cache of huggingface.co, and Ollama's
_AGAIN: Final = (
    "download the file again (`qcli rm` and `qcli pull`); if it happens again, the disk or the memory is failing"
)
_MOST_NAMED: Final = 3


class _Span(NamedTuple):
    n_bytes: int
    tensor: Tensor | None  # whose whole blocks these are
    block: int  # the first of them


@dataclass(frozen=True)
class Read:
    """What was found in all files of a model."""

    sums: dict[Path, str]  # SHA-256, hexadecimal
    scan: Scan


def check(file: GGUFFile, entry: Entry | None, progress: Progress) -> Iterator[Finding]:
    """Read it; entry: by which it was named. Raises ModelFileError if it cannot be read."""
    found = read(file, progress)
    yield from (_of_sum(path, sha256, expected_sum(path, entry)) for path, sha256 in found.sums.items())
    yield _of_weights(file, found.scan)
    if zeros := _zeros(file, found.scan):
        named = ", ".join(zeros[:_MOST_NAMED]) + (", …" if zeros[_MOST_NAMED:] else "")
        said = f"{counted(len(zeros), 'tensor')} hold nothing but zeros: {named}"
        yield Finding("zeros", WARN, said, "the download may be unfinished: get the file again", {"tensors": zeros})


def expected_sum(path: Path, entry: Entry | None) -> str:
    """The SHA-256 that a file should have; "" where nobody knows it."""
    if found := _NAMED_BY_SUM.fullmatch(resolved(path).name):
        return found[1]
    if entry and entry.sha256:
        return entry.sha256
    return next((known.sha256 for known in load_catalog().values() if known.file == path.name), "")


def read(file: GGUFFile, progress: Progress) -> Read:
    """Every byte of every file. Raises ModelFileError."""
    scan, sums = Scan(), {}
    whole, done = sum(path.stat().st_size for path in file.paths), 0
    for path in file.paths:
        checksum = hashlib.sha256()
        for n_bytes in _pieces(path, file, checksum, scan):
            done += n_bytes
            progress(f"{size(done)} of {size(whole)}", done / max(1, whole))
        sums[path] = checksum.hexdigest()
    return Read(sums, scan)


def _pieces(path: Path, file: GGUFFile, checksum: hashlib._Hash, scan: Scan) -> Iterator[int]:
    """Read one file, and yield how many bytes were read, again and again; a thread adds up the checksum meanwhile."""
    memory = np.empty(_PIECE, np.uint8)
    tensors = [tensor for tensor in file.tensors.values() if tensor.path == path]
    try:
        with open(path, "rb", buffering=0) as opened, ThreadPoolExecutor(1) as beside:
            for span in _spans(tensors, path.stat().st_size):
                data = memory[: span.n_bytes]
                _fill(opened, memoryview(data.data), path)
                added = beside.submit(checksum.update, data.data)
                if span.tensor:
                    scan.look(span.tensor, span.block, data)
                added.result()
                yield span.n_bytes
    except OSError as problem:
        hint = "check that the disk is there, and look into the system's log for errors of it"
        raise ModelFileError(f"{path}: cannot be read: {problem.strerror or problem}", hint) from None


def _fill(opened: RawIOBase, view: memoryview, path: Path) -> None:
    done = 0
    while done < len(view):
        if not (got := opened.readinto(view[done:])):
            raise ModelFileError(f"{path}: became shorter while it was read", _AGAIN)
        done += got


def _spans(tensors: list[Tensor], n_bytes: int) -> Iterator[_Span]:
    """A file from its beginning to its end: what is no weight, and whole blocks of tensors."""
    at = 0
    for tensor in sorted(tensors, key=lambda one: one.offset):
        if tensor.offset < at:
            continue
        yield from _in_pieces(tensor.offset - at, None)
        block = declared().get(tensor.type)
        yield from _in_pieces(tensor.n_bytes, tensor if block and not tensor.odd else None, block.bytes if block else 1)
        at = tensor.offset + tensor.n_bytes
    yield from _in_pieces(n_bytes - at, None)


def _in_pieces(n_bytes: int, tensor: Tensor | None, block: int = 1) -> Iterator[_Span]:
    piece = _PIECE // block * block
    for begin in range(0, n_bytes, piece):
        yield _Span(min(piece, n_bytes - begin), tensor, begin // block)


def _of_sum(path: Path, sha256: str, expected: str) -> Finding:
    figures = {"sha256": sha256, "expected": expected or None}
    if not expected:
        said = f"{path.name}: SHA-256 {sha256}, which can be compared with the one of the model's page"
        return Finding("checksum", PASS, said, "", figures)
    if sha256 == expected:
        return Finding("checksum", PASS, f"{path.name}: SHA-256 is as published: every byte is right", "", figures)
    return Finding("checksum", FAIL, f"{path.name}: SHA-256 is {sha256}, and should be {expected}", _AGAIN, figures)


def _of_weights(file: GGUFFile, scan: Scan) -> Finding:
    said = f"{counted(scan.tensors, 'tensor')}, {counted(scan.blocks, 'block')}"
    figures: dict[str, Any] = {"tensors": scan.tensors, "blocks": scan.blocks}
    if not scan.damages:
        return Finding("weights", PASS, f"{said}: all scales are numbers of a usual size", "", figures)
    damages = list(scan.damages.values())
    broken = [one for one in damages if one.not_numbers]
    said = "; ".join(map(_words, (broken or damages)[:_MOST_NAMED])) + ("; …" if damages[_MOST_NAMED:] else "")
    figures |= {"damaged": {one.tensor.name: {"not_numbers": one.not_numbers, "absurd": one.absurd} for one in damages}}
    return Finding("weights", FAIL if broken else WARN, said, _AGAIN, figures)


def _words(damage: Damage) -> str:
    kinds = [f"{counted(damage.not_numbers, 'block')} with NaN or infinity"] if damage.not_numbers else []
    kinds += [f"{counted(damage.absurd, 'block')} with a scale far too large"] if damage.absurd else []
    return f"{damage.tensor.name}: {' and '.join(kinds)}, the first in {damage.where}"


def _zeros(file: GGUFFile, scan: Scan) -> list[str]:
    """Matrices without any weight."""
    known = declared()
    return [
        tensor.name
        for tensor in file.tensors.values()
        if tensor.type in known and not tensor.odd and len(tensor.shape) > 1 and tensor.name not in scan.filled
    ]
