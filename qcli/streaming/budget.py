"""Decides how memory is used: whether a model stays in it as a whole, and if not, how large chunks and the cache may be.

`Engine.load` asks in this order, as does a forecast: `limit`, `fits`; for a model that does not fit `chunk_size`, then
`require_slots` before anything is compiled, and `allocate_slots`. Amounts are bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.host.memory import available_memory, process_memory
from qcli.layers.state import State
from qcli.streaming.layer_collector import LayerCollector
from qcli.wording import size
from quant.kernels.experts_grouped import MICRO_BATCH
from quant.plan import Plan

if TYPE_CHECKING:
    from qcli.models import Model
    from qcli.streaming.expert_loader import ExpertLoader

RESERVE = 192 << 20  # for what comes after loading: a vocabulary, a chat's text, the interpreter's own
MAX_CHUNK = 4 * MICRO_BATCH  # tokens
_CHECKPOINTS = 4  # in memory at the same time
_LOGITS = 1 << 20  # bytes, with one checkpoint
_WINDOWS = 256 << 20  # bytes of keys and values of windows in checkpoints, unless two checkpoints have more
_LEFT_ROWS = 64 << 20  # bytes
_LEFT_TO_OTHERS = 512 << 20  # where no limit was given
_TEXTS = 8  # one part of so many of the expert cache may go to texts that are decoded together
_AMPLE = 2 << 30  # more than the buffers of any plan, so that none has to be traced
_TRACED = 256  # tokens of the plan that is traced to see how much memory one takes


def limit(ram: int | None) -> int:
    """What the whole process may use: `ram` if it was given, else what is free, less what is left to others."""
    return max(0, available_memory() + process_memory() - _LEFT_TO_OTHERS) if ram is None else ram


def checkpoint_bytes(state: State) -> int:
    """What checkpoints of a state may take, and the keys and values of texts that were left."""
    windows = min(_CHECKPOINTS * state.window_bytes, max(2 * state.window_bytes, _WINDOWS))
    return _CHECKPOINTS * (state.recurrent_bytes + _LOGITS) + windows + min(_LEFT_ROWS, state.cache_bytes // 4)


def state_bytes(state: State) -> int:
    """What a state takes with its checkpoints, and the copy that a chunk's interruption goes back to."""
    return state.n_bytes + checkpoint_bytes(state) + state.recurrent_bytes


def fits(file: GGUFFile, model: Model, state: State, threads: int, ram: int, used: int) -> bool:
    """Whether all weights can stay in memory; used: what the process takes already."""
    left = ram - _without_buffers(file, state, used)
    return left >= _AMPLE or (left > 0 and left >= _buffer_bytes(model, state, threads))


def resident_bytes(file: GGUFFile, model: Model, state: State, threads: int, used: int) -> int:
    """The least memory with which all weights can stay in it; used: as in `fits`."""
    return _without_buffers(file, state, used) + _buffer_bytes(model, state, threads)


def spare_bytes(file: GGUFFile, state: State, plans: list[Plan], ram: int, used: int) -> int:
    """What a resident model with these plans leaves of the memory; used: as in `fits`."""
    return ram - _without_buffers(file, state, used) - sum(plan.n_bytes for plan in plans)


def _without_buffers(file: GGUFFile, state: State, used: int) -> int:
    """What a resident model takes apart from the buffers of its plans."""
    return used + sum(tensor.n_bytes for tensor in file.tensors.values()) + state_bytes(state) + RESERVE


def _buffer_bytes(model: Model, state: State, threads: int) -> int:
    """What the plan of a resident model's prompts takes."""
    return MICRO_BATCH * _bytes_per_token(model, state, threads)


def chunk_size(model: Model, state: State, threads: int, ram: int) -> int:
    """Tokens of a prompt to take together where a model is streamed: each chunk reads experts anew, so the more the better.

    Whole micro-batches, at most `MAX_CHUNK`, whose buffers take a sixteenth of the memory unless one alone takes more.
    """
    most = ram // 16 // _bytes_per_token(model, state, threads, LayerCollector())
    return min(max(most // MICRO_BATCH, 1) * MICRO_BATCH, MAX_CHUNK)


def _bytes_per_token(model: Model, state: State, threads: int, streamed: LayerCollector | None = None) -> int:
    """What the buffers of a prompt's plan take for each token."""
    plan = Plan(_TRACED, threads, state.batch, streamed)
    model.trunk(plan, np.zeros(_TRACED, np.int64))
    return plan.n_bytes // _TRACED


@dataclass(frozen=True)
class SlotBudget:
    """What is left of the memory for the expert cache."""

    slots: int  # in each layer
    missing_bytes: int  # to have slots for the experts of one token
    spare_bytes: int  # that the cache has no use for, as all experts have a slot

    @property
    def enough(self) -> bool:
        """Whether there are slots for the experts of one token."""
        return self.missing_bytes <= 0


def slot_budget(loader: ExpertLoader, state: State, plans: list[Plan], ram: int, used: int) -> SlotBudget:
    """What state and buffers of the plans leave; used: what dense weights and the program take."""
    left = ram - used - state_bytes(state) - sum(plan.n_bytes for plan in plans) - RESERVE
    slots = min((left - loader.bytes_for(0)) // (loader.bytes_for(1) - loader.bytes_for(0)), loader.max_slots)
    spare = left - loader.bytes_for(slots) if slots == loader.max_slots else 0
    return SlotBudget(slots, loader.bytes_for(loader.experts_per_token) - left, spare)


def require_slots(
    loader: ExpertLoader, state: State, ram: int, resident_bytes: Callable[[], int], plans: list[Plan]
) -> SlotBudget:
    """What is left for the expert cache, before or after the plans are compiled. Raises QcliError if one token needs more.

    resident_bytes: see the function of this name; a small model may need less to be resident than to be streamed.
    """
    found = slot_budget(loader, state, plans, ram, process_memory())
    if not found.enough:
        enough = ram_option(ram, min(found.missing_bytes, resident_bytes() - ram))
        raise QcliError(
            f"{size(ram)} of memory is not enough for this model with a context of {state.ctx:,} tokens",
            (f"give --ram {enough} if you have that much", "give a smaller --ctx", "take a smaller file of this model"),
        )
    return found


def allocate_slots(
    loader: ExpertLoader, state: State, ram: int, resident_bytes: Callable[[], int], plans: list[Plan]
) -> int:
    """Give the expert cache what is left of the memory, and return what it has no use for; as `require_slots`."""
    found = require_slots(loader, state, ram, resident_bytes, plans)
    loader.allocate(found.slots)
    return found.spare_bytes


def texts_beside(loader: ExpertLoader, slots: int, spare: int, each: int, wanted: int) -> int:
    """How many texts of `each` bytes, `wanted` at most, can be decoded together beside a cache of so many slots a layer.

    They take what the cache has no use for (`spare`), and no more than an eighth of the cache; what is left of it has slots
    for the experts of all of them. At least 1, which is in the engine's own state.
    """
    texts = min(wanted, (spare + loader.cache_bytes(slots) // _TEXTS) // each)
    while texts > 1:
        left = loader.slots_without(texts * each - spare, slots)
        if left >= min(texts * loader.experts_per_token, loader.max_slots):
            return texts
        texts -= 1
    return 1


def ram_option(ram: int, missing_bytes: int) -> str:
    """The value of --ram that would be enough, in tenths of a gigabyte."""
    return f"{-(-(ram + missing_bytes) // 10**8) / 10:.1f}GB"
