"""Brings experts into memory as tokens are routed to them: what plans of a streamed model turn to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.file import GGUFFile
from qcli.streaming import usage_file
from qcli.streaming.cache import Stock, Traffic
from qcli.streaming.decode_loads import TokenTurns
from qcli.streaming.dense import is_expert
from qcli.streaming.layer import Layer
from qcli.streaming.prefetch import Lookahead
from qcli.streaming.prefill_loads import ChunkTurns
from qcli.streaming.pressure import Pressure
from quant.kernels.experts import GatedExperts
from quant.kernels.experts_streamed import ExpertProvider
from quant.plan import Activation, Batch, Ids, StageCallback
from quant.weights import Matrix


class Supply(ExpertProvider):
    """An ExpertProvider whose experts have slots for as much memory as it is allotted."""

    def __init__(
        self, file: GGUFFile, batch: Batch, stock: Stock | None = None, lookahead: Lookahead | None = None
    ) -> None:
        """batch: see quant.plan.Plan. Raises ModelFileError if the file cannot be read again."""
        self._file, self._batch = file, batch
        self.stock = stock or Stock(file)
        self.chosen = 0  # the most experts that a layer gives a token
        self.remembers = True  # at the end, for the next start, what was asked for
        self._lookahead = lookahead or Lookahead()
        self._tokens, self._chunks = TokenTurns(self.stock, self._lookahead), ChunkTurns(self.stock)
        self._heat_path = usage_file.path_for(file)
        self._asked = False  # for any expert
        self._pressure: Pressure | None = None  # before there are slots to give back
        self._said = False  # that memory is short

    def of_token(self, layer: GatedExperts, chosen: Ids, here: Ids, late: Ids) -> tuple[StageCallback, StageCallback]:
        """See ExpertProvider."""
        held = self.stock.layer(layer)
        self.chosen = max(self.chosen, len(chosen))

        def before() -> Iterator[None]:
            self._asked = True
            self._mind_others()
            self._tokens.before(held, chosen, here, late)
            yield

        def after() -> Iterator[None]:
            self._tokens.after(held, chosen, late)
            yield

        return before, after

    def of_tokens(self, layer: GatedExperts, chosen: Ids, slots: Ids, starts: Ids, counters: Ids) -> StageCallback:
        """See ExpertProvider."""
        held = self.stock.layer(layer)

        def turns() -> Iterator[None]:
            self._asked = True
            self._mind_others(held)
            yield from self._chunks.turns(held, chosen[: self._batch.tokens], slots, starts, counters)

        return turns

    def note_router(self, layer: GatedExperts, router: Matrix, h: Activation) -> None:
        """See ExpertProvider."""
        if h.tokens == 1:
            self._lookahead.note(layer.gate.name, router, h)

    @property
    def layers(self) -> dict[str, Layer]:
        """By the name of their gate."""
        return self.stock.layers

    def needs(self, slots: int) -> int:
        """Bytes of memory for so many slots a layer, and to pass experts by."""
        return sum(slots * layer.room for layer in self.layers.values()) + 2 * self._chunks.staged_bytes

    @property
    def most_slots(self) -> int:
        """The most that a layer can use."""
        return max(layer.count for layer in self.layers.values())

    def allot(self, slots: int) -> None:
        """Have so many slots in every layer, and begin to fill them."""
        for layer in self.layers.values():
            layer.allot(slots)
        self._chunks.allot()
        most = max(layer.slots.count for layer in self.layers.values())
        self._pressure = Pressure(most, self.chosen, sum(layer.room for layer in self.layers.values()))
        self._warm_up()

    @property
    def dense(self) -> list[NDArray[np.uint8]]:
        """The weights that stay in memory, uint8 [bytes] of each tensor."""
        return [tensor.data.reshape(-1) for tensor in self._file.tensors.values() if not is_expert(tensor)]

    @property
    def traffic(self) -> Traffic:
        """Since it was reset."""
        return self.stock.traffic

    def reset_traffic(self) -> None:
        """Count anew."""
        self.stock.traffic = Traffic()

    @property
    def heat(self) -> usage_file.Heat:
        """How often each expert was asked for of late, float32 [experts] by the name of the layer's gate."""
        return {name: layer.slots.heat for name, layer in self.layers.items()}

    def close(self) -> None:
        """End the reader's lanes, and keep the heat for the next start; raises OutputError if that fails."""
        self.stock.reader.close()
        if self._asked and self.remembers:
            usage_file.save(self._heat_path, self.heat)

    def _warm_up(self) -> None:
        """Begin to read the experts that were asked for most before, layer by layer, when the disk has nothing to do."""
        saved = usage_file.load(self._heat_path)
        for name, layer in self.layers.items():
            if len(saved.get(name, ())) == layer.count:
                layer.slots.heat = saved[name]
                for expert in layer.slots.hottest(len(layer.slots.expert_in)).tolist():
                    layer.fetch(self.stock.reader, expert, (), urgent=False)

    def _mind_others(self, chunk_in: Layer | None = None) -> None:
        """Have fewer slots where other programs left too little memory, and more again later. Raises QcliError.

        chunk_in: where a chunk has come to; the layer keeps what it has if it was read ahead for.
        """
        if not self._pressure or not self._pressure.due:
            return
        layers = self.layers.values()
        before = max(layer.slots.count for layer in layers)
        slots = self._pressure.slots_for(before, max(layer.slots.used for layer in layers))
        if slots == before:
            return
        for layer in layers:
            if layer is not chunk_in or not self._chunks.has_guessed(layer):
                layer.have(self.stock.reader, slots)
        if slots < before and not self._said:
            self._said = True
            message = f"memory is short: experts keep {slots} of {self._pressure.most} slots in each layer"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
