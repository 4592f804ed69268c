"""One engine, and what it takes to run a case on it again and again."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qcli.bench.cases import Case, random_ids
from qcli.bench.disk import Room
from qcli.gguf.file import GGUFFile
from qcli.layers.state import Snapshot
from qcli.runtime.engine import Engine, Progress
from qcli.runtime.sampler import Sampler, Sampling
from qcli.streaming.cache import Traffic
from qcli.streaming.dense import is_expert

SAMPLING, DISK, BOOKKEEPING = "sampling", "disk", "bookkeeping"


@dataclass(frozen=True)
class Profile:
    """One repetition, watched: its seconds, and those of each part of the model, at work and waiting."""

    seconds: float
    parts: dict[str, tuple[float, float]]


class Rig:
    """Runs cases on one engine; a case begins with the same state every time.

    It takes the same tokens too, unless experts are read from the file: others then, or it would find what it had brought.
    """

    def __init__(self, engine: Engine, file: GGUFFile) -> None:
        self.engine = engine
        self._sampler = Sampler(Sampling(seed=0), engine.vocab_size)  # top-k 40: random ids leave much to choose from
        self._expert_bytes = mean_expert_bytes(file)
        self._states: dict[int, Snapshot] = {}
        self._drawing = 0.0
        self._begun = 0  # cases so far
        if engine.expert_loader:
            engine.expert_loader.saves_usage = False  # random ids are no text that the next start should prepare for

    @property
    def chunk(self) -> int:
        """Tokens of a prompt that the engine takes together."""
        return self.engine.prompt_plan.tokens

    @property
    def traffic(self) -> Traffic | None:
        """What the last repetition read from the file; None if all of it stays in memory."""
        return self.engine.traffic

    @property
    def dense(self) -> list[NDArray[np.uint8]]:
        """Of a streamed model, the weights that are in memory, uint8 [bytes] of each tensor."""
        return self.engine.expert_loader.dense if self.engine.expert_loader else []

    def room(self, ram: int) -> Room | None:
        """What a streamed model has of so many bytes of memory; None if all of it stays there."""
        loader = self.engine.expert_loader
        if loader is None:
            return None
        return Room(ram, max(len(layer.slots.expert_in) for layer in loader.layers.values()), loader.max_slots)

    def fill(self, depth: int, progress: Progress | None = None) -> None:
        """Add random tokens up to a depth, and keep the state for the cases that begin there."""
        missing = depth - self.engine.position
        self.engine.prefill(random_ids(self.engine.vocab_size, missing, seed=depth), progress)
        self._states[depth] = self.engine.snapshot()

    def run(self, case: Case) -> float:
        """Seconds of one repetition."""
        ids = self._begin(case)
        self.engine.reset_traffic()
        began = perf_counter()
        if case.kind == "pp":
            self.engine.prefill(ids)
        else:
            self._decode(ids)
        return perf_counter() - began

    def profile(self, case: Case) -> Profile:
        """One repetition with a look at the clock around every record: 2 % slower where a token takes 0.7 ms."""
        self._drawing = 0.0
        with self.engine.profile() as times:
            seconds = self.run(case)
        parts = times.by_part() | {SAMPLING: (self._drawing, 0.0)}
        if self.traffic:
            parts[DISK] = self.traffic.wait_s, 0.0
            parts[BOOKKEEPING] = seconds - sum(work + wait for work, wait in parts.values()), 0.0
        return Profile(seconds, parts)

    def bytes_moved(self, case: Case) -> float:
        """What a repetition must read, and of recurrent states write; found by running the case once."""
        ids = self._begin(case)
        if case.kind == "pp" and case.tokens > 1:
            return self._prefill_bytes(ids)
        self._decode(ids)
        middle = case.depth + (case.tokens - 1) // 2
        return case.tokens * (self.engine.weight_bytes_per_step() + self.engine.state_bytes_per_step(middle))

    def close(self) -> None:
        """End the engine's threads."""
        self.engine.close()

    def _begin(self, case: Case) -> list[int]:
        if case.depth:
            self.engine.restore(self._states[case.depth])
        else:
            self.engine.reset()
        self._begun += 1
        return random_ids(self.engine.vocab_size, case.tokens, seed=self._begun if self.traffic else 0)

    def _decode(self, ids: list[int]) -> None:
        """A token is drawn after every step, as for an answer, but the next step takes one of the ids."""
        for token in ids:
            logits = self.engine.step(token)
            began = perf_counter()
            self._sampler.sample(logits)
            self._drawing += perf_counter() - began

    def _prefill_bytes(self, ids: list[int]) -> float:
        """Of weights: the head once, what every token meets once a chunk, an expert once a chunk that is routed to it."""
        engine, touched = self.engine, []

        def note(_stage: str, _fraction: float) -> None:
            touched.append(engine.experts_touched())
            engine.reset_counters()

        engine.reset_counters()
        engine.prefill(ids, note)
        for_all = self._dense_bytes() - engine.head_bytes
        return len(touched) * for_all + engine.head_bytes + sum(touched) * self._expert_bytes

    def _dense_bytes(self) -> float:
        """Weights that every token meets, the head among them; runs one token."""
        self.engine.reset()
        self.engine.reset_counters()
        self.engine.step(0)
        return self.engine.weight_bytes_per_step() - self.engine.experts_touched() * self._expert_bytes


def mean_expert_bytes(file: GGUFFile) -> float:
    """Bytes of gate, up and down of one routed expert, on average over the layers; 0 without experts."""
    stacks = {name: tensor for name, tensor in file.tensors.items() if is_expert(tensor)}
    held = {name.split(".ffn_")[0]: tensor.shape[0] for name, tensor in stacks.items()}
    return sum(tensor.n_bytes for tensor in stacks.values()) / max(1, sum(held.values()))
