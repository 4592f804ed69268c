"""Takes a model out of the hub's cache: its links in all revisions, and of the blobs those that nothing else refers to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qcli.errors import OutputError


@dataclass(frozen=True)
class Removal:
    """Files to delete, and the bytes that this frees."""

    files: tuple[Path, ...]
    n_bytes: int
    inside: Path  # the folder below which folders that are empty then go, too

    def run(self) -> None:
        """Delete them, links before what they lead to. Raises OutputError at the first that cannot be deleted."""
        for path in self.files:
            try:
                path.unlink(missing_ok=True)
            except OSError as problem:
                hint = "check the permissions of the folder, and whether a program has it open"
                raise OutputError(f"{path}: cannot be deleted: {problem.strerror or problem}", hint) from None
        for folder in sorted({parent for path in self.files for parent in path.parents}, key=lambda f: -len(f.parts)):
            if self.inside in folder.parents:
                with suppress(OSError):  # there is something else in it
                    folder.rmdir()


def from_hub(parts: Sequence[Path], hub: Path) -> Removal | None:
    """What to delete of a model of a folder that is laid out as the hub's cache; None if one of its files is not in there."""
    places = [_place(hub, path) for path in parts]
    repos = {place[0] for place in places if place}
    if len(repos) != 1 or not all(places):
        return None
    repo = repos.pop()
    names = {place[1] for place in places if place}
    links, kept = [], set()
    for revision, path in _snapshot_files(repo):
        if path.relative_to(revision).as_posix() in names:
            links.append(path)
        else:
            kept.add(path.resolve())
    own = (repo / "blobs").resolve()
    blobs = {path.resolve() for path in links if path.is_symlink() and path.resolve().parent == own}
    gone = [*links, *sorted(blobs - kept)]
    gone += _left_over(repo, set(links))
    return Removal(tuple(gone), sum(map(_bytes, gone)), repo.parent)


def of_files(parts: Sequence[Path], inside: Path) -> Removal:
    """Files that are deleted as they are; inside: the folder of the tool that keeps them."""
    return Removal(tuple(parts), sum(map(_bytes, parts)), inside)


def _place(hub: Path, path: Path) -> tuple[Path, str] | None:
    """The repository's folder of a file of a snapshot, and its name in the repository."""
    try:
        folder, kind, _, *name = path.relative_to(hub).parts
    except ValueError:  # it is elsewhere, or not below a snapshot
        return None
    return (hub / folder, "/".join(name)) if kind == "snapshots" and name else None


def _snapshot_files(repo: Path) -> Iterator[tuple[Path, Path]]:
    """Every file of every revision, with the revision's folder."""
    for revision in sorted((repo / "snapshots").iterdir()):
        yield from ((revision, path) for path in _files(revision))


def _left_over(repo: Path, gone: set[Path]) -> list[Path]:
    """Branches and tags that stand for a revision of which nothing is left, and notes on what it does not have."""
    left = {revision.name for revision, path in _snapshot_files(repo) if path not in gone}
    refs = [ref for ref in _files(repo / "refs") if _read(ref) not in left]
    return refs + [note for note in _files(repo / ".no_exist") if note.relative_to(repo).parts[1] not in left]


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder."""
    for inside, _, files in os.walk(folder):
        yield from (Path(inside) / file for file in files)


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(200).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _bytes(path: Path) -> int:
    """What a file takes itself: a link next to nothing."""
    with suppress(OSError):
        return 0 if path.is_symlink() else path.stat().st_size
    return 0
