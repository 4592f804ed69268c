"""Loads the experts of a prompt's chunk in one layer, in batches: one is multiplied while the next is read.

Called by `ExpertLoader` when the router has chosen experts for every token of the chunk. Of these experts, the most used get
slots of the layer; the others are read into the staging buffer and are gone after their batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from qcli.streaming.cache import ExpertCache
from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.staging_buffer import ExpertBatch, Readahead, StagedExpert, StagingBuffer
from quant.kernels.experts_grouped import MICRO_BATCH
from quant.plan import Ids

STAGING_BYTES = 256 << 20  # of memory: one half is multiplied while the other is read
READAHEAD_CHOICES = 3.0  # expected choices of an expert to read it ahead: if at random, one in twenty of these has none


@dataclass(frozen=True)
class NeededExperts:
    """The experts of a layer that a chunk needs."""

    experts: list[int]  # in ascending order
    cached: set[int]  # experts that are to be in slots from now on, needed or not
    pinned: list[int]  # experts whose slots are not given to others meanwhile

    @classmethod
    def of(cls, layer: CachedLayer, needed: Ids) -> NeededExperts:
        """needed: experts that any token chose, ascending."""
        cached = layer.slots.most_used(layer.slots.available).tolist()
        return cls(needed.tolist(), {*cached}, [*cached, *needed.tolist()])


class PrefillLoads:
    """Reads experts into slots or into the staging buffer, batch by batch."""

    def __init__(self, cache: ExpertCache) -> None:
        self._cache, self._staging = cache, StagingBuffer()
        self.within_layer = False  # whether the experts of a layer are being multiplied

    @property
    def half_bytes(self) -> int:
        """Bytes of one half of the staging buffer: at least one expert of every layer, at most all of a layer."""
        layers = self._cache.layers.values()
        whole_layer = max(layer.expert_count * layer.slot_bytes for layer in layers)
        return max(min(STAGING_BYTES // 2, whole_layer), *(layer.slot_bytes for layer in layers))

    def allocate(self) -> None:
        """Have the staging buffer."""
        self._staging.allocate(self.half_bytes)

    def has_readahead(self, layer: CachedLayer) -> bool:
        """Whether a readahead relies on experts that are in the layer's slots now."""
        return self._staging.readahead_of(layer) is not None

    def replays(self, layer: CachedLayer, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids) -> Iterator[None]:
        """Yield once for each replay of the kernels, with the experts of a batch in memory.

        chosen: int64 [tokens, k]; pairs, starts, counters: operands of the kernels, see ExpertProvider. Each batch is
        replayed once for every micro-batch of the tokens, with `starts` narrowed to its experts.
        """
        self.within_layer = True
        try:
            yield from self._replays(layer, chosen, pairs, starts, counters)
        finally:
            self.within_layer = False

    def _replays(self, layer: CachedLayer, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids) -> Iterator[None]:
        groups = group_by_expert(chosen, layer.expert_count, pairs)
        choices = np.sum([np.diff(group) for group in groups], axis=0)  # of each expert
        used = np.flatnonzero(choices)
        layer.slots.count_usage(used, choices[used])
        needed = NeededExperts.of(layer, used)
        readahead = self._end_readahead(layer, needed.experts)
        half = readahead.half if readahead else 0
        batches = self._batches(layer, needed.experts, readahead)
        reading = self._begin_reads(layer, batches[0], needed, half, readahead)
        for i, batch in enumerate(batches):
            staged, half = reading, 1 - half
            if i + 1 < len(batches):
                reading = self._begin_reads(layer, batches[i + 1], needed, half)
            else:
                self._read_ahead(layer, int(choices.sum()), half)
            try:
                self._finish_reads(layer, batch.experts, staged)
                for group in groups:
                    np.clip(group, group[batch.experts[0]], group[batch.experts[-1] + 1], out=starts)
                    counters[:] = 0
                    yield
            finally:  # even after Ctrl-C: the next batch but one is read into this memory
                for one in staged:
                    layer.clear_address(one.expert)
            for one in staged:
                if one.expert in needed.cached:
                    with suppress(LookupError):
                        layer.insert(one.expert, one.memory, needed.pinned)

    def _end_readahead(self, layer: CachedLayer, needed: list[int]) -> Readahead | None:
        """The readahead of this layer, if any needed expert may be in it.

        It ends before an expert that was in memory when it began and has left since, as other texts took a step.
        """
        readahead = self._staging.readahead_of(layer)
        cancelled = self._staging.end_readahead(self._cache.reader, needed if readahead else [])
        self._cache.traffic.bytes_read -= cancelled
        if readahead is None:
            return None
        gone = (expert for expert in needed if expert < readahead.end and self._has_left(layer, expert, readahead))
        readahead = replace(readahead, end=next(gone, readahead.end))
        return readahead if needed[0] < readahead.end else None

    def _has_left(self, layer: CachedLayer, expert: int, readahead: Readahead) -> bool:
        """Whether an expert is neither in memory, nor on its way, nor has a place in the readahead."""
        return not (layer.is_loaded(expert) or expert in readahead.missing or layer.pending_load(expert))

    def _batches(self, layer: CachedLayer, needed: list[int], readahead: Readahead | None) -> list[ExpertBatch]:
        """Needed experts in order, cut where more would be missing than can be staged; first those of the readahead."""
        places = self.half_bytes // layer.slot_bytes
        batches = []
        if readahead:
            batches.append(ExpertBatch([expert for expert in needed if expert < readahead.end], readahead.missing))
        batches.append(ExpertBatch())
        for expert in needed[len(batches[0].experts) :]:
            if not layer.is_loaded(expert):
                if len(batches[-1].missing) == places:
                    batches.append(ExpertBatch())
                batches[-1].missing.append(expert)
            batches[-1].experts.append(expert)
        return [batch for batch in batches if batch.experts]

    def _begin_reads(
        self,
        layer: CachedLayer,
        batch: ExpertBatch,
        needed: NeededExperts,
        half: int,
        readahead: Readahead | None = None,
    ) -> list[StagedExpert]:
        """Begin to read what is missing of a batch; returns the experts that are read into a half of the staging buffer."""
        reader, traffic = self._cache.reader, self._cache.traffic
        if not readahead:
            self._staging.join(half)
        staged: list[StagedExpert] = []
        for expert in batch.experts:
            if layer.is_loaded(expert):
                continue
            if readahead and expert in readahead.staged:
                staged.append(readahead.staged[expert])
                continue
            if request := layer.pending_load(expert):
                reader.prioritize(request)
                continue
            if expert in needed.cached:
                with suppress(LookupError):
                    traffic.bytes_read += layer.begin_load(expert, needed.pinned).n_bytes
                    continue
            staged.append(self._staging.read(reader, layer, expert, half, batch.missing.index(expert)))
            traffic.bytes_read += staged[-1].request.n_bytes
        return staged

    def _finish_reads(self, layer: CachedLayer, experts: list[int], staged: list[StagedExpert]) -> None:
        """Wait until all experts of a batch are in memory, and let kernels find them. Raises ModelFileError."""
        with self._cache.traffic.waiting():
            for expert in {*experts} - {one.expert for one in staged}:
                layer.finish_load(expert)
            for one in staged:
                one.request.wait()
                layer.set_address(one.expert, one.memory)

    def _read_ahead(self, layer: CachedLayer, choices: int, half: int) -> None:
        """Begin to read the next layer's first experts, those that its tokens will choose almost surely.

        choices: of the whole chunk in a layer, from which usage predicts those of each expert.
        """
        if following := self._cache.next_layer(layer):
            usage = following.slots.usage + 1.0  # an expert that was never chosen may be chosen
            likely = choices * usage / usage.sum() >= READAHEAD_CHOICES
            n_bytes = self._staging.read_ahead(self._cache.reader, following, likely, half)
            self._cache.traffic.bytes_read += n_bytes


def group_by_expert(chosen: Ids, expert_count: int, pairs: Ids) -> list[Ids]:
    """Sort the (token, choice) pairs of chosen [tokens, k] by expert, separately in each micro-batch of tokens.

    Fills pairs [tokens * k], micro-batch after micro-batch; returns for each where every expert's pairs begin in it, int64
    [expert_count + 1]. Micro-batches are those of a resident model, so that sums are made of the same parts.
    """
    groups = []
    k = chosen.shape[1]
    for first in range(0, len(chosen), MICRO_BATCH):
        flat = chosen[first : first + MICRO_BATCH].reshape(-1)
        base = first * k
        pairs[base : base + len(flat)] = base + np.argsort(flat, kind="stable")
        groups.append(base + np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=expert_count))]))
    return groups
