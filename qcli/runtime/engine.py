"""One model, loaded: three plans (a token, a chunk of a prompt, its head), a team that replays them, and the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcli import models
from qcli.errors import ContextOverflowError, ModelFileError, QcliError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.host import kernels
from qcli.host.memory import resident
from qcli.host.threads import default_threads, threads_beside_reading
from qcli.layers.state import Snapshot, State
from qcli.models import Model
from qcli.runtime import sampler
from qcli.runtime.profile import PartTimes
from qcli.runtime.program import Program
from qcli.streaming import budget
from quant import cpu, team
from quant.kernels.kv_cache import TYPES as KV_TYPES
from quant.plan import Activation, Plan, aligned
from quant.team import Team

if TYPE_CHECKING:
    from qcli.streaming.cache import Traffic
    from qcli.streaming.expert_loader import Supply
    from quant.kernels.observer import InputObserver

Progress = Callable[[str, float], None]

DEFAULT_CTX = 32_768  # tokens, where the model was made for as many
DEFAULT_CHUNK = budget.TOGETHER  # tokens of a prompt that go through the layers together


class Engine:
    """Token ids in, logits out."""

    def __init__(
        self,
        model: Model,
        state: State,
        threads: int,
        chunk: int,
        progress: Progress | None = None,
        observer: InputObserver | None = None,
        supply: Supply | None = None,
    ) -> None:
        self.model, self.state, self.threads = model, state, threads
        self.vocab_size, self.ctx, self.longest = model.vocab_size, state.ctx, state.longest
        self.supply, self.observer = supply, observer
        step, prompt = (
            Plan(1, threads, state.batch, supply),
            Plan(max(2, chunk), threads, state.batch, supply, observer),
        )
        self._ids: NDArray[np.int64] = aligned(prompt.tokens, np.int64)
        self._logits = model.head(step, model.trunk(step, self._ids))
        self._hidden = model.trunk(prompt, self._ids)
        head = Plan(1, threads, state.batch)
        self._prompt_logits = model.head(head, self._hidden)
        self._weight_bytes, self.head_bytes = step.weight_bytes, head.weight_bytes
        _compile([step, prompt, head], progress)
        self.prompt_plan, self.plans = prompt, [step, prompt, head]
        self._step, self._prompt, self._head = Program.of(step), Program.of(prompt), Program.of(head)
        self._times: PartTimes | None = None
        self._heads: dict[int, tuple[Program, Activation]] = {}
        self._team = Team(threads)

    @classmethod
    def load(
        cls,
        file: GGUFFile,
        *,
        threads: int | None = None,
        ctx: int | None = None,
        chunk: int | None = None,
        kv_type: str | None = None,
        progress: Progress | None = None,
        observer: InputObserver | None = None,
        ram: int | None = None,
    ) -> Engine:
        """Trace the model of a file; compiles kernels when they are not in the cache yet.

        threads: physical cores by default, fewer of many if experts are read meanwhile; ctx: capacity in tokens;
        chunk: tokens of a prompt taken together; kv_type: what keys and values are kept as, "f16" or "q8_0";
        observer: told what weights are multiplied with, in prompts;
        ram: bytes that the process may use, what is free by default; a model that needs more is streamed from its file.
        Raises ModelFileError, UnsupportedModelError, ContextOverflowError; QcliError if not even that fits.
        """
        if lacking := cpu.missing():
            raise QcliError(f"this processor ({cpu.name()}) lacks {lacking}", "use a machine from 2013 or later")
        given, threads, kv_type = threads, threads or default_threads(), kv_type or "f16"
        model, state = model_of(file, ctx, kv_type)
        room, used = budget.limit(ram), resident()
        if not state.experts_held or budget.fits(file, model, state, threads, room, used):
            return cls(model, state, threads, chunk or DEFAULT_CHUNK, progress, observer)
        from qcli.streaming.dense import hold_dense
        from qcli.streaming.expert_loader import Supply

        whole = partial(budget.whole, file, model, state, threads, used)
        threads = given or threads_beside_reading()
        file = hold_dense(file, progress)
        model, state = model_of(file, ctx, kv_type)
        supply = Supply(file, state.batch)
        chunk = chunk or budget.chunk_for(model, state, supply, threads, room)
        engine = cls(model, state, threads, chunk, progress, observer, supply)
        try:
            budget.allot(supply, state, engine.plans, room, whole)
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def position(self) -> int:
        """Tokens now in the state."""
        return self.state.position

    @property
    def experts_held(self) -> int:
        """Experts of all layers."""
        return self.state.experts_held

    def prefill(self, ids: Sequence[int], progress: Progress | None = None) -> NDArray[np.float32]:
        """Add ids to the state; float32 [vocab] of the last, overwritten by the next call."""
        self._check_room(len(ids))
        if len(ids) == 1:
            return self.step(ids[0])
        for done in self._chunks(ids):
            if progress:
                progress("prefill", done / len(ids))
        self._replay(self._head)
        return _first_row(self._prompt_logits)

    def step(self, token: int) -> NDArray[np.float32]:
        """Add one token; float32 [vocab], overwritten by the next call."""
        self._check_room(1)
        self._ids[0] = token
        self._run(self._step, 1)
        return _first_row(self._logits)

    def logits(self, ids: Sequence[int], first: int = 0) -> NDArray[np.float32]:
        """float32 [T - first, vocab]: positions from `first` on, from an empty state, by the plan that prefill uses."""
        self.reset()
        self._check_room(len(ids))
        result = np.empty((len(ids) - first, self.vocab_size), np.float32)
        before = 0
        for done in self._chunks(ids):
            wanted = min(done - first, done - before)
            if wanted > 0:
                skipped = min(done - before - wanted, self._hidden.tokens - 2)  # one row alone takes other kernels
                head, rows = self._head_from(skipped)
                self.state.batch.set(done - before - skipped, self.state.position)
                self._replay(head)
                result[done - first - wanted : done - first] = rows.values[: done - before - skipped][-wanted:]
            before = done
        return result

    def reset(self) -> None:
        """Begin an empty text."""
        self.state.reset()

    def snapshot(self) -> Snapshot:
        """Copy the state."""
        return self.state.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        self.state.restore(snapshot)

    def experts_touched(self) -> int:
        """Experts routed to since reset_counters()."""
        return self.state.experts_touched()

    def reset_counters(self) -> None:
        """Forget which experts were routed to."""
        self.state.clear_touched()

    @property
    def traffic(self) -> Traffic | None:
        """What was read from the file since reset_traffic(); None if all of it stays in memory."""
        return self.supply.traffic if self.supply else None

    def reset_traffic(self) -> None:
        """Forget what was read."""
        if self.supply:
            self.supply.reset_traffic()

    def weight_bytes_per_step(self) -> float:
        """Bytes of weights that a decode step reads, routed experts only."""
        return float(self._weight_bytes)

    def state_bytes_per_step(self, position: int) -> float:
        """Bytes of state that the decode step at a position reads and writes."""
        return self.state.bytes_per_step(position)

    @contextmanager
    def profile(self) -> Iterator[PartTimes]:
        """Note meanwhile where the time of replays goes, by part of the model."""
        self._times = PartTimes()
        try:
            yield self._times
        finally:
            self._times = None

    def close(self) -> None:
        """End the team's threads, and the reader's."""
        self._team.close()
        if self.supply:
            self.supply.close()

    def _chunks(self, ids: Sequence[int]) -> Iterator[int]:
        """Run the prompt's plan over ids, chunk by chunk; yields how many are done."""
        for first in range(0, len(ids), len(self._ids)):
            part = ids[first : first + len(self._ids)]
            self._ids[: len(part)] = part
            self._run(self._prompt, len(part))
            yield first + len(part)

    def _run(self, program: Program, tokens: int) -> None:
        self.state.batch.set(tokens, self.state.position)
        self._replay(program)
        self.state.position += tokens

    def _replay(self, program: Program) -> None:
        times = self._times
        if times is None:
            program.run(lambda records, _parts: self._team.run(records))
        else:
            program.run(lambda records, parts: times.replay(self._team, records, parts))

    def _check_room(self, tokens: int) -> None:
        if self.position + tokens > self.ctx:
            raise ContextOverflowError(
                f"{self.position} + {tokens} tokens do not fit into a context of {self.ctx}",
                f"give --ctx {self.position + tokens} or more",
            )

    def _head_from(self, first: int) -> tuple[Program, Activation]:
        """The plan of the head for the tokens of a chunk from one on, traced when first asked for."""
        if first not in self._heads:
            plan = Plan(self._hidden.tokens - first, self.threads, self.state.batch)
            rows = self.model.head(plan, self._hidden.after(first) if first else self._hidden)
            self._heads[first] = Program.of(plan), rows
        return self._heads[first]


