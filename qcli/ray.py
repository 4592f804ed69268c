"""Ray Data: a model in each worker, whose rows have questions (the extra `ray`).

    import ray
    from qcli.ray import Predictor

    rows = ray.data.from_items([{"prompt": "Tell me a story about a fox."}, {"prompt": "Hi!", "max_tokens": 20}])
    answered = rows.map_batches(Predictor, fn_constructor_kwargs={"max_tokens": 60}, num_cpus=4, concurrency=2, batch_size=32)
    answered.show()

Columns have the names that lines of `qcli batch` have, and mean the same; others are given back as they are. What comes of a
row depends on it alone: not on the worker, on its neighbours, or on how often it was tried.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Unpack

import numpy as np

from qcli.batch.question import Defaults
from qcli.batch.source import row_of
from qcli.batch.worker import Setup, Worker
from qcli.runtime.answer_options import Options, checked

COLUMNS: Final = ("text", "thoughts", "finish_reason", "prompt_tokens", "new_tokens", "error")


class Predictor:
    """What `map_batches` takes: an object of it in each worker has a model, and answers the batches that come there."""

    def __init__(
        self, model: str | None = None, *, threads: int | None = None, ctx: int | None = None, kv_type: str | None = None,
        ram: int | str | None = None, parallel: int = 8, pull: bool = False, system: str | None = None,
        **options: Unpack[Options],
    ) -> None:  # fmt: skip
        """model, ctx, kv_type: as LLM takes them; the model is found on the worker's machine, or downloaded if `pull`.

        threads, ram: by default what Ray has assigned to the worker (num_cpus, memory); parallel: rows at a time;
        system, options: of rows that do not say otherwise; seed: with which, and with what it says, each row's own is made.
        """
        seed = options.pop("seed", None) or 0
        constrained = checked(options).is_held
        setup = with_resources(Setup(model, threads, ctx, kv_type, ram, parallel, constrained, pull))
        self._worker = Worker(setup, Defaults(options, system, seed))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a batch, and of each row `text`, `thoughts`, `finish_reason`, `prompt_tokens`, `new_tokens`, `error`,
        and `result`: all of it, as JSON, as `qcli batch` would write it. A row that cannot be answered has an error."""
        said: Counter[str] = Counter()
        count = len(next(iter(batch.values()), ()))
        values = [{name: plain(column[i]) for name, column in batch.items()} for i in range(count)]
        rows = [row_of(_known(one), str(i), said) for i, one in enumerate(values)]
        results = self._worker.results(rows)
        columns = {name: np.array([result.get(name) for result in results], object) for name in COLUMNS}
        texts = np.array([json.dumps(result, ensure_ascii=False) for result in results], object)
        return {**batch, **columns, "result": texts}


def with_resources(setup: Setup) -> Setup:
    """A worker's setup, with the threads and the memory that Ray has assigned to it, where it says nothing else."""
    import ray

    assigned = ray.get_runtime_context().get_assigned_resources()
    threads = setup.threads or math.floor(assigned.get("CPU", 0)) or None
    return replace(setup, threads=threads, ram=setup.ram or int(assigned.get("memory", 0)) or None)


def plain(value: Any) -> Any:
    """A value of a column as JSON has it; fields that Arrow adds to make structures alike are left out."""
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: made for name, one in value.items() if (made := plain(one)) is not None}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says: no column that has nothing for it."""
    return {name: one for name, one in values.items() if one is not None and one == one}
