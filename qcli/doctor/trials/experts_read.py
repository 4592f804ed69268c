"""Experts that are read from a file as tokens choose them: of one token, of a few, of many; and guesses of the next layer's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from qcli.doctor.trials.expert_layer import CHOSEN, COUNT, Layer, N, middle_of
from qcli.doctor.trials.reading import ExpertFile, comes
from qcli.doctor.trials.trial import Experiment, Trial, given, new_plan, unlike
from qcli.doctor.trials.weights import numbers, random_matrix
from qcli.doctor.twins.router import choose
from qcli.host.temporary import temporary_folder
from qcli.runtime.program import Program
from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.reader import Reader
from quant import read_queue
from quant.batch import Batch
from quant.jit import Kernel
from quant.kernels import expert_loads, expert_slots, experts_streamed
from quant.kernels.expert_loads import CACHED, TOKEN
from quant.kernels.expert_requests import FOLLOWING, guess_scratch_bytes, read_guesses, request_experts
from quant.kernels.experts import GatedExperts, LayerExperts
from quant.kernels.experts_grouped import down_grouped
from quant.kernels.experts_streamed import BOOKKEEPING, ExpertProvider, gate_up_arriving, mark_routed
from quant.kernels.experts_streamed_few import experts_few, gate_up_arriving_few, request_experts_few
from quant.kernels.router import ROUTING, Routing
from quant.plan import Activation, Ids, Plan, StageCallback
from quant.team import Team

_FEW, _MANY = 3, 20
_READING: Final[tuple[Kernel, ...]] = (*read_queue.KERNELS, *expert_slots.KERNELS, *expert_loads.KERNELS)


class _Streamed(ExpertProvider):
    """The experts of a layer, as float32 in a file; none of them is in memory, and there are slots for all of them."""

    def __init__(self, folder: Path, layer: Layer) -> None:
        parts = [np.array([numbers(w) for w in part[:COUNT]], np.float32) for part in layer.matrices]
        self._file = ExpertFile(folder, parts)
        self.counts: Ids = np.zeros(len(TOKEN.names), np.int64)
        self.reader = Reader(self._file.paths)
        routed, whole = self._file.matrices(), layer.experts
        self.cached = CachedLayer(self._file, routed, self.reader, self.counts, CHOSEN)
        self.cached.allocate(COUNT)
        self.experts = LayerExperts(routed, whole.shared, whole.routing, whole.touched, whole.scale)

    def of_token(self, layer: GatedExperts, k: int) -> Ids:
        """See ExpertProvider."""
        return self.cached.table

    def of_tokens(
        self, layer: GatedExperts, batch: Batch, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids
    ) -> StageCallback:
        """See ExpertProvider: all that were chosen, together."""

        def replays() -> Iterator[None]:
            flat = chosen.reshape(-1)
            pairs[:] = np.argsort(flat, kind="stable")
            starts[:] = np.searchsorted(np.sort(flat), np.arange(COUNT + 1))
            counters[:] = 0
            self.bring(np.unique(flat).tolist())
            yield

        return replays

    def bring(self, experts: list[int]) -> None:
        """Have experts read, and wait for that."""
        for expert in experts:
            self.cached.begin_load(expert, ())
        for expert in experts:
            self.cached.finish_load(expert)

    def misread(self, experts: list[int]) -> float:
        """0 where kernels find these experts as they are in the file, else infinite."""
        comes(lambda: all(self.cached.pending_load(expert) is None for expert in experts))
        return max(self._file.misread(self.cached, expert) for expert in experts)


class _Unread(ExpertProvider):
    """Nothing is brought: for who only asks which kernels a plan has."""

    def of_token(self, layer: GatedExperts, k: int) -> Ids:
        """See ExpertProvider."""
        return np.zeros(len(CACHED.names), np.int64)

    def of_tokens(
        self, layer: GatedExperts, batch: Batch, chosen: Ids, pairs: Ids, starts: Ids, counters: Ids
    ) -> StageCallback:
        """See ExpertProvider."""
        return lambda: iter(())


def _trace(tokens: int, layer: Layer, provider: ExpertProvider, experts: LayerExperts) -> tuple[Plan, Activation]:
    """A plan of the layer, and x."""
    plan = new_plan(tokens, provider, stepwise=tokens < _MANY)
    h, logits, gate, x = layer.inputs(plan)
    if plan.stepwise:
        trace = experts_streamed.experts_step if tokens == 1 else experts_few
        trace(plan, provider, experts, (random_matrix(9, "F32", COUNT, N), h), h, logits, gate, x)
    else:
        experts_streamed.experts_grouped(plan, provider, experts, h, logits, gate, x)
    return plan, x


def _stepwise(tokens: int) -> Experiment:
    """One token, or a few."""
    layer = Layer(tokens=tokens)

    def errors() -> list[float]:
        with _streamed(layer) as provider:
            plan, _ = _trace(tokens, layer, provider, provider.experts)
            routed, shared = middle_of(plan, tokens, CHOSEN), middle_of(plan, tokens, 1, "shared middle")
            chosen = plan.buffer("experts", tokens * CHOSEN, np.int64)
            compiled, asked = plan.compile(), plan.parts.index(BOOKKEEPING) + 1
            with _crew(plan) as crew:
                crew.run(compiled[:asked])
                wrong = [
                    max(unlike(chosen, layer.chosen.reshape(-1)), provider.misread(np.unique(layer.chosen).tolist()))
                ]
                if wrong[0] > 1:
                    return wrong  # the next kernel would wait for ever
                crew.run(compiled[asked:])
            return [*wrong, max(layer.wrong_middle(routed.values, False), layer.wrong_middle(shared.values, True))]

    return Experiment((*_READING, *_trace(tokens, layer, _Unread(), layer.experts)[0].kernels), errors)


def _grouped() -> Experiment:
    """Many tokens, whose experts are all brought together."""
    layer = Layer(tokens=_MANY)

    def errors() -> list[float]:
        with _streamed(layer) as provider:
            plan, x = _trace(_MANY, layer, provider, provider.experts)
            routed, shared = middle_of(plan, _MANY, CHOSEN), middle_of(plan, _MANY, 1)
            with _crew(plan) as crew:
                Program.of(plan).replay(lambda records, _: crew.run(records))
            marked = unlike(np.flatnonzero(layer.experts.touched), np.unique(layer.chosen))
            return [marked, layer.wrong_sum(x, routed.values, shared.values)]

    return Experiment((*_READING, *_trace(_MANY, layer, _Unread(), layer.experts)[0].kernels), errors)


def _guesses() -> Experiment:
    """What logits choose is read in the background, but for what is in memory already."""
    layer = Layer()
    best = choose(layer.logits[0], Routing(CHOSEN))[0]

    def errors() -> list[float]:
        with _streamed(layer) as provider:
            provider.bring([int(best[0])])
            one = int(np.float32(1).view(np.int32))
            how = {
                "count": COUNT,
                "experts_per_token": CHOSEN,
                "by_sigmoid": 0,
                "normalised": 1,
                "scale": one,
                "bias": 0,
            }
            how |= {"expert_scales": 0, "groups": 1, "groups_used": 1, "group_best": 1}
            routing, logits = np.array(ROUTING.in_order(how), np.int64), given(layer.logits)
            fields = dict.fromkeys(FOLLOWING.names, 0)
            fields |= {"layer": provider.cached.table.ctypes.data, "routing": routing.ctypes.data}
            fields |= {"logits": logits.values.ctypes.data}
            following = np.array(FOLLOWING.in_order(fields), np.int64)
            scratch = np.zeros(guess_scratch_bytes(CHOSEN, COUNT), np.uint8)
            read_guesses(following.ctypes.data, scratch.ctypes.data)
            guesses = int(provider.cached.table[CACHED.guesses // 8])
            return [max(unlike(guesses, 1), provider.misread([int(best[1])]))]

    return Experiment((read_guesses, *_READING), errors)


@contextmanager
def _streamed(layer: Layer) -> Iterator[_Streamed]:
    """The experts of a layer in a temporary file."""
    with temporary_folder() as folder:
        provider = _Streamed(folder, layer)
        with provider.reader:
            yield provider


@contextmanager
def _crew(plan: Plan) -> Iterator[Team]:
    """Threads for one replay of a plan."""
    crew = Team(plan.threads)
    plan.batch.set(plan.tokens, 0)
    try:
        yield crew
    finally:
        crew.close()


TRIALS: Final = (
    Trial((request_experts, gate_up_arriving), partial(_stepwise, 1)),
    Trial((request_experts_few, gate_up_arriving_few), partial(_stepwise, _FEW)),
    Trial((mark_routed, down_grouped), _grouped),
    Trial((read_guesses,), _guesses),
)
