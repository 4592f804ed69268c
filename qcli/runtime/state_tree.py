"""The files of a model's states, known by their names: a tree of prefixes of token ids.

A node is a prefix at whose end a state was saved. Its key is the number of its ids, a hash of them all, and the history
of the last: how it was computed, as one text read in other pieces differs in the last bits (see Checkpoint.history).

    <key>.<key of its parent>.rows     the rows that its caches have beyond those of its parent
    <key>.state                        recurrent states and logits at its end

A node of which only rows are left serves those below it. A node may be there twice, with rows from different parents.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_KEY = r"\d{1,9}-[0-9a-f]{32}"
_NAME = re.compile(rf"({_KEY})\.(?:({_KEY})\.rows|state)")

_HISTORY = 8  # hexadecimal digits at the end of a key

Ids = NDArray[np.int32]


def as_array(ids: Sequence[int]) -> Ids:
    """Token ids as they are hashed and written."""
    return np.array(ids, "<i4")


def keys(ids: Ids, ends: Iterable[int], history: Sequence[int] = ()) -> dict[int, str]:
    """The keys of the prefixes that end there, by their ends, in ascending order; ends beyond the ids are left out.

    history: of each id, 32 bits; of none, the history is 0.
    """
    digest, done, found = hashlib.blake2b(digest_size=12), 0, {}
    for end in sorted({end for end in ends if end <= len(ids)}):
        digest.update(ids[done:end].data)
        done = end
        found[end] = f"{end}-{digest.hexdigest()}{history[end - 1] if history and end else 0:0{_HISTORY}x}"
    return found


def text_of(key: str) -> str:
    """What the keys of nodes of the same ids have in common, however they were computed."""
    return key[:-_HISTORY]


def history_of(key: str) -> int:
    """The history of a node's last id."""
    return int(key[-_HISTORY:], 16)


def end_of(key: str) -> int:
    """The number of ids of a node."""
    return int(key.partition("-")[0])


EMPTY = keys(as_array([]), [0])[0]  # of no ids: the parent of all that have none


class StateFile(NamedTuple):
    """A file of a node, by its name: of rows, or of its state, which has no parent."""

    name: str
    end: int  # the node's number of ids
    key: str
    parent: str | None


def rows_path(folder: Path, key: str, parent: str) -> Path:
    """The file of a node's rows."""
    return folder / f"{key}.{parent}.rows"


def state_path(folder: Path, key: str) -> Path:
    """The file of a node's state."""
    return folder / f"{key}.state"


def files(folder: Path) -> Iterator[StateFile]:
    """The files of all nodes; none if the folder is not there or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = _NAME.fullmatch(entry.name)
                if not found or not entry.is_file(follow_symlinks=False):
                    continue
                key, parent = found.groups()
                file = StateFile(entry.name, end_of(key), key, parent)
                if parent is None or end_of(parent) < file.end:
                    yield file
    except OSError:
        return


class StateTree:
    """What a folder holds now: nodes whose rows are there from the first id on, and which of them have a state."""

    def __init__(self, folder: Path, without: Container[str] = ()) -> None:
        """without: names of files that are known to be damaged."""
        self._parents: dict[str, str] = {}
        found = sorted((file for file in files(folder) if file.name not in without), key=lambda file: file.end)
        for file in found:
            if file.parent is not None and (file.parent == EMPTY or file.parent in self._parents):
                self._parents[file.key] = file.parent
        self._with_state = {file.key for file in found if file.parent is None and file.key in self._parents}
        self._states = {text_of(key): key for key in sorted(self._with_state)}

    def has_state(self, key: str) -> bool:
        """Whether a node's state is there, and all rows."""
        return key in self._with_state

    def state_of(self, ids: Ids) -> str:
        """The key of a node of these ids that has a state, however it was computed; EMPTY if there is none."""
        return self._states.get(text_of(keys(ids, [len(ids)])[len(ids)]), EMPTY)

    def longest_state(self, ids: Ids) -> int:
        """The end of the longest prefix of ids that has a state; 0: none."""
        found = keys(ids, map(end_of, self._states.values()))
        return max((end for end, key in found.items() if text_of(key) in self._states), default=0)

    def longest_rows(self, ids: Ids, history: Sequence[int]) -> str:
        """The key of the longest prefix of ids, computed like that, of which all rows are there; EMPTY if there is none."""
        found = keys(ids, map(end_of, self._parents), history)
        return next((key for _, key in sorted(found.items(), reverse=True) if key in self._parents), EMPTY)

    def chain(self, key: str) -> list[str]:
        """A node and those before it, the first one first; empty if rows are missing."""
        found = []
        while key in self._parents:
            found.append(key)
            key = self._parents[key]
        return found[::-1]
