"""A block of multi-token prediction in a file of its own, `mtp-*.gguf` beside the model's, joined to the model as its last one.

Such a file has the keys of its model, one block more (`nextn_predict_layers`), of all blocks the last alone, and often an
embedding and an output matrix of fewer bits, which guesses are made with. So a model of many parts need not be downloaded
again for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

import numpy as np

from qcli.errors import ModelFileError, QcliError
from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.header import Value, printable

_NAME = re.compile(r"mtp[-._]", re.IGNORECASE)
_BLOCK = re.compile(r"blk\.(\d+)\.")
_OWN = {"token_embd.weight": "embed_tokens", "output.weight": "shared_head_head"}  # as tensors of the block
_MOST_BLOCKS, _MOST_BESIDE = 16, 64  # of a file; files that are looked at


def open_with_draft(path: Path, draft: str | Path | None = None) -> GGUFFile:
    """A model's file, with the block of multi-token prediction of another, `draft`, or if there is one of a file beside it.

    A model that has such a block needs none: it is replaced by that of `draft` alone. Raises as GGUFFile.open, of both
    files, and ModelFileError if that of `draft` does not fit.
    """
    file = GGUFFile.open(path)
    if draft is not None:
        return joined(file, GGUFFile.open(draft))
    if _is_model(file) and not _blocks(file)[1]:
        for beside in _beside(path):
            try:
                return joined(file, GGUFFile.open(beside))
            except QcliError:
                continue  # another model's, or one that is not whole yet
    return file


def joined(file: GGUFFile, draft: GGUFFile) -> GGUFFile:
    """The model with the draft's block behind its layers. Raises ModelFileError if it has none, or is of another model."""
    has_block = _is_model(draft) and any(".nextn." in name for name in draft.tensors)
    if not has_block or not 0 < _blocks(draft)[1] <= _MOST_BLOCKS:
        hint = "give a file that has one: their names begin with mtp-"
        raise ModelFileError(f"{draft.path}: has no block for multi-token prediction", hint)
    (layers, _), (draft_layers, blocks) = _blocks(file), _blocks(draft)
    for what, wanted, found in (
        ("architecture", _text(file, "general.architecture"), _text(draft, "general.architecture")),
        ("number of layers", layers, draft_layers),
        ("width", _key(file, "embedding_length"), _key(draft, "embedding_length")),
        ("vocabulary", _vocabulary(file), _vocabulary(draft) or _vocabulary(file)),
    ):
        if found != wanted:
            hint = f"give the file that was made for {file.path.name}"
            raise ModelFileError(f"{draft.path}: belongs to another model: its {what} is {found}, not {wanted}", hint)
    tensors = {name: tensor for name, tensor in file.tensors.items() if _number(name) < layers}
    tensors |= {tensor.name: tensor for tensor in _of_block(draft, layers)}
    result = copy(file)
    result.tensors = MappingProxyType(tensors)
    result.metadata = MappingProxyType(dict(_keys(file, draft, layers, blocks)))
    return result


def with_blocks(file: GGUFFile, count: int) -> GGUFFile:
    """The model with so many of its blocks for multi-token prediction at most: what is not loaded takes no memory."""
    layers, blocks = _blocks(file)
    if blocks <= count:
        return file
    result = copy(file)
    kept = {name: tensor for name, tensor in file.tensors.items() if _number(name) < layers + count}
    result.tensors = MappingProxyType(kept)
    return result


def _is_model(file: GGUFFile) -> bool:
    """Whether it has the keys that are asked for here."""
    arch = file.metadata.get("general.architecture")
    return type(arch) is str and type(file.metadata.get(f"{arch}.block_count")) is int


def _text(file: GGUFFile, key: str) -> str:
    return printable(file.get_str(key))


def _key(file: GGUFFile, key: str) -> int:
    return file.get_int(f"{file.get_str('general.architecture')}.{key}", 0)


def _blocks(file: GGUFFile) -> tuple[int, int]:
    """Layers of the model, and blocks for multi-token prediction behind them."""
    blocks = _key(file, "nextn_predict_layers")
    return _key(file, "block_count") - blocks, blocks


def _vocabulary(file: GGUFFile) -> int:
    """Rows of the embedding; 0 if it has none."""
    tensor = file.tensors.get("token_embd.weight")
    return tensor.shape[0] if tensor else 0


def _number(name: str) -> int:
    """Of a tensor's block; -1 of the others."""
    found = _BLOCK.match(name)
    return int(found[1]) if found else -1


def _of_block(draft: GGUFFile, layers: int) -> Iterator[Tensor]:
    """The tensors of the draft's blocks, and its own embedding and output as tensors of the first of these."""
    for name, tensor in draft.tensors.items():
        if _number(name) >= layers:
            yield tensor
        own = f"blk.{layers}.nextn.{_OWN.get(name)}.weight"
        if name in _OWN and own not in draft.tensors:
            yield replace(tensor, name=own)


def _keys(file: GGUFFile, draft: GGUFFile, layers: int, blocks: int) -> Iterator[tuple[str, Value]]:
    """The model's keys: with the draft's blocks, and where there is a number for each layer, with those of these."""
    arch = file.get_str("general.architecture")
    for key, value in file.metadata.items():
        if key.startswith(f"{arch}.") and isinstance(value, np.ndarray) and len(value) == layers:
            own = draft.metadata.get(key)
            tail = (
                own[layers:]
                if isinstance(own, np.ndarray) and len(own) == layers + blocks
                else value[-1:].repeat(blocks)
            )
            value = np.concatenate([value, tail.astype(value.dtype)])
        yield key, value
    yield f"{arch}.block_count", layers + blocks
    yield f"{arch}.nextn_predict_layers", blocks


def _beside(path: Path) -> list[Path]:
    """Files of such a name in the model's folder: those first whose names are most like its own, of these the smallest."""

    def order(beside: Path) -> tuple[int, int]:
        pairs = zip(_NAME.sub("", beside.name.lower(), count=1), path.name.lower(), strict=False)
        alike = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
        return -alike, beside.stat().st_size

    try:
        found = [one for one in path.parent.iterdir() if one.suffix.lower() == ".gguf" and _NAME.match(one.name)]
        return sorted((one for one in found if one.name != path.name and one.is_file()), key=order)[:_MOST_BESIDE]
    except OSError:
        return []
