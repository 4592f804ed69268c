"""Which layers of experts a plan has that is traced as that of a streamed model, and never replayed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quant.batch import Batch
from quant.kernels.experts import GatedExperts
from quant.kernels.experts_streamed import ExpertProvider
from quant.plan import Ids, StageCallback


class LayerCollector(ExpertProvider):
    """An ExpertProvider that brings nothing, and lists the layers in order."""

    def __init__(self) -> None:
        self.layers: list[GatedExperts] = []

    def of_token(self, layer: GatedExperts, k: int) -> Ids:
        """See ExpertProvider."""
        self.layers.append(layer)
        return np.zeros(0, np.int64)

    def of_tokens(
        self, layer: GatedExperts, batch: Batch, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids
    ) -> StageCallback:
        """See ExpertProvider."""
        return _nothing


def _nothing() -> Iterator[None]:
    return iter(())
