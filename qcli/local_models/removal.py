"""Takes a model out of the hub's cache: its links in all revisions, and of the blobs those that nothing else refers to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qcli.errors import OutputError, UsageError
from qcli.host.named_files import reason, require_unused, resolved
from qcli.hub.address import Address
from qcli.hub.places import leave_it, locked
from qcli.hub.repo_files import RepoFile, meant
from qcli.hub.transfer_part import PART_SUFFIX, Begun, begun
from qcli.local_models.hub import repo_folders
from qcli.local_models.walk import Walk

_WHOLE = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # the name of a content that is there


@dataclass(frozen=True)
class Removal:
    """Files to delete, and the bytes that this frees."""

    files: tuple[Path, ...]
    n_bytes: int
    inside: Path  # the folder below which folders that are empty then go, too

    def run(self) -> None:
        """Delete them, links before what they lead to.

        Raises OutputError at the first that cannot be deleted, and before any is if a program has one of them open.
        """
        require_unused(self.files)
        for path in self.files:
            try:
                path.unlink(missing_ok=True)
            except OSError as problem:
                why = reason(problem, "check the permissions of the folder", path)
                raise OutputError(f"{path}: cannot be deleted: {why.said}", why.hint) from None
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
            kept.add(resolved(path))
    own = resolved(repo / "blobs")
    blobs = {resolved(path) for path in links if path.is_symlink() and resolved(path).parent == own}
    gone = [*links, *sorted(blobs - kept)]
    gone += _left_over(repo, set(links))
    return Removal(tuple(gone), sum(map(_bytes, gone)), repo.parent)


def of_begun(address: Address) -> Removal | None:
    """What downloads of an address left that were broken off; None if there is nothing.

    Contents that came whole and have no name yet, as the first files of a split model, go with the last download of their
    repository. Raises UsageError while one is under way.
    """
    gone: list[Path] = []
    for repo in repo_folders(address.repo, Walk()):
        there = begun(repo / "blobs")
        wanted = {file.name for file in meant([RepoFile(one.name) for one in there], address)}
        its = [one for one in there if one.name in wanted]
        for one in its:
            _require_idle(repo, one)
            gone += one.files
        if len(its) == len(there):
            gone += _nameless(repo)
    return Removal(tuple(gone), sum(map(_bytes, gone)), gone[0].parents[2]) if gone else None


def of_files(parts: Sequence[Path], inside: Path) -> Removal:
    """Files that are deleted as they are; inside: the folder of the tool that keeps them."""
    return Removal(tuple(parts), sum(map(_bytes, parts)), inside)


def _require_idle(repo: Path, one: Begun) -> None:
    """Raises UsageError if a process has the lock of a download, or had it a moment ago and has ended it."""
    with suppress(TimeoutError), locked(repo.parent / ".locks" / repo.name / f"{one.stem.name}.lock", leave_it):
        if one.files[0].exists():
            return
    raise UsageError(f"{one.name}: a download of it is under way", "end it, and type the same again")


def _nameless(repo: Path) -> list[Path]:
    """Contents that no file of a revision leads to."""
    named = {resolved(path) for _, path in _snapshot_files(repo)}
    blobs = (path for path in _files(repo / "blobs") if _WHOLE.fullmatch(path.name))
    return sorted(path for path in blobs if resolved(path) not in named)


def _place(hub: Path, path: Path) -> tuple[Path, str] | None:
    """The repository's folder of a file of a snapshot, and its name in the repository."""
    try:
        folder, kind, _, *name = path.relative_to(hub).parts
    except ValueError:  # it is elsewhere, or not below a snapshot
        return None
    return (hub / folder, "/".join(name)) if kind == "snapshots" and name else None


def _snapshot_files(repo: Path) -> Iterator[tuple[Path, Path]]:
    """Every file of every revision, with the revision's folder."""
    for revision in sorted((repo / "snapshots").glob("*")):
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
    """What a file takes itself: a link next to nothing, one that is still fetched as much as has come."""
    with suppress(OSError):
        found = path.lstat()
        taken = getattr(found, "st_blocks", 0) * 512 if path.name.endswith(PART_SUFFIX) else found.st_size
        return 0 if path.is_symlink() else min(taken, found.st_size)
    return 0
