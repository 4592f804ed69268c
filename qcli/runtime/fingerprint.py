"""What tells the states of one model from those of all others: a hash of its file."""

from __future__ import annotations

import hashlib
import json
from weakref import WeakKeyDictionary

from qcli.gguf.file import GGUFFile
from qcli.runtime.state_file import STATE_VERSION

_SAMPLE = 4096  # bytes of each tensor


_digests: WeakKeyDictionary[GGUFFile, bytes] = WeakKeyDictionary()  # of files that were read already


def fingerprint(file: GGUFFile, kept_as: str = "") -> str:
    """32 hexadecimal digits of a model and how its states are kept; the same wherever the file lies.

    The header is hashed whole, of each tensor what the table says and a page from its midst: models that differ in some
    weights alone differ in most bytes of a tensor. kept_as: see State; "": of the model alone.
    """
    if file not in _digests:
        _digests[file] = _digest(file)
    told = json.dumps(["qcli", STATE_VERSION, kept_as]).encode()
    return hashlib.sha256(told + _digests[file]).hexdigest()[:32]


def _digest(file: GGUFFile) -> bytes:
    digest = hashlib.sha256()
    for key, value in file.entries.items():
        digest.update(json.dumps([key, len(value)]).encode())
        digest.update(value)
    for tensor in file.tensors.values():
        digest.update(json.dumps([tensor.name, tensor.type, tensor.shape, tensor.n_bytes, tensor.odd]).encode())
        data = tensor.data.reshape(-1)
        first = max(0, len(data) - _SAMPLE) // 2
        digest.update(data[first : first + _SAMPLE].data)
    return digest.digest()
