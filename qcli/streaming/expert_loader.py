"""Loads experts into memory as tokens are routed to them: what the plans of a streamed model call while they are replayed.

`Engine.load` makes one for a model that does not fit into memory. While plans are traced, they register each layer of experts
(`of_token`, `of_tokens`). `budget` then decides how many slots there are, and `allocate` begins to fill them with the
experts that earlier runs used most. What a token needs is loaded by kernels, of which `DecodeLoads` hears afterwards; for a
chunk of a prompt `PrefillLoads` loads what a layer needs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.streaming import usage_file
from qcli.streaming.cache import ExpertCache, Traffic
from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.decode_loads import DecodeLoads
from qcli.streaming.dense import is_expert
from qcli.streaming.prefetch import PrefetchPolicy, PrefetchTrial
from qcli.streaming.prefill_loads import PrefillLoads
from qcli.streaming.pressure import MemoryPressure
from qcli.streaming.source import ExpertSource, ModelFiles
from quant.batch import Batch
from quant.kernels.experts import GatedExperts
from quant.kernels.experts_streamed import ExpertProvider
from quant.plan import Ids, Plan, StageCallback


class ExpertLoader(ExpertProvider):
    """An ExpertProvider: an expert cache and what fills it."""

    def __init__(
        self,
        file: GGUFFile,
        *,
        source: ExpertSource | None = None,
        prefetch: PrefetchPolicy | None = None,
        usage_path: Path | None = None,
        before_token: Callable[[], None] | None = None,
    ) -> None:
        """Raises ModelFileError if a file of the source cannot be opened.

        source: where experts are read from, the files of the model by default; prefetch: when to prefetch, by default if a
        trial shows that it is quicker; usage_path: where the usage of experts is loaded from and saved, nowhere by default;
        before_token: called before each decoded token.
        """
        self._file = file
        self.cache = ExpertCache(source or ModelFiles(file))
        self.experts_per_token = 0  # the most that a layer gives a token
        self.allocated = self._slots = 0  # slots of every layer, unless it has fewer experts: at first, and now
        self.saves_usage = True  # when it is closed
        self._decode, self._prefill = DecodeLoads(self.cache, prefetch or PrefetchTrial()), PrefillLoads(self.cache)
        self._usage_path, self._before_token = usage_path, before_token
        self._used = False  # whether any token was routed
        self._pressure: MemoryPressure | None = None  # None before `allocate`
        # raises QcliError if these plans leave too little memory; by default they never do
        self.require_room: Callable[[list[Plan]], object] = list
        self.give_up_first: Callable[[], int] = int  # gives up what is missed less than slots; bytes
        self._warned = False  # that memory is short

    def of_token(self, layer: GatedExperts, k: int) -> Ids:
        """See ExpertProvider."""
        self.experts_per_token = max(self.experts_per_token, k)
        return self.cache.layer(layer, k).table

    def replays_of_step(self, batch: Batch, whole: bool = True) -> StageCallback:
        """What runs around the replay of a stepwise plan, for the tokens of a batch; whole: of all the model's layers.

        It raises QcliError for more tokens than there is room for the experts of (see most_tokens): they would wait for ever.
        """

        def replays() -> Iterator[None]:
            if batch.tokens > max(1, self.most_tokens):
                message = f"there is no room for the experts of {batch.tokens} tokens at a time"
                raise QcliError(message, ("take fewer", "give a larger --ram"))
            self._used = True
            if self._before_token:
                self._before_token()
            self._adapt_to_free_memory(tokens=batch.tokens)
            yield from self._decode.replays(compared=whole and batch.tokens == 1)

        return replays

    @property
    def most_tokens(self) -> int:
        """How many tokens a step can take: all their experts need slots at the same time."""
        return self._slots // self.experts_per_token if self._slots < self.max_slots else self.max_slots

    def of_tokens(
        self, layer: GatedExperts, batch: Batch, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids
    ) -> StageCallback:
        """See ExpertProvider."""
        cached = self.cache.layer(layer, chosen.shape[1])

        def replays() -> Iterator[None]:
            self._used = True
            self._adapt_to_free_memory(prefilling=cached)
            yield from self._prefill.replays(cached, chosen[: batch.tokens], pairs, starts, counters)

        return replays

    @property
    def within_layer(self) -> bool:
        """Whether a prompt relies on experts that are in memory: no step may be taken before its layer is computed."""
        return self._prefill.within_layer

    @property
    def layers(self) -> dict[str, CachedLayer]:
        """By the tensor name of their gates."""
        return self.cache.layers

    @property
    def max_slots(self) -> int:
        """The most slots that a layer can use."""
        return max(layer.expert_count for layer in self.layers.values())

    def bytes_for(self, slots: int) -> int:
        """Memory of so many slots in each layer, and of the staging buffer."""
        return sum(slots * layer.slot_bytes for layer in self.layers.values()) + 2 * self._prefill.half_bytes

    def cache_bytes(self, slots: int) -> int:
        """Memory of so many slots in each layer that has as many experts."""
        return sum(min(slots, layer.expert_count) * layer.slot_bytes for layer in self.layers.values())

    def slots_without(self, n_bytes: int, slots: int) -> int:
        """How many of so many slots in each layer there are if the cache takes `n_bytes` less."""
        whole = self.cache_bytes(slots)
        while slots > 0 and whole - self.cache_bytes(slots) < n_bytes:
            slots -= 1
        return slots

    def give_up(self, n_bytes: int) -> None:
        """From now on take so many bytes less than was allocated, but have slots for the experts of one token."""
        assert self._pressure
        most = max(self.slots_without(n_bytes, self.allocated), min(self.allocated, self.experts_per_token))
        self._pressure.max_slots = most
        if most < self._slots:
            for layer in self.layers.values():
                layer.resize(most)
            self._slots = most

    def allocate(self, slots: int) -> None:
        """Have so many slots in every layer, and begin to fill them with the experts that earlier runs used most."""
        for layer in self.layers.values():
            layer.allocate(slots)
        self._prefill.allocate()
        self.allocated = self._slots = slots
        allocated = max(layer.slots.available for layer in self.layers.values())
        slot_bytes = sum(layer.slot_bytes for layer in self.layers.values())
        self._pressure = MemoryPressure(allocated, self.experts_per_token, slot_bytes)
        if self._usage_path:
            self._warm_up(usage_file.load(self._usage_path))

    @property
    def dense(self) -> list[NDArray[np.uint8]]:
        """The weights that stay in memory, uint8 [bytes] of each tensor."""
        return [tensor.data.reshape(-1) for tensor in self._file.tensors.values() if not is_expert(tensor)]

    @property
    def traffic(self) -> Traffic:
        """Hits, misses and reads since `reset_traffic`."""
        return self.cache.traffic

    def reset_traffic(self) -> None:
        """Count from zero."""
        self.cache.traffic = Traffic()

    @property
    def usage(self) -> usage_file.Usage:
        """How often each expert was chosen of late, float32 [experts] by the tensor name of the layer's gates."""
        return {name: layer.slots.usage for name, layer in self.layers.items()}

    def close(self) -> None:
        """End the I/O threads, and save the usage of experts for the next start. Raises OutputError if that fails."""
        self.cache.reader.close()
        if self._usage_path and self._used and self.saves_usage:
            usage_file.save(self._usage_path, self.usage)

    def _warm_up(self, saved: usage_file.Usage) -> None:
        """Begin to load the most used experts in the background, layer by layer."""
        for name, layer in self.layers.items():
            if len(saved.get(name, ())) == layer.expert_count:
                layer.slots.usage = saved[name]
                for expert in layer.slots.most_used(len(layer.slots.expert_in)).tolist():
                    layer.begin_load(expert, (), urgent=False)

    def _adapt_to_free_memory(self, prefilling: CachedLayer | None = None, tokens: int = 1) -> None:
        """Use fewer slots where other programs left too little memory, and more again later. Raises QcliError.

        prefilling: the layer that a chunk has come to; it keeps its slots if a readahead relies on them.
        tokens: of the step that is about to be taken, whose experts need slots.
        """
        if not self._pressure or not self._pressure.due:
            return
        layers = self.layers.values()
        before = max(layer.slots.available for layer in layers)
        slots = self._pressure.slots_for(before, max(layer.slots.used for layer in layers))
        slots = max(slots, min(before, tokens * self.experts_per_token))
        if slots == before or (slots < before and self.give_up_first()):
            return
        for layer in layers:
            if layer is not prefilling or not self._prefill.has_readahead(layer):
                layer.resize(slots)
        self._slots = slots
        if slots < before and not self._warned:
            self._warned = True
            message = f"memory is short: {slots} of {self._pressure.max_slots} expert slots in each layer stay in use"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
