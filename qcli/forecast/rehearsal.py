"""A token of a synthetic model, run for a moment: enough to compare the files of a repository, of which there may be many.

`forecast` takes seconds for one file, and measures prompts and reads, too.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np

from qcli import models
from qcli.forecast.simulated_cache import SimulatedCache
from qcli.forecast.synthetic_model import SyntheticModel, expert_layers
from qcli.gguf.file import GGUFFile
from qcli.host import kernels
from qcli.progress import Progress
from qcli.runtime import sampler
from qcli.runtime.build import model_of
from qcli.runtime.program import Program
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import Sampling
from quant import team
from quant.plan import Plan
from quant.team import Team

_CTX = 128  # tokens
_SECONDS = 0.3  # of tokens, about
_LEAST = 2  # tokens, after one that loads the caches


class Rehearsal:
    """A model of a file's shape, whose weights are random."""

    def __init__(self, file: GGUFFile, threads: int, before: Rehearsal | None = None) -> None:
        """before: one that is over, whose memory is used again. Raises as `model_of`, and MemoryError."""
        self._synthetic: SyntheticModel = SyntheticModel(file, before._synthetic if before else None)
        ctx = min(_CTX, models.context_length(file))
        self._model, self._state = model_of(self._synthetic.file, ctx, "f16")
        self._threads = threads

    def disk_bytes_per_s(self, disk: Path) -> float:
        """How fast a file's pieces as large as this model's experts are read; to be asked before `token_seconds`."""
        cache = SimulatedCache(self._synthetic, disk)
        try:
            self._model.trunk(Plan(1, self._threads, self._state.batch, cache.loader), np.zeros(1, np.int64))
            return cache.disk_bytes_per_s()
        finally:
            cache.loader.close()

    def token_seconds(self, progress: Progress | None = None) -> float:
        """Seconds of a token and its sampling, all experts in memory, near the beginning of a text: the first quartile.

        Other programs make tokens slower now and then, after which types could not be compared.
        """
        for layer in expert_layers(self._model, self._state.batch):
            self._synthetic.set_addresses(layer)
        plan, ids = Plan(1, self._threads, self._state.batch), np.zeros(1, np.int64)
        logits = self._model.head(plan, self._model.trunk(plan, ids))
        kernels.prepare([*dict.fromkeys(plan.kernels), *team.KERNELS, *sampler.KERNELS], progress)
        program, crew = Program.of(plan), Team(self._threads)
        draw = Sampler(Sampling(temperature=0.8, min_p=0.0, seed=0), self._model.vocab_size)
        random, seconds = np.random.default_rng(), list[float]()
        try:
            while len(seconds) <= _LEAST or (sum(seconds[1:]) < _SECONDS and len(seconds) < self._state.ctx):
                ids[0] = random.integers(0, self._model.vocab_size)
                began = perf_counter()
                self._state.batch.set(1, len(seconds))
                program.replay(lambda records, _parts: crew.run(records))
                draw.sample(logits.values[0])
                seconds.append(perf_counter() - began)
        finally:
            crew.close()
        return float(np.quantile(seconds[1:], 0.25))
