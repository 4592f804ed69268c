"""A header with other types: the same model as a file of another quantization holds it, of which nothing is here but a name.

The types are those of the mix that the name stands for (`qcli.quantize.mixes`), or what comes nearest to the file's size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from types import MappingProxyType

from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.types import BLOCKS
from qcli.host.pages import allocate_pages
from qcli.hub.quant_names import type_of
from qcli.quantize.mixes import ALIASES, MIXES, Mix
from qcli.quantize.tensor_types import choose_types
from qcli.streaming.dense import is_expert
from quant import formats

Types = Mapping[str, str]  # by the names of tensors

_SIZES = ("XS", "S", "M", "L", "XL", "XXL", "P")  # of a mix: those that publishers make beside the usual ones
_TRAINED = "MXFP4"
_SOME_BITS = ("IQ1_S", "IQ2_XXS", "Q2_K", "IQ3_XXS", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")


def mix_of(quant: str) -> Mix | None:
    """The mix that a quantization's name stands for, whoever made it; None if there is none such that runs."""
    pieces = type_of(quant).upper().split("-")
    name = "_".join(pieces)
    while name not in MIXES and name not in ALIASES and pieces[-1] in _SIZES:
        pieces.pop()
        name = "_".join(pieces)
    name = {"Q8_K": "Q8_0"}.get(name, ALIASES.get(name, name))  # Q8_K is no type of weights
    return MIXES.get(name) or (Mix(-1, name) if name in formats.names() else None)


def types_under(file: GGUFFile, quant: str, n_bytes: int | None) -> Types | None:
    """The types of a model's tensors in another of its files; None if they are not known, or do not run.

    file: a header of the model; quant: as it is published, "" where no name tells it; n_bytes: of the other file.
    """
    named = mix_of(quant)
    if named is None and (quant or n_bytes is None):
        return None
    mixes = [named] if named else [MIXES[name] for name in _SOME_BITS]
    found = [types for mix in mixes for types in _ways(file, mix)]
    best = min(found, key=lambda types: abs(bytes_under(file, types) - (n_bytes or 0)))
    changed = {kind for name, kind in best.items() if kind != file.tensors[name].type}
    return best if changed <= set(formats.names()) else None


def _ways(file: GGUFFile, mix: Mix) -> list[Types]:
    """By the mix; or with experts that stay as they were trained, as those of gpt-oss do, whatever its files are called."""
    types = choose_types(file, mix)
    trained = {t.name: t.type for t in file.tensors.values() if t.type == _TRAINED and is_expert(t)}
    return [types | trained, types] if trained else [types]


def own_types(file: GGUFFile) -> Types:
    """The types that a file has."""
    return {tensor.name: tensor.type for tensor in file.tensors.values()}


def bytes_of(tensor: Tensor, kind: str) -> int:
    """Bytes of a tensor in a type."""
    if kind == tensor.type:
        return tensor.n_bytes
    return math.prod(tensor.shape[:-1]) * BLOCKS[kind].row_bytes(tensor.shape[-1])


def bytes_under(file: GGUFFile, types: Types, experts: bool | None = None) -> int:
    """Bytes of all weights in these types; of the routed experts alone, or of all others, where that is asked for."""
    tensors = (t for t in file.tensors.values() if experts is None or is_expert(t) == experts)
    return sum(bytes_of(tensor, types[tensor.name]) for tensor in tensors)


def weights_in(file: GGUFFile) -> int:
    """How many numbers a model has."""
    return sum(math.prod(tensor.shape) for tensor in file.tensors.values())


def retyped(file: GGUFFile, types: Types) -> GGUFFile:
    """The file with tensors of these types, whose bytes are zeros: for `SyntheticModel`. Raises MemoryError, OSError."""
    changed = [tensor for tensor in file.tensors.values() if types[tensor.name] != tensor.type]
    sizes = [bytes_of(tensor, types[tensor.name]) for tensor in changed]
    memory = allocate_pages(max(sizes, default=1), huge=False)  # of all of them; nobody writes to it, so it takes none
    new = {
        tensor.name: replace(
            tensor,
            type=types[tensor.name],
            data=memory[:n_bytes].reshape(math.prod(tensor.shape[:-1]), -1),
            n_bytes=n_bytes,
            odd="",
        )
        for tensor, n_bytes in zip(changed, sizes, strict=True)
    }
    file = copy(file)
    file.tensors = MappingProxyType({name: new.get(name, tensor) for name, tensor in file.tensors.items()})
    return file
