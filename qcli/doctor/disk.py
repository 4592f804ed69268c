"""How fast a disk gives pieces as large as an expert: what bounds the speed of models larger than memory."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from qcli.doctor.finding import FREE_SPACE, PASS, WARN, Finding
from qcli.host import folders
from qcli.host.pages import allocate_pages
from qcli.host.temporary import temporary_folder
from qcli.host.unbuffered import can_forget, can_tell, forget
from qcli.progress import Progress
from qcli.streaming.reader import Reader, Span, buffer_bytes
from qcli.wording import counted, size

PIECE: Final = 640 << 10  # bytes: a matrix of an expert of Qwen3-Next, about
LANES: Final = (1, 4, 8)
LARGE: Final = 256 << 20  # bytes of a file whose reads are worth measuring
_FILE: Final = LARGE  # of a file to try
_WRITTEN: Final = 8 << 20  # at a time
_SECONDS: Final = 0.6  # of one measurement
_WRITING: Final = 2.0  # seconds, for a slow disk
_SPARE: Final = 1_000_000_000  # bytes that stay free
_SLOW: Final = 0.3e9  # bytes/s
_NEAR: Final = 0.9  # of the best, which counts as as fast


@dataclass(frozen=True)
class Speeds:
    """Bytes a second by number of lanes, as the reads that wait for the disk at a time are called."""

    direct: dict[int, float]
    buffered: dict[int, float]  # through the system's page cache, which was emptied; {} where that cannot be done
    past_cache: bool  # whether direct reads do not come from the page cache

    @property
    def best(self) -> float:
        """The fastest of all."""
        return max((*self.direct.values(), *self.buffered.values()))

    @property
    def lanes(self) -> int:
        """The fewest that read directly about as fast as any number."""
        return min(count for count, speed in self.direct.items() if speed >= _NEAR * max(self.direct.values()))


def own_disk(progress: Progress) -> Iterator[Finding]:
    """The disk with the folder for caches, by a file that is written there and deleted."""
    folder = existing(folders.some_cache())
    if (free := shutil.disk_usage(folder).free) < _SPARE + _FILE:
        yield Finding("disk speed", WARN, f"not measured: only {size(free)} are free in {folder}", FREE_SPACE)
        return
    try:
        found = of_folder(folder, progress)
    except OSError as problem:
        said = f"not measured: no file can be written to {folder} ({problem.strerror or problem})"
        hint = f"choose a folder of yours: {folders.CHOOSES_CACHE}=/full/path"
        yield Finding("disk speed", WARN, said, hint)
        return
    yield told(found, str(folder), PIECE)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.parents) if os.path.lexists(place))


def of_folder(folder: Path, progress: Progress) -> Speeds:
    """Those of the disk with a folder, in which a file is written and deleted. Raises OSError."""
    with temporary_folder(folder) as place:
        path = place / "trial"
        _write(path)
        return measured(path, PIECE, progress, own=True)


def told(found: Speeds, where: str, piece: int) -> Finding:
    """What speeds mean; piece: bytes of each read."""
    ways = {"past the system's cache": found.direct, "through it": found.buffered}
    rates = [f"{way} {', '.join(f'{speed / 1e9:.2f}' for speed in by.values())}" for way, by in ways.items() if by]
    lanes = "/".join(map(str, found.direct))
    said = f"{where}: {size(found.best)}/s, {counted(found.lanes, 'read')} at a time {'is' if found.lanes == 1 else 'are'} enough"
    said += f" (GB/s with {lanes}: {'; '.join(rates)})"
    rounded = [{str(n): round(speed / 1e9, 3) for n, speed in by.items()} for by in (found.direct, found.buffered)]
    figures = {"direct_gb_per_s": rounded[0], "buffered_gb_per_s": rounded[1], "past_cache": found.past_cache}
    figures |= {"lanes": found.lanes, "piece_bytes": piece}
    if not found.past_cache:
        hint = "keep models on a local disk (ext4, XFS, NTFS, APFS) for reads past the system's cache"
        return Finding("disk speed", WARN, f"{said}; its file system cannot read past the cache", hint, figures)
    if found.best < _SLOW:
        hint = "keep models on an SSD, best one with NVMe"
        return Finding("disk speed", WARN, f"{said}: slow, and so are models larger than memory", hint, figures)
    return Finding("disk speed", PASS, said, "", figures)


def measured(path: Path, piece: int, progress: Progress, own: bool = False) -> Speeds:
    """How fast pieces of a file come, in random order; own: a file that nobody misses in the page cache."""
    speeds: dict[bool, dict[int, float]] = {True: {}, False: {}}
    ways = (True, False) if own and can_forget() else (True,)
    with Reader([path], 1) as reader:
        past_cache = reader.unbuffered or not can_tell()
    for i, unbuffered in enumerate(ways):
        for j, lanes in enumerate(LANES):
            progress(counted(lanes, "lane"), (i * len(LANES) + j) / len(ways) / len(LANES))
            if own:
                forget(path)
            speeds[unbuffered][lanes] = _speed(path, piece, lanes, unbuffered)
    return Speeds(speeds[True], speeds[False], past_cache)


def _speed(path: Path, piece: int, lanes: int, unbuffered: bool) -> float:
    piece = min(piece, path.stat().st_size)
    order = np.random.default_rng().permutation(path.stat().st_size // piece)
    buffers = [allocate_pages(buffer_bytes(piece)) for _ in range(4 * lanes)]
    with Reader([path], lanes, unbuffered) as reader:
        began, done = time.perf_counter(), 0
        while done < len(order) and time.perf_counter() - began < _SECONDS:
            places = order[done : done + len(buffers)]
            reader.read([Span(path, int(i) * piece, piece, to) for i, to in zip(places, buffers, strict=False)]).wait()
            done += len(places)
        return done * piece / (time.perf_counter() - began)


def _write(path: Path) -> None:
    """Random bytes, as a file system may compress, until the file is as large as it should be, or it takes too long."""
    random, began = np.random.default_rng(), time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(0, _FILE, _WRITTEN):
            file.write(random.bytes(_WRITTEN))
            file.flush()
            os.fsync(file.fileno())
            if time.perf_counter() - began > _WRITING:
                return
