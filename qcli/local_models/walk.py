"""Looks through folders that nobody vouches for: links that lead back, a million files, doors that are locked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MOST = 10_000  # files and folders looked at for each tool
_DEEPEST = 6  # folders below each other


@dataclass
class Walk:
    """How much is looked at for one tool, and what could not be."""

    left: int = field(default_factory=lambda: MOST)
    remarks: list[str] = field(default_factory=list)  # at most one for each folder that was asked for

    def files(self, folder: Path, ending: str = "") -> list[str]:
        """Regular files below a folder whose names end so, as sorted paths within it, with `/` on every system.

        Links to files and folders are followed, each folder once; broken ones and names that begin with a dot are left out.
        """
        found: list[str] = []
        seen: set[tuple[int, int]] = set()
        ahead = [("", 0)]
        while ahead:
            inside, depth = ahead.pop()
            for entry in self._entries(folder / inside, seen, folder):
                below = f"{inside}/{entry.name}" if inside else entry.name
                if _is_folder(entry):
                    ahead += [(below, depth + 1)] if depth < _DEEPEST else []
                elif entry.name.lower().endswith(ending) and _is_file(entry):
                    found.append(below)
        return sorted(found)

    def folders(self, folder: Path) -> list[str]:
        """The names of the folders in a folder, sorted."""
        return sorted(entry.name for entry in self._entries(folder, set(), folder) if _is_folder(entry))

    def _entries(self, folder: Path, seen: set[tuple[int, int]], whole: Path) -> Iterator[os.DirEntry[str]]:
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                return
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if self.left <= 0:
                        self._remark(f"{whole}: only {MOST:,} files of it are looked at")
                        return
                    self.left -= 1
                    if not entry.name.startswith(".") and entry.name.isprintable():
                        yield entry
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return
        except OSError as problem:
            self._remark(f"{whole}: cannot be looked through: {problem.strerror or problem}")

    def _remark(self, said: str) -> None:
        if said not in self.remarks:
            self.remarks.append(said)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
