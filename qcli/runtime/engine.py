"""One model, loaded: its state, its compiled programs, and threads to run them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ContextOverflowError, QcliError
from qcli.gguf.file import GGUFFile
from qcli.host import kernels
from qcli.host.memory import process_memory
from qcli.host.signals import interrupts_wait
from qcli.host.threads import default_threads, streaming_threads
from qcli.layers.state import State, all_or_nothing
from qcli.models import Model
from qcli.progress import Progress, heard_out, part_of, reading
from qcli.runtime.active_threads import ActiveThreads
from qcli.runtime.build import STEP_TOKENS, as_loaded, model_of, streamed_model_of
from qcli.runtime.draft_head import DraftHead
from qcli.runtime.lifetime import Lifetime, dismiss
from qcli.runtime.profile import Profiler
from qcli.runtime.program import OFTEN, Program
from qcli.runtime.programs import Programs
from qcli.streaming import budget
from quant.kernels.experts_grouped import MICRO_BATCH
from quant.team import Team

if TYPE_CHECKING:
    from qcli.streaming.cache import Traffic
    from qcli.streaming.expert_loader import ExpertLoader
    from quant.kernels.observer import InputObserver

DEFAULT_CHUNK = MICRO_BATCH  # tokens of a prompt that go through the layers together
_FINISHED, _FINISHED_STREAMED = 128, 32  # tokens of a prompt that Ctrl-C waits for; of more, the chunk is undone


class Engine:
    """Token ids in, logits out.

    Ctrl-C ends a call where the state is whole; `position` tells where that is. For one thread at a time, of the process that
    loaded it, until it is closed: after that whatever computes raises QcliError. One that is dropped ends its threads, too.
    """

    def __init__(
        self, model: Model, state: State, threads: int, chunk: int, progress: Progress | None = None,
        observer: InputObserver | None = None, expert_loader: ExpertLoader | None = None,
        decoding: ActiveThreads | None = None, beside: bool = False,
    ) -> None:  # fmt: skip
        """decoding: chooses how many of the threads decode, else all do; beside: as `load`."""
        self.model, self.state, self.threads = model, state, threads
        self.vocab_size, self.ctx, self.longest = model.vocab_size, state.ctx, state.longest
        self.expert_loader, self.observer, self.spare_bytes = expert_loader, observer, 0  # left for other texts
        self.programs = Programs(model, state, threads, chunk, expert_loader, observer, progress, beside)
        self.chunk, self.ready_to_step = self.programs.chunk, self.programs.ready_to_step
        self.last_logits: NDArray[np.float32] | None = None  # of the last token in the state, where they are known
        self._profiler: Profiler | None = None  # while profile() is on
        self.tell_every, self._undecided = OFTEN, 0  # seconds; tokens of the last steps() that keep() may have stay
        self.draft_head = DraftHead.of(model, state, self.programs, threads, observer)
        # a weak method, or an engine that is dropped would live on until garbage is collected
        catch_up = weakref.WeakMethod(self._catch_up)
        state.catch_up = lambda: (method := catch_up()) and method()
        self._team, self._decoding = Team(threads), decoding or ActiveThreads(threads, threads)
        self._lifetime = Lifetime()
        self._dropped = weakref.finalize(self, dismiss, self._lifetime, self._team, expert_loader)
        self._dropped.atexit = False  # threads end with the process, anyway

    @classmethod
    def load(
        cls, file: GGUFFile, *, threads: int | None = None, ctx: int | None = None, chunk: int | None = None,
        kv_type: str | None = None, progress: Progress | None = None, observer: InputObserver | None = None,
        ram: int | None = None, mtp: bool = False, beside: bool = False,
    ) -> Engine:  # fmt: skip
        """Build the model of a file and compile its plans; kernels that are not in the cache yet are compiled.

        threads: physical cores by default, in decoding as many as pay, of many fewer if experts are read meanwhile;
        ctx: capacity in tokens; chunk: tokens of a prompt that go through the layers together; kv_type: of keys and
        values, "f16", "q8_0" or "f32"; observer: told what weights are multiplied with, in prompts; ram: bytes that the
        process may use, by default what is free; if the model needs more, its experts are streamed; mtp: also load the
        head of multi-token prediction, if there is one; beside: compile what a prompt's first token does not need while
        that is computed, unless experts are streamed. Raises ModelFileError, ContextOverflowError, QcliError.
        """
        kernels.check_processor()
        given, threads, kv_type = threads, threads or default_threads(), kv_type or "f16"
        model, state = model_of(file, ctx, kv_type, STEP_TOKENS, mtp, chunk or DEFAULT_CHUNK)
        file, limit, used = as_loaded(file, model), budget.limit(ram), process_memory()
        if not state.experts_total or budget.fits(file, model, state, threads, limit, used):
            some = ActiveThreads(given or 1, threads)
            engine = cls(model, state, threads, chunk or DEFAULT_CHUNK, progress, observer, None, some, beside)
            engine.spare_bytes = budget.spare_bytes(file, state, engine.programs.plans, limit, used)
            return engine
        needed = partial(budget.resident_bytes, file, model, state, threads, used)
        threads = given or streaming_threads()
        chunk = chunk or budget.chunk_size(model, state, threads, limit)
        model, state, loader = streamed_model_of(file, ctx, kv_type, progress, mtp, chunk)
        loader.require_room = partial(budget.require_slots, loader, state, limit, needed)
        with ExitStack() as undone:
            undone.callback(loader.close)
            engine = cls(model, state, threads, chunk, progress, observer, loader)
            undone.pop_all()  # as the engine closes it
            undone.callback(engine.close)
            engine.spare_bytes = budget.allocate_slots(loader, state, limit, needed, engine.programs.plans)
            undone.pop_all()
        return engine

    def __repr__(self) -> str:
        used = "closed" if self._lifetime.closed else f"{self.position} of {self.ctx} tokens of context used"
        return f"<Engine: {self.threads} threads, {used}>"

    @property
    def position(self) -> int:
        """Tokens in the state."""
        return self.state.position

    @property
    def experts_total(self) -> int:
        """Experts of all layers together; 0 in a dense model."""
        return self.state.experts_total

    def prefill(self, ids: Sequence[int], progress: Progress | None = None) -> NDArray[np.float32]:
        """Append ids to the state; logits of the last, float32 [vocab], overwritten by the next call.

        Raises ContextOverflowError, as step and logits do, and QcliError after close().
        """
        self._check_fits(len(ids))
        if len(ids) == 1:
            return self.step(ids[0])
        for _ in self._chunks(ids, self._read_prompt_logits, progress):
            pass
        return self.programs.prompt_logits

    def step(self, token: int) -> NDArray[np.float32]:
        """Append one token to the state; its logits, float32 [vocab], overwritten by the next call."""
        self._check_fits(1)
        program, self.programs.ids[0], self.last_logits = self.programs.step, token, None
        with interrupts_wait(), self._decoding.decode(self._team):
            self._forward(program, 1)
            self.last_logits = self.programs.step_logits
        return self.last_logits

    @property
    def most_tokens(self) -> int:
        """How many tokens steps() takes at most; 1 where there is no room for the experts of several."""
        return self.programs.most_tokens

    def steps(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append two tokens or more, all but the first guesses, which are gone unless `keep` says otherwise.

        The logits after each, float32 [tokens, vocab], overwritten by the next call: to the bit those of a step for each.
        """
        self._check_fits(len(tokens))
        self.programs.ids[: len(tokens)], self.last_logits = tokens, None
        with interrupts_wait(), self._decoding.follow(self._team):
            self._forward(self.programs.steps[0], len(tokens))
            self.state.position -= len(tokens) - 1
            self._undecided, self.last_logits = len(tokens) - 1, self.programs.steps[1][0]
        return self.programs.steps[1][: len(tokens)]

    def keep(self) -> None:
        """The next guess of the last steps() was right: it stays. Raises QcliError if there is none."""
        if not self._undecided:
            raise QcliError("no guess is left that could stay", "take a step first")
        with interrupts_wait():
            self.state.keep()
            self._undecided -= 1
            self.last_logits = self.programs.steps[1][self.state.behind]
            if self.draft_head:
                self.draft_head.append(self.programs.steps[0], self.state.behind, 1, self._replay)

    def draft(self, token: int, count: int) -> list[int]:
        """At most `count` ids that may come after a token, drawn from the last logits but not appended yet; see `load`: mtp."""
        self._lifetime.check()
        with interrupts_wait(), self._decoding.follow(self._team):
            return self.draft_head.draft(token, count, self._replay) if self.draft_head else []

    def logits(self, ids: Sequence[int], first: int = 0) -> NDArray[np.float32]:
        """Logits of the positions from `first` on, float32 [T - first, vocab]; from an empty state, by prefill's plan."""
        self._lifetime.check()
        self.reset()
        self._check_fits(len(ids))
        result, before = np.empty((len(ids) - first, self.vocab_size), np.float32), 0
        for done in self._chunks(ids):
            wanted = min(done - first, done - before)
            if wanted > 0:
                skipped = min(done - before - wanted, self.programs.hidden.tokens - 2)  # a row alone: other kernels
                head, rows = self.programs.head_from(skipped)
                self.state.batch.set(done - before - skipped, self.state.position)
                self._replay(head)
                result[done - first - wanted : done - first] = rows.values[: done - before - skipped][-wanted:]
            before = done
        return result

    def reset(self) -> None:
        """Empty the state."""
        self.state.reset()
        self.last_logits = None

    @property
    def traffic(self) -> Traffic | None:
        """What was read from the file since reset_traffic(); None if all weights stay in memory."""
        return self.expert_loader.traffic if self.expert_loader else None

    def reset_traffic(self) -> None:
        """Forget what was read."""
        if self.expert_loader:
            self.expert_loader.reset_traffic()

    def weight_bytes_per_step(self) -> float:
        """Bytes of weights that a decode step reads; of experts, those that a token is routed to."""
        return float(self.programs.weight_bytes)

    @contextmanager
    def profile(self) -> Iterator[Profiler]:
        """Measure within the block how long each part of the model takes."""
        self._profiler = Profiler()
        try:
            yield self._profiler
        finally:
            self._profiler = None

    def close(self) -> None:
        """End the team's threads and the I/O threads; closing twice does no harm, nor does it in a forked child."""
        self._lifetime.closed = True
        if self._dropped.detach() and self._lifetime.here:
            self._team.close()
            if self.expert_loader:
                self.expert_loader.close()

    def _chunks(
        self, ids: Sequence[int], then: Callable[[], None] | None = None, progress: Progress | None = None
    ) -> Iterator[int]:
        """Put ids through the prompt's plan, chunk by chunk; yields how many are done after each.

        Chunks end at multiples of their size, counted from the start of the text, wherever these ids begin in it.
        then: done together with the last of them.
        """
        first, self.last_logits = 0, None
        while first < len(ids):
            part = ids[first : first + self.chunk - self.position % self.chunk]
            first += len(part)
            self.programs.ids[: len(part)] = part
            told = part_of(progress, reading(len(ids)), first - len(part), len(part), len(ids))
            wait = len(part) <= (_FINISHED_STREAMED if self.expert_loader else _FINISHED)
            with heard_out(told, () if wait else (KeyboardInterrupt,)) as told, all_or_nothing(self.state, wait):
                self._forward(self.programs.prompt, len(part), told)
                if then and first == len(ids):
                    then()
            yield first

    def _read_prompt_logits(self) -> None:
        self._replay(self.programs.head)
        self.last_logits = self.programs.prompt_logits

    def _forward(self, program: Program, tokens: int, progress: Progress | None = None) -> None:
        """Replay a program over the first of self.programs.ids, at the state's position, and move the position on."""
        self._undecided = 0
        full = self.draft_head and self.draft_head.lacks_room(tokens)
        if full or (program is self.programs.prompt and self.state.behind):
            self._catch_up()
        self.state.begin(tokens)
        self._replay(program, progress)
        self.state.position, self.state.behind = self.state.position + tokens, 0
        if self.draft_head:
            self.draft_head.append(program, 0, tokens if program is self.programs.prompt else 1, self._replay)

    def _catch_up(self) -> None:
        """Have recurrent states, and the head of multi-token prediction, see the tokens that they are behind."""
        with interrupts_wait():
            if self.state.behind:
                self.state.batch.set(1, self.state.position, self.state.behind)
                self._replay(self.programs.catch_up)
                self.state.behind = self._undecided = 0  # what is left of guesses would be set aside for other tokens
            if self.draft_head:
                self.draft_head.catch_up(self._replay)

    def replay(self, program: Program) -> None:
        """Replay a program that steps, with as many threads as decode at the moment."""
        with interrupts_wait(), self._decoding.follow(self._team):
            self._replay(program)

    def _replay(self, program: Program, progress: Progress | None = None) -> None:
        program.replay(self._run, partial(progress, "") if progress and not self._profiler else None, self.tell_every)

    def _run(self, records: NDArray[np.int64], parts: list[str]) -> None:
        self._lifetime.check()  # once more: a callback may have closed it in the midst of a prompt
        if self._profiler:
            self._profiler.replay(self._team, records, parts)
        else:
            self._team.run(records)

    def _check_fits(self, tokens: int) -> None:
        self._lifetime.check()
        if self.position + tokens > self.ctx:
            told = f"{self.position:,} + {tokens:,} tokens do not fit into a context of {self.ctx:,}"
            raise ContextOverflowError(told, (f"give --ctx {self.position + tokens} or more", "take a shorter text"))
