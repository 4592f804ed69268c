"""A step of several tokens, each computed as by a step of its own: of tokens that are guesses, and may turn out to be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcli.layers.state import State
from qcli.models import Model
from qcli.runtime.program import Program
from quant.plan import Plan


@dataclass(frozen=True, eq=False)
class WideStep:
    """Two programs: `step` makes logits of each of a few tokens; `catch_up` has recurrent states see those that stay.

    logits: float32 [tokens, vocab], overwritten by the next replay.
    """

    plans: tuple[Plan, Plan]
    logits: NDArray[np.float32]
    step: Program
    catch_up: Program

    @classmethod
    def of(cls, model: Model, state: State, ids: NDArray[np.int64], threads: int) -> WideStep:
        """Trace and compile a model's step of up to `state.most_tokens` tokens, whose ids will be the first of `ids`."""
        step, catch_up = Plan(state.most_tokens, threads, state.batch, stepwise=True), Plan(1, threads, state.batch)
        logits = model.head(step, model.trunk(step, ids))
        for trace in state.catching_up:
            trace(catch_up)
        return cls((step, catch_up), logits.values, Program.of(step), Program.of(catch_up))
