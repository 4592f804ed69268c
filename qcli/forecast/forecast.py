"""Forecasts how a model would run here: resident, streamed or not at all, how much memory it takes, and how fast it is.

It follows `Engine.load` step by step, with a synthetic model in place of the file's weights. `qcli plan` calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from qcli.forecast.hit_rate import hit_rate
from qcli.forecast.result import Beside, Forecast, Memory, Mode, Speed, Streaming, Weights
from qcli.forecast.simulated_cache import SimulatedCache
from qcli.forecast.synthetic_model import SyntheticModel, expert_layers
from qcli.forecast.timing import PROMPT, prompt_seconds, step_seconds
from qcli.gguf.file import GGUFFile
from qcli.host.memory import process_memory
from qcli.host.threads import default_threads, streaming_threads
from qcli.layers.state import State
from qcli.models import Model
from qcli.runtime.active_threads import ActiveThreads
from qcli.runtime.build import STEP_TOKENS, as_loaded, model_of
from qcli.runtime.engine import DEFAULT_CHUNK, Engine
from qcli.runtime.places import fitting, text_bytes
from qcli.streaming import budget, usage_file
from qcli.streaming.dense import weight_bytes
from quant.kernels.experts import GatedExperts

Progress = Callable[[str, float], None]
_MOST = 64  # texts at a time, of a model that is streamed


def forecast(
    file: GGUFFile,
    *,
    threads: int | None = None,
    ctx: int | None = None,
    kv_type: str | None = None,
    ram: int | None = None,
    mtp: bool = True,
    disk: Path | None = None,
    progress: Progress | None = None,
) -> Forecast:
    """What Engine.load would do with these options, and how fast. Raises as Engine.load.

    mtp: with its head of multi-token prediction, if it has one; disk: a file to measure the disk with, if that of the model
    has a header only.
    """
    synthetic = SyntheticModel(file)
    model, state = model_of(synthetic.file, ctx, kv_type or "f16", STEP_TOKENS, mtp, DEFAULT_CHUNK)
    file = as_loaded(file, model)
    setup = Setup(file, synthetic, model, state, threads or default_threads(), threads is None, budget.limit(ram))
    if not state.experts_total or budget.fits(file, model, state, setup.threads, setup.ram, setup.used):
        return _resident(setup, progress)
    threads = threads or streaming_threads()
    chunk = budget.chunk_size(model, state, threads, setup.ram)
    model, state = model_of(synthetic.file, ctx, kv_type or "f16", STEP_TOKENS, mtp, chunk)
    return _streamed(replace(setup, model=model, state=state, threads=threads), chunk, disk, progress)


@dataclass(frozen=True)
class Setup:
    """A model and the options that it would be loaded with."""

    file: GGUFFile
    synthetic: SyntheticModel
    model: Model
    state: State
    threads: int
    adapts: bool  # whether fewer of them decode where that is quicker
    ram: int  # bytes that the process may use

    @property
    def used(self) -> int:
        """Bytes that the process takes now, without the synthetic weights."""
        return process_memory() - self.synthetic.n_bytes

    def result(
        self, mode: Mode, engine: Engine, program: int, missing_bytes: int = 0, streaming: Streaming | None = None,
        speed: Speed | None = None, texts: Callable[[int], int] | None = None,
    ) -> Forecast:  # fmt: skip
        """program: bytes taken beside weights, state and buffers; missing_bytes: of a model that is too large;
        texts: how many of them there is room for, by the bytes that a resident model leaves; None: one."""
        state = self.state
        experts, dense = weight_bytes(self.file, experts=True), weight_bytes(self.file, experts=False)
        weights = Weights(dense, experts, round(engine.weight_bytes_per_step()))
        buffers = sum(plan.n_bytes for plan in engine.programs.plans)
        program += budget.RESERVE + budget.state_bytes(state) - state.n_bytes  # checkpoints
        needed = self.ram + missing_bytes if missing_bytes else program + dense + experts + state.n_bytes + buffers
        memory = Memory(self.ram, state.n_bytes, state.cache_bytes, buffers, program, needed)
        beside = None
        if texts:
            beside = Beside(text_bytes(state, engine.vocab_size), texts(self.ram - needed))
        return Forecast(mode, self.threads, state.ctx, state.kv_type, weights, memory, streaming, speed, beside)


def _resident(setup: Setup, progress: Progress | None) -> Forecast:
    model, state, threads = setup.model, setup.state, setup.threads
    for layer in expert_layers(model, state.batch):
        setup.synthetic.set_addresses(layer)
    program = setup.used
    decoding = ActiveThreads(1 if setup.adapts else threads, threads)
    engine = Engine(model, state, threads, DEFAULT_CHUNK, progress, decoding=decoding)
    try:
        tokens = min(PROMPT, state.ctx)
        prompt = prompt_seconds(model, state.batch, threads, tokens)
        speed = Speed(tokens, tokens / prompt, 1 / step_seconds(engine))
        texts = partial(fitting, state=state, vocab_size=engine.vocab_size)
        return setup.result("resident", engine, program, speed=speed, texts=texts)
    finally:
        engine.close()


def _streamed(setup: Setup, chunk: int, disk: Path | None, progress: Progress | None) -> Forecast:
    model, state, ram = setup.model, setup.state, setup.ram
    before = setup.used
    cache = SimulatedCache(setup.synthetic, disk)
    layers = expert_layers(model, state.batch)
    engine = Engine(model, state, setup.threads, chunk, progress, expert_loader=cache.loader)
    try:
        program = setup.used
        used = program + weight_bytes(setup.file, experts=False)
        found = budget.slot_budget(cache.loader, state, engine.programs.plans, ram, used)
        if not found.enough:
            resident = budget.resident_bytes(setup.file, model, state, setup.threads, before)
            return setup.result("too large", engine, program, min(found.missing_bytes, resident - ram))
        streaming, speed = _measured(setup, engine, cache, layers, found.slots)
        each = text_bytes(state, engine.vocab_size)
        texts = budget.texts_beside(cache.loader, found.slots, found.spare_bytes, each, _MOST)
        return setup.result("streamed", engine, program, 0, streaming, speed, lambda _: texts)
    finally:
        engine.close()


def _measured(
    setup: Setup, engine: Engine, cache: SimulatedCache, layers: list[GatedExperts], slots: int
) -> tuple[Streaming, Speed]:
    """Hit rates by usage, and speeds by a trial run; slots: in each layer."""
    usage = usage_file.load(usage_file.path_for(setup.file))
    rates = {name: hit_rate(usage.get(name), layer.expert_count, slots) for name, layer in cache.loader.layers.items()}
    cache.allocate(rates)
    tokens = min(PROMPT, setup.state.ctx)
    step = step_seconds(engine, cache.prefetch)
    for layer in layers:
        setup.synthetic.set_addresses(layer)
    prompt = prompt_seconds(setup.model, setup.state.batch, setup.threads, tokens)
    # once more: a disk that others use, too, may be slow for a second or two
    step = min(step, step_seconds(engine, cache.prefetch))
    disk_bytes_per_s = cache.disk_bytes_per_s()
    # reads and sums of a prompt hardly overlap on two cores: 512 tokens took as long as both, within 15 %
    prompt += cache.bytes_per_prompt(tokens) / disk_bytes_per_s
    prompt += cache.seconds_to_fill(tokens, slots) / setup.threads
    mean = float(np.mean(list(rates.values())))
    streaming = Streaming(slots, cache.loader.max_slots, mean, bool(usage), cache.bytes_per_token(), disk_bytes_per_s)
    return streaming, Speed(tokens, tokens / prompt, 1 / step)
