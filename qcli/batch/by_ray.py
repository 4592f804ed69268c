"""A batch on a cluster: Ray Data hands rows to workers, and takes what comes of them; nothing distributed is ours."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Final

from qcli.batch.job import Summary
from qcli.batch.question import Asked, Defaults
from qcli.batch.results import Results
from qcli.batch.source import Row
from qcli.batch.worker import Setup, Worker, packed, unpacked
from qcli.errors import QcliError, UsageError
from qcli.wording import parse_size, shortened

HERE: Final = "local"
_ROWS: Final = 4  # that a worker is handed together, for each that it answers at a time


class Lines:
    """What Ray runs in each worker: packed rows in, their results as JSON out."""

    def __init__(self, setup: Setup, defaults: Defaults) -> None:
        from qcli.ray import with_resources

        self._worker = Worker(with_resources(setup), defaults)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """The results of a batch of rows."""
        results = self._worker.results([unpacked(text) for text in batch["row"]])
        return {"result": [json.dumps(result, ensure_ascii=False) for result in results]}


def run(
    rows: Iterable[Row], results: Results, setup: Setup, defaults: Defaults, address: str, ordered: bool,
    tell: Callable[[Summary], object],
) -> Summary:  # fmt: skip
    """Have rows answered whose results are not there yet, each once, and tell after each how far that is.

    address: of the cluster, "auto" for the one that runs on this machine, "local" for one that is started here and ended
    afterwards. Raises OutputError, QcliError.
    """
    summary, began = Summary(), monotonic()
    left: list[str] = []
    for row in rows:
        if row.id in results.done:
            continue
        if row.problem:
            results.add(Asked(row, defaults, 0).error(row.problem))
            summary.errors += 1
            tell(summary)
        else:
            left.append(packed(row))
    for result in _answered(left, setup, defaults, address, ordered) if left else ():
        if result["custom_id"] in results.done:
            continue
        results.add(result)
        count(result, summary)
        summary.seconds = monotonic() - began
        tell(summary)
    return summary


def _answered(
    rows: list[str], setup: Setup, defaults: Defaults, address: str, ordered: bool
) -> Iterator[dict[str, Any]]:
    ray = _connected(address)
    try:
        cpus = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        each, workers = shares(cpus, setup.threads)
        handed = min(_ROWS * setup.parallel, -(-len(rows) // workers))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = ordered
        blocks = -(-len(rows) // handed)
        given = ray.data.from_items([{"row": row} for row in rows], override_num_blocks=blocks)
        memory = parse_size(setup.ram) if isinstance(setup.ram, str) else setup.ram
        answered = given.map_batches(
            Lines, batch_size=None, compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers), num_cpus=each,
            memory=memory, fn_constructor_kwargs={"setup": setup, "defaults": defaults},
        )  # fmt: skip
        for row in answered.iter_rows():
            yield json.loads(row["result"])
    except ray.exceptions.RayError as problem:
        raise _said(problem) from None
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    """Ray, as a client of a cluster; it keeps quiet about itself. Raises QcliError."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    started: dict[str, Any] = {"include_dashboard": False} if address == HERE else {}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **started)
    except (ConnectionError, ValueError, RuntimeError) as problem:
        hint = f"give the address of one, auto for that of this machine, or {HERE} to have one started here"
        raise QcliError(f"no cluster of Ray answers at {shortened(address)}: {problem}", hint) from None
    return ray


def shares(cpus: list[float], threads: int | None) -> tuple[int, int]:
    """The processors of a worker, and how many workers there can be on machines with so many each. Raises UsageError.

    By default a worker has a whole machine, of the smallest.
    """
    there = [math.floor(count) for count in cpus if count >= 1]
    each = threads or min(there, default=1)
    workers = sum(count // each for count in there)
    if not workers:
        raise UsageError(f"no machine of the cluster has {each} processors", "give a smaller -t")
    return each, workers


def count(result: Mapping[str, Any], summary: Summary) -> None:
    """Add what a result took."""
    if result.get("error") is not None:
        summary.errors += 1
        return
    body = result["response"]["body"].get("usage", {}) if "response" in result else result
    summary.answered += 1
    summary.prompt_tokens += body.get("prompt_tokens", body.get("input_tokens", 0))
    summary.new_tokens += body.get("new_tokens", body.get("completion_tokens", body.get("output_tokens", 0)))


def _said(problem: BaseException) -> QcliError:
    """What went wrong in a worker, without its traceback."""
    found: BaseException | None = problem
    while found is not None:
        if isinstance(found, QcliError):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    line = str(problem).strip().splitlines()[-1] if str(problem).strip() else type(problem).__name__
    return QcliError(f"a worker of the cluster failed: {shortened(line)}", "look into Ray's own logs")
