"""What a model would take of this machine: memory, by the rules that the engine goes by, and time, by rehearsals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcli.forecast.rehearsal import PROMPT, Rehearsal, prompt_seconds, step_seconds
from qcli.forecast.twin import Twin, layers_of
from qcli.gguf.file import GGUFFile
from qcli.host.memory import resident
from qcli.host.threads import default_threads, threads_beside_reading
from qcli.layers.state import State
from qcli.models import Model
from qcli.progress import Progress
from qcli.runtime.engine import DEFAULT_CHUNK, Engine, model_of
from qcli.streaming import budget, usage_file
from qcli.streaming.dense import is_expert
from qcli.streaming.slots import HALF_LIFE
from quant.kernels.experts import GatedExperts

_MOST_HEAT = HALF_LIFE / np.log(2)  # of all experts of a layer, after a long time


@dataclass(frozen=True)
class Weights:
    """Bytes of tensors, and what a token meets of them."""

    dense: int
    experts: int
    per_token: int  # read by a token


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    ram: int  # that may be used
    state: int  # of a full context
    cache: int  # of it, keys and values
    buffers: int  # between records of the plans
    program: int  # the interpreter and its libraries, kernels, and a reserve
    needed: int  # for a resident model; for one that does not even fit streamed, the least


@dataclass(frozen=True)
class Streaming:
    """How experts that are not in memory come there."""

    slots: int  # in each layer
    held: int  # experts in each layer
    hit_rate: float  # of the experts that a token asks for, those in memory
    learnt: bool  # the rate is what earlier runs asked for; else all experts are taken to be alike
    bytes_per_token: float  # read from the disk
    disk_bytes_per_s: float


@dataclass(frozen=True)
class Speed:
    """At the beginning of a text; a streamed model meets its first prompt, and reads every expert for it."""

    prompt_tokens: int
    prefill_tok_per_s: float
    decode_tok_per_s: float


Mode = Literal["resident", "streamed", "too large"]


@dataclass(frozen=True)
class Outlook:
    """All that `qcli plan` says."""

    mode: Mode
    threads: int
    ctx: int
    kv_type: str
    weights: Weights
    memory: Memory
    streaming: Streaming | None
    speed: Speed | None


@dataclass(frozen=True)
class Subject:
    """A model about to be rehearsed."""

    file: GGUFFile
    twin: Twin
    model: Model
    state: State
    threads: int
    room: int  # bytes of memory that may be used

    @property
    def used(self) -> int:
        """Bytes that the program takes, without what the twin has in place of weights."""
        return resident() - self.twin.n_bytes

    def outlook(
        self, mode: Mode, engine: Engine, program: int, lacking: int = 0, streaming: Streaming | None = None,
        speed: Speed | None = None,
    ) -> Outlook:  # fmt: skip
        """program: bytes taken beside weights, state and buffers."""
        state, weights = self.state, self._weights(engine)
        buffers = sum(plan.n_bytes for plan in engine.plans)
        program += budget.RESERVE
        mapped = program + weights.dense + weights.experts + state.n_bytes + buffers
        needed = self.room + lacking if lacking else mapped
        memory = Memory(self.room, state.n_bytes, state.cache_bytes, buffers, program, needed)
        return Outlook(mode, self.threads, state.ctx, state.kv_type, weights, memory, streaming, speed)

    def _weights(self, engine: Engine) -> Weights:
        experts, whole = bytes_of(self.file, experts=True), bytes_of(self.file, experts=False)
        return Weights(whole, experts, round(engine.weight_bytes_per_step()))


def foresee(
    file: GGUFFile,
    *,
    threads: int | None = None,
    ctx: int | None = None,
    kv_type: str | None = None,
    ram: int | None = None,
    disk: Path | None = None,
    progress: Progress | None = None,
) -> Outlook:
    """Rehearse what Engine.load would do; disk: a file to read in place of one that is not here. Raises as Engine.load."""
    twin = Twin(file)
    model, state = model_of(twin.file, ctx, kv_type or "f16")
    subject = Subject(file, twin, model, state, threads or default_threads(), budget.limit(ram))
    if not state.experts_held or budget.fits(file, model, state, subject.threads, subject.room, subject.used):
        return _resident(subject, progress)
    return _streamed(replace(subject, threads=threads or threads_beside_reading()), disk, progress)


def _resident(subject: Subject, progress: Progress | None) -> Outlook:
    model, state, threads = subject.model, subject.state, subject.threads
    for layer in layers_of(model, state.batch):
        subject.twin.settle(layer)
    program = subject.used
    engine = Engine(model, state, threads, DEFAULT_CHUNK, progress)
    try:
        tokens = min(PROMPT, state.ctx)
        prompt = prompt_seconds(model, state.batch, threads, tokens)
        speed = Speed(tokens, tokens / prompt, 1 / step_seconds(engine))
        return subject.outlook("resident", engine, program, speed=speed)
    finally:
        engine.close()


def _streamed(subject: Subject, disk: Path | None, progress: Progress | None) -> Outlook:
    model, state, room = subject.model, subject.state, subject.room
    before = subject.used
    supply = Rehearsal(subject.twin, state.batch, disk)
    layers = layers_of(model, state.batch)
    chunk = budget.chunk_for(model, state, supply, subject.threads, room)
    engine = Engine(model, state, subject.threads, chunk, progress, supply=supply)
    try:
        program = subject.used
        used = program + bytes_of(subject.file, experts=False)
        share = budget.share(supply, state, engine.plans, room, used)
        if not share.enough:
            whole = budget.whole(subject.file, model, state, subject.threads, before)
            return subject.outlook("too large", engine, program, min(share.lacking, whole - room))
        streaming, speed = _rehearsed(subject, engine, supply, layers, share.slots)
        return subject.outlook("streamed", engine, program, 0, streaming, speed)
    finally:
        engine.close()


def _rehearsed(
    subject: Subject, engine: Engine, supply: Rehearsal, layers: list[GatedExperts], slots: int
) -> tuple[Streaming, Speed]:
    saved = usage_file.load(usage_file.path_for(subject.file))
    rates = {name: hit_rate(saved.get(name), layer.count, slots) for name, layer in supply.layers.items()}
    supply.begin(rates)
    tokens = min(PROMPT, subject.state.ctx)
    step = step_seconds(engine)
    for layer in layers:
        subject.twin.settle(layer)
    prompt = prompt_seconds(subject.model, subject.state.batch, subject.threads, tokens)
    step = min(step, step_seconds(engine))  # once more: a disk that others use, too, may be slow for a second or two
    disk_bytes_per_s = supply.disk_bytes_per_s()
    # reads and sums of a prompt hardly overlap on two cores: 512 tokens took as long as both, within 15 %
    prompt += supply.bytes_per_prompt(tokens) / disk_bytes_per_s
    prompt += supply.seconds_to_fill(tokens, slots) / subject.threads
    mean = float(np.mean(list(rates.values())))
    streaming = Streaming(slots, supply.most_slots, mean, bool(saved), supply.bytes_per_step(), disk_bytes_per_s)
    return streaming, Speed(tokens, tokens / prompt, 1 / step)


def bytes_of(file: GGUFFile, experts: bool) -> int:
    """Of all routed experts, or of all other weights."""
    return sum(tensor.n_bytes for tensor in file.tensors.values() if is_expert(tensor) == experts)


def hit_rate(saved: NDArray[np.float32] | None, experts: int, slots: int) -> float:
    """The share of a token's experts that are in memory, given their heat of earlier runs.

    The hottest have slots, but some were hot by chance, and will be less so: rates are shrunk towards their mean by the part
    of their variance that is noise, which of choices that fade is down to half of what it is of choices that are counted.
    Of the embedded model's experts, 5, 8 or 11 of 16 in memory after half of the fables, that says 46, 65 and 80 %; the other
    half found 45, 65 and 81 %. Without heat, a third, half or 70 % of random weights' experts were as many of those asked for.
    """
    share = min(1.0, slots / experts)
    if saved is not None and len(saved) == experts and saved.any():
        heat = saved.astype(np.float64)
        mean, whole = heat.mean(), heat.sum()
        noise = mean * (1 - min(1.0, whole / _MOST_HEAT) / 2)
        signal = max(0.0, 1 - noise / max(heat.var(), 1e-9))
        rates = mean + signal * (heat - mean)
        share = min(1.0, float(np.sort(rates)[::-1][:slots].sum() / whole))
    return share
