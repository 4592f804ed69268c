"""Measures a token and a prompt of a synthetic model by running the engine's own plans for a second or two."""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qcli.forecast.simulated_cache import PrefetchSwitch
from qcli.models import Model
from qcli.runtime.engine import Engine
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import Sampling
from quant.batch import Batch
from quant.plan import Plan
from quant.team import Team

PROMPT = 512  # tokens
_SECONDS = 1.0  # of one measurement, about
_STEPS = 4  # tokens in a row, with prefetching or without
_TEXT = 128  # tokens, before the state is emptied
_SLICE = 8  # records of a prompt between looks at the clock


def step_seconds(engine: Engine, prefetch: PrefetchSwitch | None = None) -> float:
    """Mean seconds of a decoded token and its sampling; of a streamed model, with prefetching or without: the quicker way."""
    sampler = Sampler(Sampling(temperature=0.8, min_p=0.0, seed=0), engine.vocab_size)
    seconds: dict[bool, list[float]] = {enabled: [] for enabled in ((False, True) if prefetch else (False,))}
    awake = perf_counter() + _SECONDS / 2  # a disk's first reads after a pause take up to twice as long
    while (now := perf_counter()) < awake + _SECONDS or not seconds[False]:
        for enabled, measured in seconds.items():
            if prefetch:
                prefetch.enabled = enabled
            one = _mean_step_seconds(engine, sampler)
            if now >= awake:
                measured.append(one)
    return min(float(np.mean(measured)) for measured in seconds.values())


def _mean_step_seconds(engine: Engine, sampler: Sampler) -> float:
    """Mean seconds of a few random tokens, near the beginning of a text."""
    ids = np.random.default_rng().integers(0, engine.vocab_size, min(_STEPS, engine.ctx)).tolist()
    if engine.position + len(ids) > min(_TEXT, engine.ctx):
        engine.reset()
    began = perf_counter()
    for token in ids:
        sampler.sample(engine.step(token))
    return (perf_counter() - began) / len(ids)


def prompt_seconds(model: Model, batch: Batch, threads: int, tokens: int) -> float:
    """Seconds of a prompt whose experts are in memory: its first records are measured, the others taken to be like them.

    batch: see quant.plan.Plan.
    """
    plan = Plan(tokens, threads, batch)
    ids = np.random.default_rng(2).integers(0, model.vocab_size, tokens)
    model.trunk(plan, ids)
    records, parts = plan.compile(), plan.parts
    batch.set(tokens, 0)
    team = Team(threads)
    try:
        measured = _measured(team, records)
    finally:
        team.close()
    return _extrapolated(records, parts, measured)


def _measured(team: Team, records: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds of the first records, of as many as there is time for."""
    ticks = np.zeros((len(records), 2), np.int64)
    began, done = perf_counter(), 0
    while done < len(records) and perf_counter() - began < _SECONDS:
        part = slice(done, done + _SLICE)
        team.run(records[part], ticks[part])
        done = min(done + _SLICE, len(records))
    seconds = perf_counter() - began
    each: NDArray[np.float64] = ticks[:done].sum(1) * (seconds / float(ticks[:done].sum()))
    return each


def _extrapolated(records: NDArray[np.int64], parts: list[str], measured: NDArray[np.float64]) -> float:
    """Seconds of all records: one that was not measured takes the mean of others with its kernel and part of the model.

    Where none of these was measured it counts as nothing.
    """
    known: dict[tuple[str, int], list[float]] = defaultdict(list)
    keys = [(part, int(kernel)) for part, kernel in zip(parts, records[:, 0], strict=True)]
    for key, seconds in zip(keys, measured, strict=False):
        known[key].append(float(seconds))
    rest = (float(np.mean(known[key])) for key in keys[len(measured) :] if key in known)
    return float(measured.sum()) + sum(rest)
