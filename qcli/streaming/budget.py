"""How much memory there is to use, and whether a model fits into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.host.memory import available, resident
from qcli.layers.state import State
from qcli.wording import size
from quant.plan import Plan

if TYPE_CHECKING:
    from qcli.models import Model
    from qcli.streaming.expert_loader import Supply

RESERVE = 192 << 20  # bytes for what comes after loading: a vocabulary, a chat's text, the interpreter's own
_LEFT = 512 << 20  # bytes left to everybody else where no limit was given
_PLENTY = 2 << 30  # bytes beyond all buffers of a plan, so that none has to be traced
_TRIED = 256  # tokens of the plan that is traced to see how much one takes
TOGETHER = 1024  # tokens of a prompt that meet an expert together; 512: 15 % slower, 2048: no quicker
MOST_CHUNK = 4 * TOGETHER


def limit(ram: int | None) -> int:
    """Bytes that the whole process may use: what was given, or what is free."""
    return max(0, available() + resident() - _LEFT) if ram is None else ram


def fits(file: GGUFFile, model: Model, state: State, threads: int, ram: int, used: int) -> bool:
    """Whether all weights can stay mapped, `used` bytes being taken before."""
    left = ram - _mapped(file, state, used)
    return left >= _PLENTY or (left > 0 and left >= _prompt_bytes(model, state, threads))


def whole(file: GGUFFile, model: Model, state: State, threads: int, used: int) -> int:
    """Bytes of memory with which all weights can stay mapped."""
    return _mapped(file, state, used) + _prompt_bytes(model, state, threads)


def _mapped(file: GGUFFile, state: State, used: int) -> int:
    """Without what a prompt's plan takes."""
    return used + sum(tensor.n_bytes for tensor in file.tensors.values()) + state.n_bytes + RESERVE


def _prompt_bytes(model: Model, state: State, threads: int) -> int:
    """What a resident model's prompts take."""
    return TOGETHER * _bytes_per_token(model, state, threads)


def chunk_for(model: Model, state: State, supply: Supply, threads: int, ram: int) -> int:
    """Tokens of a prompt to take together: as many as fit into a sixteenth of the memory, as each chunk reads experts anew."""
    most = ram // 16 // _bytes_per_token(model, state, threads, supply)
    return min(max(most // TOGETHER, 1) * TOGETHER, MOST_CHUNK)


def _bytes_per_token(model: Model, state: State, threads: int, supply: Supply | None = None) -> int:
    """What a prompt's plan takes for each token, by one of a few tokens."""
    plan = Plan(_TRIED, threads, state.batch, supply)
    model.trunk(plan, np.zeros(_TRIED, np.int64))
    return plan.n_bytes // _TRIED


@dataclass(frozen=True)
class Share:
    """What experts get of the memory."""

    slots: int  # in each layer
    lacking: int  # bytes without which not even one token's experts have slots

    @property
    def enough(self) -> bool:
        return self.lacking <= 0


def share(supply: Supply, state: State, plans: list[Plan], ram: int, used: int) -> Share:
    """Slots for what is left, `used` bytes being taken by dense weights and the program."""
    left = ram - used - state.n_bytes - sum(plan.n_bytes for plan in plans) - RESERVE
    slots = (left - supply.needs(0)) // (supply.needs(1) - supply.needs(0))
    return Share(min(slots, supply.most_slots), supply.needs(supply.chosen) - left)


def wanted(ram: int, lacking: int) -> str:
    """What to give instead, as one would type it."""
    return f"{-(-(ram + lacking) // 10**8) / 10:.1f}GB"


def allot(supply: Supply, state: State, plans: list[Plan], ram: int, whole: Callable[[], int]) -> None:
    """Give the experts' slots what is left; raises QcliError if that is not enough for a token's.

    whole: tells with how many bytes nothing need be streamed; a small model takes less so.
    """
    found = share(supply, state, plans, ram, resident())
    if not found.enough:
        enough = wanted(ram, min(found.lacking, whole() - ram))
        raise QcliError(
            f"{size(ram)} of memory do not hold this model's dense weights, its context of {state.ctx} tokens and the"
            f" experts of one token",
            f"give --ram {enough} if there is as much, a smaller --ctx, or a smaller file of this model",
        )
    supply.allot(found.slots)
