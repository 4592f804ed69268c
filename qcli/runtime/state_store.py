"""States on disk: checkpoints and the rows below them, by the token ids that led there. A cache: losing it costs time alone.

    store = store_for(file, state, vocab_size)   # in the user's folder for caches, one folder for each model
    store.save(checkpoint, rows)                 # returns at once; written in the background
    n = store.longest(ids)                       # so many of these ids need not be computed
    checkpoint = store.read(ids[:n], rows, history)

Conversations share what they have in common: the rows of a prefix are written once. Whatever goes wrong is a miss: files
that are damaged, of another process or gone, a full disk, a folder that is read-only. What a user should know of it is
said once, as a warning.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.file import GGUFFile
from qcli.host import folders
from qcli.host.file_sizes import total_size
from qcli.host.systems import step_back
from qcli.layers.state import RecurrentCopies, State
from qcli.runtime import state_file, state_room, state_tree
from qcli.runtime.checkpoint import Checkpoint
from qcli.runtime.fingerprint import fingerprint
from qcli.runtime.state_tree import EMPTY, Ids, StateTree, end_of, history_of
from qcli.wording import shortened

Rows = Callable[[int, int], list[NDArray[Any]]]  # rows(a, b): of each cache [heads, rows, row], a writable view

_MOST_WAITING = 256 << 20  # bytes of recurrent states; what waits beyond that is not written
_NICENESS = 10  # of the thread that writes, so that it does not take a core from those that compute


def store_for(file: GGUFFile, state: State, vocab_size: int) -> StateStore | None:
    """The states of a model in the user's folder for caches; None if they may have no room, or there is no folder.

    Raises UsageError if QCLI_STATES_LIMIT is no size, or QCLI_CACHE_DIR no full path.
    """
    most_bytes = state_room.limit()
    if not most_bytes:
        return None
    template = Checkpoint((), state.blank_copy(), np.zeros(vocab_size, np.float32))
    try:
        return StateStore(
            folders.some_cache() / state_room.FOLDER / fingerprint(file, state.kept_as), most_bytes, template
        )
    except OSError:
        return None


class StateStore:
    """The states of one model. For one thread at a time; it has one of its own while there is something to write."""

    def __init__(self, folder: Path, most_bytes: int, template: Checkpoint) -> None:
        """folder: of this model, made when something is saved; most_bytes: of it and of those of other models beside it;
        template: shapes and types that checkpoints have; its contents are not used.
        """
        self.folder, self._most_bytes = folder, most_bytes
        self._kinds = [(array.shape, array.dtype) for array in template.recurrent]
        self._vocab = None if template.logits is None else template.logits.shape
        self._damaged: set[str] = set()  # names of files
        self._waiting: deque[tuple[Checkpoint, Rows]] = deque()  # the first is being written
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._remarks: dict[str, str] = {}  # by what they are about; empty once they were told
        self._closed, self._process = False, os.getpid()  # a forked child writes nothing

    def longest(self, ids: Sequence[int]) -> int:
        """Tokens of the longest prefix of ids that has a checkpoint, on the disk or on its way there; 0: none."""
        with self._lock:
            waiting = [checkpoint.ids for checkpoint, _ in self._waiting]
        ids = tuple(ids)
        on_its_way = max((len(saved) for saved in waiting if ids[: len(saved)] == saved), default=0)
        tree = StateTree(self.folder, self._damaged)
        return max(on_its_way, tree.longest_state(state_tree.as_array(ids)))

    def read(self, ids: Sequence[int], rows: Rows, history: Sequence[int]) -> Checkpoint | None:
        """The checkpoint of exactly these ids; fills the rows that are not there.

        history: of those of the first ids that are there; a node's rows stay that have the history of the node.
        None if a file is missing or damaged: then `longest` gives less, and other rows are of no use.
        """
        self.wait()
        array = state_tree.as_array(ids)
        tree = StateTree(self.folder, self._damaged)
        if (key := tree.state_of(array)) == EMPTY:
            return None
        state, chain = self._read_state(key), tree.chain(key)
        there = _common(chain, history)
        if state is None or not self._read_rows(array, [EMPTY, *chain], rows, there):
            return None
        self._touch(key, chain)
        return Checkpoint(tuple(ids), *state, (*history[:there], *_history(chain, there)))

    def save(self, checkpoint: Checkpoint, rows: Rows) -> None:
        """Have a checkpoint written, and the rows below it that are not on the disk; returns at once.

        Until `wait` returns, rows(0, len(checkpoint.ids)) and the arrays of the checkpoint must stay as they are.
        """
        self._tell()
        if self._closed or not checkpoint.ids or os.getpid() != self._process:
            return
        with self._lock:
            self._waiting.append((checkpoint, rows))
            while len(self._waiting) > 2 and sum(_n_bytes(c) for c, _ in self._waiting) > _MOST_WAITING:
                del self._waiting[1]
            if self._thread is None or not self._thread.is_alive():
                self._begin_to_write()

    def wait(self) -> None:
        """Wait until nothing is being written: before rows that were saved are overwritten."""
        while (thread := self._thread) and thread.is_alive():  # in a forked child it is not
            thread.join()
        self._tell()

    def close(self) -> None:
        """Wait; what is saved after that is not written."""
        self._closed = True
        self.wait()

    def _read_state(self, key: str) -> tuple[RecurrentCopies, NDArray[np.float32] | None] | None:
        recurrent = [np.empty(shape, dtype) for shape, dtype in self._kinds]
        logits = None if self._vocab is None else np.empty(self._vocab, np.float32)
        path = state_tree.state_path(self.folder, key)
        given = [*recurrent, *([] if logits is None else [logits])]
        if logits is not None and total_size(path) == state_file.size(state_file.header(key, recurrent), recurrent):
            given, logits = recurrent, None  # a checkpoint without
        return (tuple(recurrent), logits) if self._read(path, state_file.header(key, given), given) else None

    def _read_rows(self, ids: Ids, chain: list[str], rows: Rows, first: int) -> bool:
        """Fill rows from `first` on, the end of a node, from the files of a chain of nodes that begins with EMPTY."""
        for parent, node in pairwise(chain):
            start, end = end_of(parent), end_of(node)
            if end <= first:
                continue
            views = rows(start, end)
            header = state_file.header(node, views, parent, ids[start:end].tobytes())
            if not self._read(state_tree.rows_path(self.folder, node, parent), header, views):
                return False
        return True

    def _read(self, path: Path, header: bytes, arrays: state_file.Arrays) -> bool:
        """Fill arrays from a file; one that is not what it should be is removed, and not looked at again."""
        try:
            if state_file.read(path, header, arrays):
                return True
            problem = "is damaged"
            with suppress(OSError):
                path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
        self._damaged.add(path.name)
        self._remarks.setdefault("read", f"{path}: {problem}; what was kept there is computed again")
        self._tell()
        return False

    def _begin_to_write(self) -> None:
        self._thread = threading.Thread(target=self._write_all, name="qcli-states", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as problem:  # too many threads, or the interpreter is about to end
            self._waiting.clear()
            self._cannot(str(problem))

    def _write_all(self) -> None:
        """Write what waits, until nothing does: what the thread runs."""
        step_back()
        while True:
            try:
                self._write(*self._waiting[0])
            except Exception as problem:  # a lost state costs time, a traceback in the midst of an answer more
                reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
                self._cannot(f"{shortened(reason)}; {folders.CHOOSES_CACHE} chooses another folder")
            with self._lock:
                self._waiting.popleft()
                if not self._waiting:
                    self._thread = None
                    return

    def _write(self, checkpoint: Checkpoint, rows: Rows) -> None:
        ids = state_tree.as_array(checkpoint.ids)
        key = state_tree.keys(ids, [len(ids)], checkpoint.history)[len(ids)]
        tree = StateTree(self.folder, self._damaged)
        parent = tree.longest_rows(ids, checkpoint.history)
        chain = tree.chain(parent)
        if tree.has_state(key):
            self._touch(key, chain)
            return
        arrays = [*checkpoint.recurrent, *([] if checkpoint.logits is None else [checkpoint.logits])]
        files = {state_tree.state_path(self.folder, key): (state_file.header(key, arrays), arrays)}
        if parent != key:
            start = end_of(parent)
            views = rows(start, len(ids))
            header = state_file.header(key, views, parent, ids[start:].tobytes())
            files = {state_tree.rows_path(self.folder, key, parent): (header, views), **files}
        _make_private(self.folder)
        n_bytes = sum(state_file.size(*content) for content in files.values())
        if lacking := state_room.make_room(self.folder, self._most_bytes, n_bytes, chain):
            self._cannot(lacking)
            return
        for path, content in files.items():
            state_file.write(path, *content)
            self._damaged.discard(path.name)

    def _touch(self, key: str, chain: Sequence[str]) -> None:
        """Note that a node was used now, and its rows."""
        paths = [state_tree.state_path(self.folder, key)]
        paths += [state_tree.rows_path(self.folder, *pair[::-1]) for pair in pairwise([EMPTY, *chain])]
        for path in paths:
            with suppress(OSError):
                os.utime(path)

    def _cannot(self, reason: str) -> None:
        remark = f"{self.folder.parent}: what was computed cannot be kept there: {reason}"
        self._remarks.setdefault("write", remark)

    def _tell(self) -> None:
        """Say what went wrong, once; in the thread of the caller, not in the midst of what it prints."""
        for about, remark in list(self._remarks.items()):
            self._remarks[about] = ""
            if remark:
                warnings.warn(remark, RuntimeWarning, stacklevel=3)


def _common(chain: Sequence[str], history: Sequence[int]) -> int:
    """The end of the last node of a chain whose rows are those of a text with this history."""
    ends = [end_of(node) for node in chain]
    return max(
        (end for end, node in zip(ends, chain, strict=True) if [*history[end - 1 : end]] == [history_of(node)]),
        default=0,
    )


def _history(chain: Sequence[str], first: int) -> Iterator[int]:
    """The history of a chain's ids from `first` on; within a node any that no other text has."""
    for node, before in zip(chain, [0, *map(end_of, chain)], strict=False):
        if before >= first:
            last = history_of(node)
            yield from ((last ^ i * 0x9E3779B1) & 0xFFFFFFFF for i in range(end_of(node) - before - 1, 0, -1))
            yield last


def _n_bytes(checkpoint: Checkpoint) -> int:
    return sum(array.nbytes for array in checkpoint.recurrent)


def _make_private(folder: Path) -> None:
    """Make a model's folder and the one that it is in, for this user alone."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for made in (folder.parent, folder):
        made.mkdir(mode=0o700, exist_ok=True)
