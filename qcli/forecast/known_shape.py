"""The header of a model whose shape is known (`qcli.bench.shapes`), for a forecast where none is to be had."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcli.bench.model_shape import ModelShape
from qcli.bench.shapes import find_shape
from qcli.catalog.entry import Entry
from qcli.forecast.retyped import retyped, types_under
from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.header import Header
from qcli.host.pages import allocate_pages
from qcli.host.temporary import temporary_folder
from qcli.hub.headers import scratch
from qcli.hub.quant_names import quant_of


def header_of_shape(shape: ModelShape) -> GGUFFile:
    """A file whose tensors are all F32, and zeros: `retyped` gives them the types of a quantization."""
    path, rows = Path(f"{shape.name}.gguf"), list(shape.rows(shape.layers))
    memory = allocate_pages(max(4 * math.prod(dimensions) for _, _, dimensions in rows), huge=False)
    tensors = {}
    for name, _, dimensions in rows:
        n_bytes = 4 * math.prod(dimensions)
        data = memory[:n_bytes].reshape(math.prod(dimensions[:-1]), -1)
        tensors[name] = Tensor(name, "F32", dimensions, data, path, 0, n_bytes)
    return GGUFFile(path, Header(3, shape.metadata(shape.layers), []), tensors)


@contextmanager
def known_model(entry: Entry) -> Iterator[tuple[GGUFFile, Path] | None]:
    """What `header_of` would give for an entry of models.toml: a header, and a file to measure the disk with.

    None where the shape is not known, or the types of the quantization are not.
    """
    base = header_of_shape(find_shape(entry.shape)) if entry.shape else None
    types = types_under(base, entry.quant or quant_of(entry.file), entry.bytes or None) if base else None
    if base is None or types is None:
        yield None
        return
    with temporary_folder() as folder:
        yield retyped(base, types), scratch(folder)
