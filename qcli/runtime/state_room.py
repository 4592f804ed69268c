"""Room for states on disk: how much they may take, and which of them go first.

First what serves nobody: parts of files, rows whose parents are gone. Then the conversation that grows is thinned, then
the others, those that were not used for longest first: of each the newest states are kept, of older ones every 2nd, 4th, …
Then whole conversations go from their ends, again the longest unused first; at last the older states of the one that grows.
"""

from __future__ import annotations

import heapq
import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from qcli.errors import UsageError
from qcli.host.folders import CHOOSES_CACHE
from qcli.runtime import state_tree
from qcli.runtime.state_tree import EMPTY
from qcli.wording import parse_size, size
from quant.renaming import remove_parts

FOLDER = "states"  # in the folder for caches: for each model one, named by its fingerprint
LIMIT = "QCLI_STATES_LIMIT"
_DEFAULT_LIMIT = "10GB"

_NEWEST = 4  # states of a conversation that are not thinned
_MOST_FILES = 4096  # of all models, so that looking for a state takes no time that is felt
_SPARE = 200_000_000  # bytes of the disk that are left to others
_GRACE = 600  # seconds within which another process may still write what belongs to a file
_FINGERPRINT = re.compile("[0-9a-f]{32}")


def limit() -> int:
    """Bytes that all states may take: QCLI_STATES_LIMIT, else 10 GB. Raises UsageError."""
    given = os.environ.get(LIMIT) or _DEFAULT_LIMIT
    try:
        return parse_size(given)
    except UsageError as problem:
        raise UsageError(f"{LIMIT}: {problem.message}", "give one such as 10GB, or 0 to keep no states") from None


def model_folders(root: Path) -> list[Path]:
    """The folders of all models' states."""
    try:
        return sorted(path for path in root.iterdir() if _FINGERPRINT.fullmatch(path.name) and not path.is_symlink())
    except OSError:
        return []


def make_room(folder: Path, most_bytes: int, n_bytes: int, chain: Sequence[str]) -> str:
    """Delete states, of this model and of others beside it, until n_bytes more fit; "", or why they do not, and a hint.

    chain: keys of the nodes below the one to be written, the first one first; their rows stay.
    """
    folders = sorted({folder, *model_folders(folder.parent)})
    for each in folders:
        remove_parts(each)
    nodes = _nodes(folders)
    room = _Room(nodes, n_bytes)
    free = shutil.disk_usage(folder).free
    most_bytes, told = min(
        (most_bytes, f"it takes more than {size(most_bytes)}; {LIMIT} sets another limit"),
        (room.total + free - _SPARE, f"the disk has only {size(free)} free; {CHOOSES_CACHE} chooses another folder"),
    )
    own = [(folder, key) for key in chain if (folder, key) in nodes]  # another process may have deleted some
    if sum(file.n_bytes for key in own for file in nodes[key].rows) + n_bytes > most_bytes:
        return told
    for files in _expendable(nodes, own):
        if room.fits(most_bytes):
            break
        for file in files:
            room.remove(file)
    return "" if room.total + n_bytes <= most_bytes else told


_Key = tuple[Path, str]


@dataclass(eq=False)
class _File:
    path: Path
    parent: str | None
    n_bytes: int
    used: float


@dataclass(eq=False)
class _Node:
    """A node's files, and its place in the tree."""

    rows: list[_File] = field(default_factory=list)
    state: _File | None = None
    children: set[_Key] = field(default_factory=set)
    parents: set[_Key] = field(default_factory=set)
    depth: int = 0  # nodes below it
    height: int = 0  # nodes that the longest conversation has after it
    complete: bool = False  # whether all rows below are there
    serves: bool = False  # whether it has a state, or one after it does

    @property
    def files(self) -> list[_File]:
        return [*self.rows, *([self.state] if self.state else [])]

    @property
    def used(self) -> float:
        return max((file.used for file in self.files), default=0.0)

    def is_thinned(self, newest: int = _NEWEST) -> bool:
        """Whether its state is one of the many older ones; whichever comes after it, it stays so.

        newest: states that stay in any case; of as many before them every 2nd does, of twice as many every 4th, …
        """
        return self.depth > 0 and self.height >= newest * (self.depth & -self.depth)


