"""Names that carry numbers: of tensors, the layer they belong to; of files, which part of a split model they are."""

from __future__ import annotations

import re
from pathlib import Path

MAX_PARTS = 1000  # files of one model that are read

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_FIRST_PART = re.compile(r"-00001-of-(\d{5})\.gguf$", re.IGNORECASE)
_ENDING_AS_TYPED = re.compile(r"(?:-\d{5}(-of-)\d{5})?(\.gguf)?$", re.IGNORECASE)
_ENDING = re.compile(r"(-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)


def split_layer(tensor: str) -> tuple[int, str]:
    """A tensor's layer, from 0, and its name within it: "blk.3.attn_q.weight" is (3, "attn_q.weight").

    A tensor outside of the layers has layer -1 and its whole name.
    """
    found = _LAYER.fullmatch(tensor)
    return (int(found[1]), found[2]) if found else (-1, tensor)


def layer_of(tensor: str) -> int:
    """A tensor's layer, from 0; -1 for one outside of the layers."""
    return split_layer(tensor)[0]


def stem_of(file: str) -> str:
    """A file's name without ".gguf", and without the number of its part: "m-00001-of-00003.gguf" is "m"."""
    return _ENDING.sub("", file)


def count_parts(file: str) -> int:
    """How many parts a model has, by the name of its first file; 1 if that names none."""
    found = _FIRST_PART.search(file)
    return int(found[1]) if found else 1


def part_paths(path: Path, count: int) -> list[Path]:
    """The paths of a model's parts in order, given its first or one without numbers; of one part, the path itself."""
    if count == 1:
        return [path]
    stem = stem_of(path.name)
    of, ending = _ENDING_AS_TYPED.search(path.name).groups()  # type: ignore[union-attr]
    return [path.with_name(f"{stem}-{i + 1:05d}{of or '-of-'}{count:05d}{ending or '.gguf'}") for i in range(count)]
