"""A quantization job: the new type of every tensor, the keys and the files, all decided and checked before a byte is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError, UnsupportedModelError, UsageError
from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.names import part_paths
from qcli.gguf.writer import ALIGNMENT, NewTensor, file_bytes, split, split_keys, text, u32
from qcli.quantize.imatrix_file import Imatrix
from qcli.quantize.mixes import ALIASES, MIXES, Mix
from qcli.quantize.tensor_types import FLOATS, Overrides, allows_quantization, fitting, wanted_types
from quant import formats, quantizers

_DROPPED = ("split.", "quantize.imatrix.")
_VERSION = 2  # general.quantization_version: of the block formats, all of which are of the second


@dataclass(frozen=True, eq=False)
class Change:
    """A tensor of the source, and the type that it will have."""

    tensor: Tensor
    type: str
    wanted: str  # by the mix or the user; another than `type` where blocks of it do not fit the rows
    importance: NDArray[np.float32] | None = None  # [experts, columns]

    @property
    def converts(self) -> bool:
        """Whether the type changes; else its bytes are copied."""
        return self.type != self.tensor.type

    @property
    def new(self) -> NewTensor:
        """Its row in the table of the file to write."""
        return NewTensor(self.tensor.name, self.type, self.tensor.shape)


@dataclass(frozen=True, eq=False)
class Job:
    """The files to write: of each its path, its keys and its tensors in order."""

    source: GGUFFile
    name: str  # of the mix
    parts: list[tuple[Path, dict[str, bytes], list[Change]]]
    alignment: int
    reads: list[Path]  # the files that it is made from
    without_importance: list[str]  # matrices to quantize of which the imatrix says nothing

    @property
    def changes(self) -> list[Change]:
        """Of all files, in order."""
        return [change for _, _, changes in self.parts for change in changes]

    @property
    def paths(self) -> list[Path]:
        """The files to write."""
        return [path for path, _, _ in self.parts]

    @property
    def n_bytes(self) -> int:
        """Bytes of all files to write."""
        return sum(file_bytes(keys, [c.new for c in changes], self.alignment) for _, keys, changes in self.parts)


def find_mix(name: str) -> tuple[str, Mix]:
    """A mix by the name that a user types, in any case; UsageError."""
    known = ALIASES.get(name.upper(), name.upper())
    if known not in MIXES:
        raise UsageError(f"there is no type {name!r}", f"give one of: {', '.join(offered())}")
    lacking = [kind for kind in (MIXES[known].default, MIXES[known].expert) if kind and not can_make(kind)]
    if lacking:
        raise UsageError(f"qcli cannot make {lacking[0]} yet", f"give one of: {', '.join(offered())}")
    return known, MIXES[known]


def offered() -> list[str]:
    """The names of mixes that can be made."""
    return [name for name, mix in MIXES.items() if can_make(mix.default) and can_make(mix.expert or "F32")]


def can_make(kind: str) -> bool:
    """Whether float32 can be turned into this type."""
    return kind in quantizers.names()


def override(given: str) -> tuple[re.Pattern[str], str]:
    """`PATTERN=TYPE`: a regular expression that is looked for in tensors' names, and ggml's name of a type."""
    pattern, _, kind = given.rpartition("=")
    if not pattern or not kind:
        raise UsageError(f"{given!r} is no PATTERN=TYPE", "type, for example, --tensor ffn_down_exps=Q6_K")
    if not can_make(kind.upper()):
        known = ", ".join(quantizers.names())
        raise UsageError(f"tensors cannot become {kind!r}", f"give one of: {known}")
    try:
        return re.compile(pattern), kind.upper()
    except re.error as problem:
        hint = "a pattern is a regular expression; a name is one, too"
        raise UsageError(f"{pattern!r} is no pattern: {problem}", hint) from None


def make_job(
    source: GGUFFile,
    out: Path,
    mix_name: str,
    *,
    overrides: Overrides = (),
    imatrix: tuple[Path, Imatrix] | None = None,
    allow_requantize: bool = False,
    split_bytes: int | None = None,
) -> Job:
    """Decide on every tensor of `source`, to be written to `out` under a mix's name.

    overrides: patterns and types, see `override`; imatrix: its path, and itself; split_bytes: the most of one file.
    Raises UsageError, ModelFileError for what cannot be meant or done.
    """
    name, mix = find_mix(mix_name)
    if not source.tensors:
        raise ModelFileError(f"{source.path}: holds no tensors", "give the file of a whole model")
    for tensor in source.tensors.values():
        source.tensor(tensor.name)  # refuses what cannot be copied
    wanted = wanted_types(source, mix, overrides, imatrix is not None)
    changes = [_change(source, tensor, wanted[tensor.name], imatrix) for tensor in source.tensors.values()]
    _check_sources(source, changes, allow_requantize)
    _check_importance(source, changes, mix, imatrix)
    alignment = source.get_int("general.alignment", ALIGNMENT)
    keys = _keys(source, mix, imatrix)
    parts = _parts(out, keys, changes, split_bytes, alignment)
    reads = [*source.paths, *([imatrix[0]] if imatrix else [])]
    guided = [c for c in changes if c.converts and c.type not in FLOATS]
    lacking = [c.tensor.name for c in guided if c.importance is None and _counts(c.tensor.name)] if imatrix else []
    return Job(source, name, parts, alignment, reads, lacking)


def _change(source: GGUFFile, tensor: Tensor, wanted: str, imatrix: tuple[Path, Imatrix] | None) -> Change:
    kind = fitting(wanted, tensor)
    if imatrix is None or not allows_quantization(tensor) or kind in FLOATS:
        return Change(tensor, kind, wanted)
    experts = tensor.shape[0] if len(tensor.shape) > 2 else 1
    try:
        return Change(tensor, kind, wanted, imatrix[1].importance(tensor.name, experts, tensor.shape[-1]))
    except ValueError as problem:
        if not _counts(tensor.name):
            return Change(tensor, kind, wanted)
        message = f"{imatrix[0]}: {tensor.name}: {problem}"
        raise ModelFileError(message, f"measure it on this model: `qcli imatrix {source.path} TEXT -o FILE`") from None


def _counts(name: str) -> bool:
    """Whether importance is expected for a tensor: it is measured inside the layers."""
    return name not in ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")


def _check_sources(source: GGUFFile, changes: Sequence[Change], allow_requantize: bool) -> None:
    for change in changes:
        kind = change.tensor.type
        if not change.converts:
            continue
        if kind not in FLOATS and not allow_requantize:
            message = (
                f'{source.path}: the tensor "{change.tensor.name}" is {kind} already; quantizing it again loses more'
            )
            raise UsageError(message, "take the BF16 or F16 file of this model, or add --allow-requantize")
        if kind not in formats.names():
            message = f'{source.path}: the tensor "{change.tensor.name}" is of type {kind}, which qcli cannot read yet'
            raise UnsupportedModelError(message, "take the BF16 or F16 file of this model")
        if not can_make(change.type):
            message = f'the tensor "{change.tensor.name}" would become {change.type}, which qcli cannot make yet'
            raise UsageError(message, f"--tensor {change.tensor.name}=Q8_0 makes it another type")


def _check_importance(
    source: GGUFFile, changes: Sequence[Change], mix: Mix, imatrix: tuple[Path, Imatrix] | None
) -> None:
    for change in changes:
        name = change.tensor.name
        always = change.converts and quantizers.find(change.type).needs_importance
        needs = always or (change.converts and change.type in mix.needs_importance and _counts(name))
        if needs and imatrix is None:
            message = f"{change.type} is of no use without an importance matrix"
            raise UsageError(message, f"`qcli imatrix {source.path} TEXT -o FILE` makes one for --imatrix FILE")
        if needs and imatrix and change.importance is None:
            message = f"{imatrix[0]}: says nothing about {name}, which {change.type} needs"
            block = re.sub(r"^(blk)\.(\d+)\..*", r"^\1\\.\2\\.", name)  # an MTP block has many such
            raise UsageError(message, f"--tensor '{block}=Q4_K' gives it another type")


def _keys(source: GGUFFile, mix: Mix, imatrix: tuple[Path, Imatrix] | None) -> dict[str, bytes]:
    """The source's own entries, byte for byte, and what has changed, in its place or at the end."""
    keys = {key: bytes(entry) for key, entry in source.entries.items() if not key.startswith(_DROPPED)}
    keys |= u32("general.quantization_version", _VERSION) | u32("general.file_type", mix.file_type)
    if imatrix:
        path, about = imatrix
        keys |= text("quantize.imatrix.file", str(path))
        keys |= text("quantize.imatrix.dataset", about.datasets[0]) if about.datasets else {}
        keys |= u32("quantize.imatrix.entries_count", len(about.entries))
        keys |= u32("quantize.imatrix.chunks_count", about.chunks)
    return keys


def _parts(
    out: Path, keys: Mapping[str, bytes], changes: Sequence[Change], most: int | None, alignment: int
) -> list[tuple[Path, dict[str, bytes], list[Change]]]:
    by_name = {change.tensor.name: change for change in changes}
    rows = split([change.new for change in changes], most) if most else [[change.new for change in changes]]
    kept = {"general.alignment": keys["general.alignment"]} if alignment != ALIGNMENT else {}
    parts = []
    for i, path in enumerate(part_paths(out, len(rows))):
        own = dict(keys) if i == 0 else kept
        own = own | (split_keys(i, len(rows), len(changes)) if len(rows) > 1 else {})
        parts.append((path, own, [by_name[row.name] for row in rows[i]]))
    return parts
