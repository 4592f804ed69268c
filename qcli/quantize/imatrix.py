"""Importance: how large the inputs of every weight are on a text, which tells a quantizer where errors hurt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcli.errors import ModelFileError
from qcli.gguf.file import GGUFFile
from qcli.gguf.names import layer_of
from qcli.progress import Progress
from qcli.quantize.imatrix_file import Entry, Imatrix
from qcli.runtime.engine import Engine
from quant.kernels.input_squares import InputSquares

FEW = 64  # tokens below which an expert's importance is mostly chance: a mean of so many squares is good to 20 %


@dataclass(frozen=True)
class Starved:
    """Experts of a layer that few tokens were routed to, with the number of these."""

    layer: int
    experts: int  # that the layer has
    counts: dict[int, int]


def load(file: GGUFFile, ctx: int, threads: int | None = None, progress: Progress | None = None) -> Engine:
    """An engine that adds up the squares of the inputs of its weights while it reads a prompt."""
    squares = InputSquares()
    return Engine.load(file, threads=threads, ctx=ctx, chunk=ctx, progress=progress, observer=squares, mtp=True)


def measure(engine: Engine, chunks: Sequence[Sequence[int]], name: str, progress: Progress | None = None) -> Imatrix:
    """Importance over chunks of a text called `name`, by an engine of `load`. Raises ModelFileError."""
    observer = engine.observer
    assert isinstance(observer, InputSquares)
    for i, ids in enumerate(chunks):
        engine.reset()
        engine.prefill(ids)
        if progress:
            progress("measuring", (i + 1) / len(chunks))
    entries = {weight: Entry(found.sums.copy(), found.counts.copy()) for weight, found in observer.squares.items()}
    for weight, entry in entries.items():
        if not np.isfinite(entry.sums).all():
            raise ModelFileError(f"the inputs of {weight} are not finite numbers", "download the model again")
    return Imatrix(entries, [name], len(chunks), len(chunks[0]))


def starved(imatrix: Imatrix, few: int = FEW) -> list[Starved]:
    """Every layer with experts, and those of them that fewer than `few` tokens were routed to."""
    layers: dict[int, Starved] = {}
    for name, entry in imatrix.entries.items():
        layer = layer_of(name)
        if layer >= 0 and len(entry.counts) > 1 and layer not in layers:
            counts = {expert: n for expert, n in enumerate(entry.counts.tolist()) if n < few}
            layers[layer] = Starved(layer, len(entry.counts), counts)
    return [layers[i] for i in sorted(layers)]
