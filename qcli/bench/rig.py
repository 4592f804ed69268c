"""A test rig: one engine, on which cases run again and again from the same state."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qcli.bench.cases import Case, random_ids
from qcli.bench.disk import CacheSize
from qcli.gguf.file import GGUFFile
from qcli.gguf.names import layer_of
from qcli.layers.state import RecurrentCopies
from qcli.progress import Progress
from qcli.runtime.engine import Engine
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import Sampling
from qcli.streaming.cache import Traffic
from qcli.streaming.dense import is_expert
from quant.kernels.experts_streamed import BOOKKEEPING

SAMPLING, DISK = "sampling", "disk"  # parts of the time outside of the plans, or within their kernels


@dataclass(frozen=True)
class Profile:
    """The seconds of one repetition, and of each part of the model in it, at work and waiting for other threads."""

    seconds: float
    parts: dict[str, tuple[float, float]]


class Rig:
    """Runs cases on one engine; a case begins with the same state every time.

    It takes the same tokens too, unless the model is streamed: then other ones, for which experts have to be read again.
    """

    def __init__(self, engine: Engine, file: GGUFFile) -> None:
        self.engine = engine
        sampling = Sampling(temperature=0.8, min_p=0.0, seed=0)  # top-k 40: random ids leave much to choose from
        self._sampler = Sampler(sampling, engine.vocab_size)
        self._expert_bytes = mean_expert_bytes(file)
        self._states: dict[int, tuple[int, RecurrentCopies]] = {}  # by depth; keys and values may be of any ids
        self._sampling_s = 0.0
        self._begun = 0  # repetitions so far
        if engine.expert_loader:
            engine.expert_loader.saves_usage = False  # random ids are no text that the next start should be ready for

    @property
    def chunk(self) -> int:
        """Tokens of a prompt that go through the layers together."""
        return self.engine.chunk

    @property
    def traffic(self) -> Traffic | None:
        """What the last repetition read from the file; None for a resident model."""
        return self.engine.traffic

    @property
    def dense(self) -> list[NDArray[np.uint8]]:
        """The dense weights of a streamed model, uint8 [bytes] of each tensor; empty for a resident one."""
        return self.engine.expert_loader.dense if self.engine.expert_loader else []

    def cache_size(self, ram: int) -> CacheSize | None:
        """The expert cache of a streamed model; None for a resident one. ram: bytes that the process may use."""
        loader = self.engine.expert_loader
        if loader is None:
            return None
        return CacheSize(ram, max(len(layer.slots.expert_in) for layer in loader.layers.values()), loader.max_slots)

    def fill(self, depth: int, progress: Progress | None = None) -> None:
        """Prefill random tokens up to a depth, and save the state for the cases that begin there."""
        missing = depth - self.engine.position
        self.engine.prefill(random_ids(self.engine.vocab_size, missing, seed=depth), progress)
        self._states[depth] = depth, self.engine.state.recurrent_copy()

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
        """Run one repetition with the clock read around every kernel: 2 % slower where a token takes 0.7 ms."""
        self._sampling_s = 0.0
        with self.engine.profile() as times:
            seconds = self.run(case)
        parts = times.by_part() | {SAMPLING: (self._sampling_s, 0.0)}
        if self.traffic:
            self._tell_disk(parts, seconds, self.traffic.wait_s, decoding=case.kind != "pp" or case.tokens == 1)
        return Profile(seconds, parts)

    def bytes_moved(self, case: Case) -> float:
        """Bytes that a repetition must read, and write to recurrent states; found by running the case once."""
        ids = self._begin(case)
        if case.kind == "pp" and case.tokens > 1:
            return self._prefill_bytes(ids)
        self._decode(ids)
        middle = case.depth + (case.tokens - 1) // 2
        return case.tokens * (self.engine.weight_bytes_per_step() + self.engine.state.bytes_per_step(middle))

    def close(self) -> None:
        """End the engine's threads."""
        self.engine.close()

    def _tell_disk(
        self, parts: dict[str, tuple[float, float]], seconds: float, disk_s: float, *, decoding: bool
    ) -> None:
        """Add the parts of a streamed model; a token waits for the disk within the kernels of its experts."""
        if decoding:
            work, wait = parts["experts"]
            disk_s = min(disk_s, work)  # the first thread's work, while any thread may have been the one that waited
            parts["experts"] = work - disk_s, wait
        parts[DISK] = disk_s, 0.0
        rest = seconds - sum(work + wait for work, wait in parts.values())
        work, wait = parts.get(BOOKKEEPING, (0.0, 0.0))
        parts[BOOKKEEPING] = work + max(0.0, rest), wait

    def _begin(self, case: Case) -> list[int]:
        if case.depth:
            self.engine.state.rewind(*self._states[case.depth])
        else:
            self.engine.reset()
        self._begun += 1
        return random_ids(self.engine.vocab_size, case.tokens, seed=self._begun if self.traffic else 0)

    def _decode(self, ids: list[int]) -> None:
        """Sample a token after every step, as for an answer, but feed the next of the ids."""
        for token in ids:
            logits = self.engine.step(token)
            began = perf_counter()
            self._sampler.sample(logits)
            self._sampling_s += perf_counter() - began

    def _prefill_bytes(self, ids: list[int]) -> float:
        """Bytes of weights: the head once, dense weights once a chunk, an expert once in each chunk that chooses it."""
        engine, chunks, touched = self.engine, 0, 0
        while ids:
            chunk = engine.chunk - engine.position % engine.chunk
            engine.state.clear_touched()
            engine.prefill(ids[:chunk])
            chunks, touched, ids = chunks + 1, touched + engine.state.experts_touched(), ids[chunk:]
        layers = self._dense_bytes() - engine.programs.head_bytes
        return chunks * layers + engine.programs.head_bytes + touched * self._expert_bytes

    def _dense_bytes(self) -> float:
        """Bytes of the weights that every token is multiplied with, the head among them; runs one token."""
        self.engine.reset()
        self.engine.state.clear_touched()
        self.engine.step(0)
        return self.engine.weight_bytes_per_step() - self.engine.state.experts_touched() * self._expert_bytes


def mean_expert_bytes(file: GGUFFile) -> float:
    """Bytes of gate, up and down of one routed expert, on average over the layers; 0 without experts."""
    stacks = {name: tensor for name, tensor in file.tensors.items() if is_expert(tensor)}
    counts = {layer_of(name): tensor.shape[0] for name, tensor in stacks.items()}
    return sum(tensor.n_bytes for tensor in stacks.values()) / max(1, sum(counts.values()))
