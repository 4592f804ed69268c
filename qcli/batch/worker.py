"""A worker of a batch: it has a model of its own, and answers rows, in this process or in one of a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qcli.batch.job import Job
from qcli.batch.question import Defaults
from qcli.batch.source import Row
from qcli.errors import ModelNotFoundError
from qcli.serving.several_at_a_time import SeveralAtATime

if TYPE_CHECKING:
    from pathlib import Path

    from qcli.llm import LLM
    from qcli.progress import Progress


@dataclass(frozen=True)
class Setup:
    """The model of a worker, as LLM takes it, and how many rows it answers at a time."""

    model: str | None = None
    threads: int | None = None
    ctx: int | None = None
    kv_type: str | None = None
    ram: int | str | None = None
    parallel: int = 8
    constrained: bool = False
    pull: bool = False  # whether a model of huggingface.co that is not on this machine is downloaded


@dataclass
class _Collected:
    """Results in memory, in place of a file."""

    done: dict[str, str] = field(default_factory=dict)
    found: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, result: Mapping[str, Any]) -> None:
        """Add one."""
        self.found.append(result)


class Worker:
    """Answers rows; the model is loaded with the first."""

    def __init__(self, setup: Setup, defaults: Defaults) -> None:
        self._setup, self._defaults = setup, defaults
        self._started: tuple[SeveralAtATime, LLM] | None = None

    def results(self, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
        """The result of each row, in their order. Raises QcliError for what has nothing to do with a row."""
        (answers, llm), collected = self.start(_unheard), _Collected()
        Job(answers, llm.name, collected, self._defaults, self._setup.parallel, ordered=True).run(rows, _nobody)
        return collected.found

    def close(self) -> None:
        """Let go of the model."""
        if self._started:
            self._started[0].close()

    def start(self, progress: Progress) -> tuple[SeveralAtATime, LLM]:
        """Load the model, unless it is there: what answers, and the model itself. Raises as LLM does."""
        if self._started is None:
            if self._setup.pull:
                pull(self._setup.model)
            answers = SeveralAtATime(self._load, parallel=self._setup.parallel)
            self._started = answers, answers.start(progress=progress)
        return self._started

    def _load(self, _: str | None, progress: Progress) -> LLM:
        from qcli.llm import LLM

        setup = self._setup
        more: Any = {"kv_type": setup.kv_type, "ram": setup.ram, "constrained": setup.constrained}
        return LLM(setup.model, setup.threads, setup.ctx, keep="shared", progress=progress, **more)


def pull(model: str | None) -> Path | None:
    """Download a model of huggingface.co, or of our list, that is not on this machine; None if it is here. Raises QcliError."""
    from qcli.catalog.names import address_of, named
    from qcli.catalog.resolve import resolve

    try:
        resolve(model)
        return None
    except ModelNotFoundError:
        address = address_of(model) if model else None
        if address is None:
            raise
    from qcli.hub import api
    from qcli.hub.pull import Pull
    from qcli.hub.repo_files import choose

    listing = api.list_files(address.repo, address.revision)
    return Pull.of(listing, choose(listing.files, address), address, named(model) if model else None).run().path


def packed(row: Row) -> str:
    """A row as a text that workers read."""
    return json.dumps([row.id, row.identity, row.values])


def unpacked(text: str) -> Row:
    """The row of such a text."""
    return Row(*json.loads(text))


def _nobody(told: object) -> None:
    """Is told how far it is, and does nothing."""


def _unheard(stage: str, fraction: float) -> None:
    """Likewise."""
