"""How often each expert of a model is chosen: by the tokens of a text, or in earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcli.errors import PromptError, QcliError
from qcli.gguf.file import GGUFFile
from qcli.gguf.names import layer_of
from qcli.progress import Progress, part_of
from qcli.runtime.engine import Engine
from qcli.streaming import usage_file
from qcli.streaming.dense import is_expert
from quant.kernels.assignments import Assignments
from quant.kernels.input_squares import add_squares
from quant.kernels.observer import InputObserver
from quant.plan import Activation, Ids, Plan, aligned


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """How often each expert of a layer was chosen."""

    number: int  # of the layer, from 0
    counts: NDArray[np.float64]  # [experts]

    @property
    def used(self) -> int:
        """Experts that were chosen at least once."""
        return int(np.count_nonzero(self.counts))

    def share_of_top(self, part: float) -> float:
        """The share of all choices, 0 to 1, that falls to the most used experts; part: how many of them, 0 to 1."""
        top = np.sort(self.counts)[::-1][: max(1, round(part * len(self.counts)))]
        return float(top.sum() / max(self.counts.sum(), 1e-9))


class CountingObserver(InputObserver):
    """Counts the tokens of every expert at each replay of one plan: `counts` int64 [experts], by the name of a weight."""

    def __init__(self) -> None:
        self.counts: dict[str, Ids] = {}

    def before_product(
        self, plan: Plan, names: Sequence[str], x: Activation, assignments: Assignments | None = None
    ) -> None:
        """Add a record that counts each expert's rows: that of `InputSquares`, for no columns."""
        if assignments is None or names[0] in self.counts:
            return
        counts = self.counts[names[0]] = aligned(assignments.experts, np.int64)
        plan.add(add_squares, 0, 0, 0, assignments.table(plan), 0, counts, plan.batch)


def by_text(
    file: GGUFFile,
    ids: Sequence[int],
    *,
    threads: int | None = None,
    ram: int | None = None,
    progress: Progress | None = None,
) -> list[LayerCounts]:
    """Prefill a text, in pieces that fit into the context, and count. Raises PromptError, and as Engine.load."""
    if len(ids) < 2:
        raise PromptError("the text is too short", "give two words at least")
    _check(file)
    observer = CountingObserver()
    engine = Engine.load(file, threads=threads, ram=ram, observer=observer, progress=progress)
    try:
        pieces = np.array_split(np.asarray(ids), -(-len(ids) // engine.ctx))
        for done, piece in enumerate(pieces):
            engine.reset()
            engine.prefill(piece.tolist(), part_of(progress, "reading", done, 1, len(pieces)))
        return _layers(file, observer.counts)
    finally:
        engine.close()


def by_usage(file: GGUFFile) -> list[LayerCounts]:
    """What earlier runs of a streamed model counted, recent choices with more weight. Raises QcliError if there were none."""
    _check(file)
    if saved := usage_file.load(usage_file.path_for(file)):
        return _layers(file, saved)
    message = f"{file.path}: no earlier run counted the experts used; only runs of models larger than memory do"
    raise QcliError(message, "give a text: --prompt TEXT, or --file FILE")


def _layers(file: GGUFFile, counts: Mapping[str, NDArray[np.int64] | NDArray[np.float32]]) -> list[LayerCounts]:
    """The counts of each layer, in order: those of its first weight, as gate, up and down have the same."""
    found: dict[int, LayerCounts] = {}
    for name, values in counts.items():
        layer = layer_of(name)
        if layer >= 0 and "_exps." in name:
            found.setdefault(layer, LayerCounts(layer, values.astype(np.float64)))
    return [found[number] for number in sorted(found)]


def _check(file: GGUFFile) -> None:
    if not any(is_expert(tensor) for tensor in file.tensors.values()):
        raise QcliError(f"{file.path}: this model has no routed experts", "`qcli show` tells what is in a file")