class _Room:
    """What the files of all nodes take now."""

    def __init__(self, nodes: dict[_Key, _Node], n_bytes: int) -> None:
        """n_bytes: to be written."""
        files = [file for node in nodes.values() for file in node.files]
        self.total, self._count, self._n_bytes = sum(file.n_bytes for file in files), len(files), n_bytes

    def fits(self, most_bytes: int) -> bool:
        return self.total + self._n_bytes <= most_bytes and self._count + 2 <= _MOST_FILES

    def remove(self, file: _File) -> None:
        """Delete a file; one that cannot be deleted goes on to take its room."""
        try:
            file.path.unlink(missing_ok=True)
        except OSError:  # Windows, while another process reads it
            return
        self.total -= file.n_bytes
        self._count -= 1


def _nodes(folders: Collection[Path]) -> dict[_Key, _Node]:
    """All nodes of all models, by folder and key, those of few ids first."""
    nodes: dict[_Key, _Node] = {}
    found = [(folder, file) for folder in folders for file in state_tree.files(folder)]
    for folder, file in sorted(found, key=lambda pair: pair[1].end):
        with suppress(OSError):
            path = folder / file.name
            about = path.stat()
            kept = _File(path, file.parent, about.st_size, about.st_mtime)
            node = nodes.setdefault((folder, file.key), _Node())
            if file.parent is None:
                node.state = kept
            else:
                node.rows.append(kept)
    for key, node in nodes.items():
        _place(nodes, key, node)
    for node in reversed(nodes.values()):
        after = [nodes[child] for child in node.children]
        node.height = max((child.height + 1 for child in after), default=0)
        young = node.used > time.time() - _GRACE
        node.serves = young or (node.complete and node.state is not None) or any(child.serves for child in after)
    return nodes


def _place(nodes: dict[_Key, _Node], key: _Key, node: _Node) -> None:
    """Join a node to those before it."""
    node.complete = any(file.parent == EMPTY for file in node.rows)
    for file in node.rows:
        before = (key[0], file.parent or EMPTY)
        if parent := nodes.get(before):
            parent.children.add(key)
            node.parents.add(before)
            node.complete |= parent.complete
            node.depth = max(node.depth, parent.depth + 1)


def _expendable(nodes: dict[_Key, _Node], own: list[_Key]) -> Iterator[list[_File]]:
    """Files that may be deleted together, those that are missed least first."""
    for node in nodes.values():
        if not node.serves:
            yield node.files
            node.rows, node.state = [], None
    yield from _side_branches(nodes, own)
    mine = [nodes[key] for key in own]
    others = sorted((node for key, node in nodes.items() if key not in set(own)), key=lambda node: node.used)
    yield from _states(node for node in (*mine, *others) if node.is_thinned())
    yield from _from_the_ends(nodes, set(own))
    yield from _states(node for newest in (2, 1) for node in mine if node.is_thinned(newest))
    yield from _states([*mine[1:], *mine[:1]])


def _states(nodes: Iterable[_Node]) -> Iterator[list[_File]]:
    for node in nodes:
        if node.state:
            yield [node.state]
            node.state = None


def _side_branches(nodes: dict[_Key, _Node], own: list[_Key]) -> Iterator[list[_File]]:
    """Single nodes beside a conversation, a while before its end: answers that went on otherwise, or without thoughts."""
    for key in own[1:-_NEWEST]:
        for child in sorted(nodes[key].children - set(own)):
            if nodes[child].height == 0:
                yield nodes[child].files
                nodes[child].rows, nodes[child].state = [], None


def _from_the_ends(nodes: dict[_Key, _Node], own: set[_Key]) -> Iterator[list[_File]]:
    """Nodes that none comes after, the longest unused first, until only a conversation's own are left."""
    left = {key: len(node.children) for key, node in nodes.items()}
    ends = [(node.used, key) for key, node in nodes.items() if not left[key] and key not in own]
    heapq.heapify(ends)
    while ends:
        _, key = heapq.heappop(ends)
        yield nodes[key].files
        for parent in nodes[key].parents:
            left[parent] -= 1
            if not left[parent] and parent not in own:
                heapq.heappush(ends, (nodes[parent].used if nodes[parent].state else 0.0, parent))