def _state_for(file: GGUFFile, ctx: int | None, kv_type: str) -> State:
    if kv_type not in KV_TYPES:
        raise UsageError(f'there is no kv-type "{kv_type}"', f"give one of: {', '.join(KV_TYPES)}")
    longest = models.context_length(file)
    if longest < 1:
        raise ModelFileError(f"{file.path}: was made for {longest} tokens of context", "download the model again")
    if ctx is not None and ctx > longest:
        message = f"{file.path}: was made for {longest} tokens of context, not {ctx}"
        raise ContextOverflowError(message, f"give --ctx {longest} or less")
    return State(ctx or min(longest, DEFAULT_CTX), kv_type, longest)


def model_of(file: GGUFFile, ctx: int | None, kv_type: str) -> tuple[Model, State]:
    """A file's model, and the state that it runs on."""
    state = _state_for(file, ctx, kv_type)
    try:
        return models.load(file, state), state
    except ValueError as error:  # shapes that fit the file but not the kernels
        raise ModelFileError(f"{file.path}: {error}", "try another file of this model") from error
    except MemoryError:
        message = f"{file.path}: there is no memory for a context of {state.ctx} tokens"
        raise ContextOverflowError(message, "give a smaller --ctx") from None


def _first_row(logits: Activation) -> NDArray[np.float32]:
    row: NDArray[np.float32] = logits.values[0]
    return row


def _compile(plans: Sequence[Plan], progress: Progress | None) -> None:
    """Have every kernel of a run ready, so that no token waits for the compiler."""
    used = dict.fromkeys(kernel for plan in plans for kernel in plan.kernels())
    kernels.prepare([*used, *team.KERNELS, *sampler.KERNELS], progress)
