"""How many texts are decoded at a time: as many as there is memory for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcli.host.memory import process_memory
from qcli.layers.state import State
from qcli.streaming import budget

if TYPE_CHECKING:
    from qcli.runtime.engine import Engine

_LOGITS = 4  # bytes of each


def text_bytes(state: State, vocab_size: int) -> int:
    """What each text takes that is decoded beside others, when it is as long as the context."""
    return state.slot_bytes + _LOGITS * vocab_size


def fitting(left: int, state: State, vocab_size: int) -> int:
    """How many texts fit into so many bytes."""
    return max(0, left // text_bytes(state, vocab_size))


def places(engine: Engine, wanted: int) -> int:
    """How many texts, `wanted` at most, fit into what the engine may use and what is free; at least 1, which is in its own
    state. A streamed model has its expert cache give up some memory for them; 1 where that has the experts of one token."""
    if engine.most_tokens == 1:
        return 1
    if loader := engine.expert_loader:
        each = text_bytes(engine.state, engine.vocab_size)
        return budget.texts_beside(loader, loader.allocated, engine.spare_bytes, each, wanted)
    left = min(engine.spare_bytes, budget.limit(None) - process_memory())
    return max(1, min(wanted, fitting(left, engine.state, engine.vocab_size)))
