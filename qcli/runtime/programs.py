"""The programs of a model on its state: a token, a few tokens, a chunk of a prompt, and the head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcli.host import kernels
from qcli.layers.mtp import mtp_of
from qcli.layers.state import State
from qcli.models import Model
from qcli.progress import Progress
from qcli.runtime import sampler
from qcli.runtime.program import Program
from quant import team
from quant.batch import Batch, Slots
from quant.formats import Format
from quant.jit import Kernel
from quant.kernels.columns import place_columns, take_rows
from quant.kernels.deferred import catch_up_heads
from quant.kernels.delta_net_step import delta_step
from quant.kernels.expert_requests import request_experts
from quant.kernels.experts import down_dense, down_step, gate_up_shared, gate_up_step
from quant.kernels.experts_few import down_dense_few, down_few, gate_up_few, gate_up_shared_few
from quant.kernels.experts_streamed import gate_up_arriving
from quant.kernels.experts_streamed_few import gate_up_arriving_few, request_experts_few
from quant.kernels.few_rows import few_kernels
from quant.kernels.kimi_delta import kimi_step
from quant.kernels.mamba2 import mamba2_heads
from quant.kernels.matmul import matmul_few, matmul_step
from quant.plan import Activation, Plan, aligned
from quant.prepare import are_coming

if TYPE_CHECKING:
    from qcli.streaming.expert_loader import ExpertLoader
    from quant.kernels.observer import InputObserver

Logits = NDArray[np.float32]
_OF_HEAD = place_columns, take_rows  # what a head of multi-token prediction calls, and no model need call
_FOR_SEVERAL = {
    matmul_step: matmul_few,
    gate_up_step: gate_up_few,
    gate_up_shared: gate_up_shared_few,
    down_step: down_few,
    down_dense: down_dense_few,
    request_experts: request_experts_few,
    gate_up_arriving: gate_up_arriving_few,
    delta_step: catch_up_heads,
    kimi_step: catch_up_heads,
    mamba2_heads: catch_up_heads,
}


class Programs:
    """What an engine replays. Those of a prompt are there from the beginning, the others are made when first asked for.

    step     logits of one token, `step_logits` [vocab]
    prompt   `hidden`, the rows before the head, of up to `chunk` tokens
    head     logits of a chunk's last token, `prompt_logits` [vocab]
    steps    logits of each of a few tokens, as by a step for each, and `catch_up`: recurrent states see those that stay

    `ids` int64 are the tokens that they take, room for a chunk and for a step. `plans`: of the first three. `before_head`: of
    programs of the trunk, the rows before the head.
    """

    def __init__(
        self,
        model: Model,
        state: State,
        threads: int,
        chunk: int,
        expert_loader: ExpertLoader | None = None,
        observer: InputObserver | None = None,
        progress: Progress | None = None,
        beside: bool = False,
    ) -> None:
        """beside: whether kernels that a prompt's first token does not need may be compiled while that is computed.

        Raises ValueError if the state is made for smaller chunks, QcliError if experts have too little memory beside the plans.
        """
        if state.chunk and chunk > state.chunk:
            raise ValueError(f"chunks of {chunk} tokens, and a state for {state.chunk}")
        self._model, self._state, self._threads = model, state, threads
        step = Plan(1, threads, state.batch, expert_loader)
        prompt = Plan(max(2, chunk), threads, state.batch, expert_loader, observer)
        self.chunk = prompt.tokens
        self.ids: NDArray[np.int64] = aligned(max(self.chunk, state.most_tokens), np.int64)
        self.expert_loader = expert_loader
        self.begin_step(step)
        self._last = model.trunk(step, self.ids)
        self.step_logits: Logits = model.head(step, self._last).values[0]
        self.hidden = model.trunk(prompt, self.ids)
        head = Plan(1, threads, state.batch)
        self.prompt_logits: Logits = model.head(head, self.hidden).values[0]
        self.plans = [step, prompt, head]
        if expert_loader:
            expert_loader.require_room(self.plans)  # before anything is compiled
        self.weight_bytes, self.head_bytes = step.weight_bytes, head.weight_bytes
        several = state.most_tokens > 1
        self._of_several = [*_of_several(step.kernels), *(_OF_HEAD if mtp_of(model) else ())] if several else []
        needed = self.plans[1:] if beside else self.plans
        later = [list(step.kernels), self._of_several] if beside else []
        _compile(needed, progress, [] if beside else self._of_several, later)
        self.prompt, self.head = Program.of(prompt), Program.of(head)
        self.before_head = {self.prompt: self.hidden.values}
        self._heads: dict[int, tuple[Program, Activation]] = {}
        self._step: Program | None = None
        if not beside:
            self.ready_to_step()

    @property
    def step(self) -> Program:
        """A step of one token."""
        return self._step or self.ready_to_step()

    def ready_to_step(self, progress: Progress | None = None) -> Program:
        """The same; its kernels may have to be waited for, of which progress is told."""
        if self._step is None:
            _compile(self.plans[:1], progress)
            self._step = Program.of(self.plans[0])
            self.before_head[self._step] = self._last.values
        return self._step

    @property
    def several_are_coming(self) -> bool:
        """Whether a step of several tokens would wait for the compiler."""
        return are_coming(self._of_several)

    @property
    def most_tokens(self) -> int:
        """How many tokens a stepwise plan can take now."""
        most = self._state.most_tokens
        return min(most, self.expert_loader.most_tokens) if self.expert_loader else most

    @cached_property
    def steps(self) -> tuple[Program, Logits]:
        """A step of several tokens, `state.most_tokens` at most, and the logits after each, float32 [tokens, vocab]."""
        program, last, logits = self.stepping(self.ids, self._state.most_tokens, self._state.batch)
        self.before_head[program] = last
        return program, logits

    def stepping(
        self, ids: NDArray[np.int64], tokens: int, batch: Batch, slots: Slots | None = None
    ) -> tuple[Program, Logits, Logits]:
        """A step of at most so many tokens, from ids on: its program, the rows before the head, and the logits.

        slots: where they are of several texts, the memory of these.
        """
        plan = Plan(tokens, self._threads, batch, self.expert_loader, stepwise=True, slots=slots)
        self.begin_step(plan)
        last = self._model.trunk(plan, ids)
        logits: Logits = self._model.head(plan, last).values
        return compiled(plan), last.values, logits

    def begin_step(self, plan: Plan, whole: bool = True) -> None:
        """Where experts are streamed, they are looked after while a stepwise plan is replayed; whole: of all layers."""
        if self.expert_loader:
            plan.begin_stage(self.expert_loader.replays_of_step(plan.batch, whole))

    @cached_property
    def catch_up(self) -> Program:
        """Has recurrent states see the tokens of the last `steps` that stay."""
        plan = Plan(1, self._threads, self._state.batch)
        for trace in self._state.catching_up:
            trace(plan)
        return Program.of(plan)

    def head_from(self, first: int) -> tuple[Program, Activation]:
        """The head for the tokens of a chunk from `first` on, and their logits."""
        if first not in self._heads:
            plan = Plan(self.hidden.tokens - first, self._threads, self._state.batch)
            rows = self._model.head(plan, self.hidden.after(first) if first else self.hidden)
            self._heads[first] = Program.of(plan), rows
        return self._heads[first]


def compiled(plan: Plan) -> Program:
    """The program of a plan that is needed only now."""
    _compile([plan], None)
    return Program.of(plan)


def _compile(
    plans: Sequence[Plan],
    progress: Progress | None,
    others: Iterable[Kernel] = (),
    later: Sequence[Sequence[Kernel]] = (),
) -> None:
    """Compile every kernel of the plans, others, and those of the team and the sampler, so that no token waits for that."""
    used = dict.fromkeys((*(kernel for plan in plans for kernel in plan.kernels), *others))
    kernels.prepare([*used, *team.KERNELS, *sampler.KERNELS], progress, later)


def _of_several(step: Iterable[Kernel]) -> Iterator[Kernel]:
    """What a step of several tokens calls in place of the kernels of a step of one, or beside them."""
    for kernel in step:
        if kernel in _FOR_SEVERAL:
            yield _FOR_SEVERAL[kernel]
        elif kernel.module.startswith("quant.formats."):
            of_format: Format = import_module(kernel.module).FORMAT
            yield from few_kernels(of_format)
