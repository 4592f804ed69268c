"""A file that is on its way: all of its length from the beginning, and beside it a map of the blocks that are there.

A block is marked only after its bytes were flushed to the disk, so neither a kill nor a power cut leaves a mark without
bytes. That is done every few seconds, not after each block: a flush waits for the disk, and what it would save is fetched
again in the time between two of them. The next map has its room on the disk before it is written: a full disk keeps its marks.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from qcli.host.atomic_files import sync_folder
from quant.renaming import remove, replace

BLOCK: Final = 1 << 20  # bytes that are marked together
PART_SUFFIX: Final = ".qcli.incomplete"  # huggingface_hub counts what ends so among broken downloads, and can delete it
MAP_SUFFIX: Final = ".qcli.blocks"
NEXT_SUFFIX: Final = MAP_SUFFIX + ".new"
_LONGER = 16  # bytes that the next map may have more
_LONGEST_MAP = 1 << 20  # bytes, of the largest file that is fetched and more


class Part:
    """The two files of one download. One process at a time has it; who opens it sees to that."""

    def __init__(self, stem: Path, n_bytes: int, etag: str, name: str = "") -> None:
        """Nothing is read or written yet. etag: what tells this content from another, "" if nothing does; name: whose it is."""
        self.path = stem.with_name(stem.name + PART_SUFFIX)
        self.map_path = stem.with_name(stem.name + MAP_SUFFIX)
        self._next = stem.with_name(stem.name + NEXT_SUFFIX)
        self.bytes = n_bytes
        self.there = bytearray(-(-n_bytes // BLOCK))  # 1 for a block that is written
        self._told = {"name": name, "bytes": n_bytes, "etag": etag, "block": BLOCK}
        self._saved = bytes(self.there)

    def length(self, block: int) -> int:
        """Bytes of a block: all have as many but the last."""
        return min(BLOCK, self.bytes - block * BLOCK)

    @property
    def bytes_there(self) -> int:
        """Bytes of the blocks that are written."""
        blocks = self.there.count(1)
        return blocks * BLOCK - (BLOCK - self.length(len(self.there) - 1) if blocks and self.there[-1] else 0)

    @property
    def unsaved(self) -> int:
        """Bytes, in whole blocks, that are written and not marked."""
        return (self.there.count(1) - self._saved.count(1)) * BLOCK

    def look(self) -> bool:
        """Read what an earlier download has left of this content; whether one left a file of another."""
        found = self._read_map()
        if found is not None:
            self.there[:] = found
            self._saved = found
        return found is None and self.path.exists()

    def begin(self) -> None:
        """Have the file there with its full length; what an earlier download left of another content is deleted."""
        if not self._saved.count(1):
            self.discard()
            with open(self.path, "xb") as file:
                file.truncate(self.bytes)
            self._write_map(bytes(self.there))

    def save(self) -> None:
        """Flush what is written, then mark it. Raises OSError."""
        there = bytes(self.there)  # before the flush: what comes meanwhile may not be on the disk
        if there == self._saved:
            return
        with open(self.path, "r+b") as file:
            getattr(os, "fdatasync", os.fsync)(file.fileno())
        self._write_map(there)

    def discard(self) -> None:
        """Delete it, the marks first."""
        self.forget_marks()
        remove(self.path)
        sync_folder(self.path.parent)
        self.there[:] = self._saved = bytes(len(self.there))

    def forget_marks(self) -> None:
        """Delete the map, as the file is whole or to be deleted."""
        remove(self.map_path)
        remove(self._next)

    def move(self, to: Path) -> None:
        """Give the whole file, flushed, another name on the same disk."""
        self.save()
        replace(self.path, to)
        self.forget_marks()
        sync_folder(to.parent)

    @property
    def bytes_on_disk(self) -> int:
        """What of the disk it has already."""
        with suppress(OSError):
            found = self.path.stat()
            blocks: int | None = getattr(found, "st_blocks", None)
            return min(self.bytes, blocks * 512 if blocks is not None else self.bytes_there)
        return 0

    def _read_map(self) -> bytes | None:
        """The marks of an earlier download of this content; None if there are none that can be believed."""
        try:
            with open(self.map_path, "rb") as file:
                head, _, marks = file.read(_LONGEST_MAP).partition(b"\n")
            told = json.loads(head)
            whole = self.path.stat().st_size == self.bytes
        except (OSError, ValueError, RecursionError):
            return None
        wanted = self._told | {"check": zlib.crc32(marks)}
        if not whole or told != wanted or not self._told["etag"] or len(marks) != -(-len(self.there) // 8):
            return None
        bits = f"{int.from_bytes(marks, 'little'):0{8 * len(marks)}b}"[::-1]
        return bytes(map(int, bits[: len(self.there)]))

    def _write_map(self, there: bytes) -> None:
        bits = int(there[::-1].translate(bytes.maketrans(b"\0\1", b"01")), 2)
        marks = bits.to_bytes(-(-len(there) // 8), "little")
        data = json.dumps(self._told | {"check": zlib.crc32(marks)}).encode() + b"\n" + marks
        with open(self._next, "r+b" if self._next.exists() else "wb") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        replace(self._next, self.map_path)
        self._saved = there
        with suppress(OSError):
            self._next.write_bytes(bytes(len(data) + _LONGER))


class Begun(NamedTuple):
    """A download that was begun: its part file without the ending, and what it is of."""

    stem: Path
    name: str
    etag: str

    @property
    def files(self) -> list[Path]:
        """The marks, then what they tell of."""
        return [self.stem.with_name(self.stem.name + suffix) for suffix in (MAP_SUFFIX, NEXT_SUFFIX, PART_SUFFIX)]


def begun(folder: Path) -> list[Begun]:
    """The downloads into a folder that were begun, or are under way."""
    found = []
    for path in sorted(folder.glob(f"*{MAP_SUFFIX}")):
        with suppress(OSError, ValueError, RecursionError), open(path, "rb") as file:
            told = json.loads(file.readline(_LONGEST_MAP))
            name, etag = (told.get("name"), told.get("etag")) if isinstance(told, dict) else (None, None)
            if isinstance(name, str) and isinstance(etag, str):
                found.append(Begun(path.with_name(path.name.removesuffix(MAP_SUFFIX)), name, etag))
    return found
