"""A text and the state after it in one file that a person names: `LLM.save` writes it, `LLM.load` reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.host.atomic_files import AtomicFiles, output_errors
from qcli.layers.state import State
from qcli.runtime import state_file
from qcli.runtime.checkpoint import Checkpoint
from qcli.runtime.fingerprint import fingerprint

_LINE = 1 << 16  # bytes; more than the first line of any such file
_AGAIN = "save it again with this model, in this version of qcli and with this kv_type"


def save(path: Path, checkpoint: Checkpoint, state: State, file: GGUFFile, overwrite: bool) -> None:
    """Write a checkpoint of the text in the state, and the keys and values below it. Raises OutputError."""
    arrays = _arrays(checkpoint, state)
    ids = np.array([checkpoint.ids, checkpoint.history], "<u4").tobytes()
    header = state_file.header(fingerprint(file, state.kept_as), arrays, ids=ids)
    with AtomicFiles([path], overwrite, reads=file.paths) as files:
        files.require_space(state_file.size(header, arrays))
        with output_errors(path):
            state_file.write_to(files.open(path), header, arrays)


def load(path: Path, vocab_size: int, state: State, file: GGUFFile) -> Checkpoint:
    """Fill the keys and values of a state from such a file; its checkpoint. Raises QcliError if it is not this model's."""
    try:
        with open(path, "rb") as opened:
            line = opened.readline(_LINE)
            ids = opened.read(8 * state.ctx + 8)[: _ids_bytes(line)]
    except OSError as error:
        raise QcliError(f"{path}: {error.strerror}", "give the path of a file that save() wrote") from None
    count = len(ids) // 8
    known, history = np.frombuffer(ids[: 8 * count], "<u4").reshape(2, -1)
    if not 0 < count <= state.ctx or max(known) >= vocab_size:
        raise QcliError(
            f"{path}: was not saved with this model, or does not fit into a context of {state.ctx:,} tokens", _AGAIN
        )
    recurrent = state.blank_copy()
    checkpoint = Checkpoint(tuple(known.tolist()), recurrent, np.empty(vocab_size, np.float32), tuple(history.tolist()))
    arrays = _arrays(checkpoint, state)
    if not state_file.read(path, state_file.header(fingerprint(file, state.kept_as), arrays, ids=ids), arrays):
        raise QcliError(f"{path}: is damaged, or of another model", _AGAIN)
    return checkpoint


def _arrays(checkpoint: Checkpoint, state: State) -> state_file.Arrays:
    assert checkpoint.logits is not None
    return [*state.rows(0, checkpoint.position), *checkpoint.recurrent, checkpoint.logits]


def _ids_bytes(line: bytes) -> int:
    """How many bytes of ids follow the first line of such a file; 0 if it is none."""
    try:
        told = json.loads(line)
        count = told["ids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return count if type(count) is int and count > 0 else 0
