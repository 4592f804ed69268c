"""Loads the experts of one decoded token in one layer.

Called by `ExpertLoader` twice a layer: `begin` when the router has chosen experts, before kernels multiply those that are in
memory; `finish` before they multiply the others.
"""

from __future__ import annotations

from contextlib import suppress

from qcli.streaming.cache import ExpertCache
from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.prefetch import Prefetcher
from quant.plan import Ids


class DecodeLoads:
    """Sorts a token's experts into those in memory and those to be read, and reads the latter."""

    def __init__(self, cache: ExpertCache, prefetcher: Prefetcher) -> None:
        self._cache, self._prefetcher = cache, prefetcher

    def begin(self, layer: CachedLayer, chosen: Ids, loaded: Ids, missing: Ids) -> None:
        """Begin to read chosen experts [k] that are not in memory.

        loaded, missing: int64 [1 + k] to be filled: a count, then so many indices into `chosen`.
        """
        traffic, experts = self._cache.traffic, chosen.tolist()
        layer.slots.count_usage(chosen)
        self._prefetcher.begin_layer(layer.name)
        traffic.bytes_read -= layer.cancel_prefetches(self._cache.reader, experts)
        hits = [layer.is_loaded(expert) for expert in experts]
        for expert, hit in zip(experts, hits, strict=True):
            if not hit:
                self._load(layer, expert, experts)
        _fill(loaded, [i for i, hit in enumerate(hits) if hit])
        _fill(missing, [i for i, hit in enumerate(hits) if not hit])
        traffic.hits += sum(hits)
        traffic.misses += len(hits) - sum(hits)

    def finish(self, layer: CachedLayer, chosen: Ids, missing: Ids) -> None:
        """Prefetch for the next layer if there is a read to wait for, then wait. Raises ModelFileError."""
        if missing[0]:
            self._prefetch_next(layer, len(chosen))
        with self._cache.traffic.waiting():
            for i in missing[1 : 1 + missing[0]].tolist():
                layer.finish_load(int(chosen[i]))
        self._prefetcher.end_layer(layer.name)

    def _load(self, layer: CachedLayer, expert: int, pinned: list[int]) -> None:
        """Have an expert read into a slot urgently, evicting none of `pinned`."""
        reader, traffic = self._cache.reader, self._cache.traffic
        if request := layer.pending_load(expert):
            reader.prioritize(request)
            return
        while not layer.is_loaded(expert):
            try:
                traffic.bytes_read += layer.begin_load(reader, expert, pinned).n_bytes
                return
            except LookupError:  # all other slots are being read into, maybe for this expert
                with traffic.waiting():
                    layer.finish_oldest_load()

    def _prefetch_next(self, layer: CachedLayer, count: int) -> None:
        """Begin to read the `count` experts that the next layer is predicted to choose, in the background."""
        following = self._cache.next_layer(layer) if self._prefetcher.enabled else None
        if following is None:
            return
        predicted = self._prefetcher.predict(layer.name, following.name, count)
        for expert in predicted:
            if not following.is_loaded(expert) and not following.pending_load(expert):
                with suppress(LookupError):
                    self._cache.traffic.bytes_read += following.prefetch(self._cache.reader, expert, predicted).n_bytes


def _fill(indices: Ids, found: list[int]) -> None:
    indices[0] = len(found)
    indices[1 : 1 + len(found)] = found
