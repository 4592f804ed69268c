"""qcli batch: a file of questions, a file of answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from qcli import console, interrupt
from qcli.commands import forms, options
from qcli.commands.examples import examples
from qcli.commands.forms import Form
from qcli.errors import OutputError, UsageError
from qcli.host.folders import expanded
from qcli.host.packages import how_to_install
from qcli.runtime.sampling import SamplingOptions
from qcli.wording import counted, duration

if TYPE_CHECKING:
    from qcli.batch.job import Summary
    from qcli.batch.question import Defaults
    from qcli.batch.results import Results
    from qcli.batch.source import Source
    from qcli.batch.worker import Setup

    Work = Callable[[Source, Callable[[Summary], None]], Summary]

_INPUT = 'Questions, one on each line of JSON: {"prompt": …}, {"messages": …}, or OpenAI\'s batches; or a .csv table.'
_OUTPUT = "Add the answers to FILE, each as soon as it is there. Questions that FILE has an answer to are left out."
_ORDERED = "Write the answers in the order of the questions; else each as soon as it is there."
_RAY = "Spread the work over a cluster of Ray: its address, auto for the one of this machine, local to start one here."
_OFTEN = 60.0  # seconds
_TEMPLATE = "For a table: the question about each row, with names of columns in braces."


@examples(
    ("qcli batch questions.jsonl -o answers.jsonl", "Answers each line; typed again after a stop, it goes on."),
    ('qcli batch reviews.csv -o out.jsonl --template "Good or bad? {text}"', "Asks the same about each row."),
)
@options.with_sampling
def batch(
    source: Annotated[str | None, typer.Argument(metavar="IN", help=_INPUT)] = None,
    to: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help=_OUTPUT)] = None,
    model: options.Model = None,
    template: Annotated[str | None, typer.Option("--template", metavar="TEXT", help=_TEMPLATE)] = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    think: options.Think = None,
    choices: forms.Choices = None,
    schema: forms.Schema = None,
    regex: forms.Regex = None,
    grammar: forms.Grammar = None,
    parallel: options.Parallel = 8,
    ordered: Annotated[bool, options.flag("--ordered", help=_ORDERED)] = False,
    ray: Annotated[str | None, typer.Option("--ray", metavar="ADDRESS", help=_RAY)] = None,
    pull: Annotated[bool, options.flag("--pull", help="With --ray: download the model where it is missing.")] = False,
    quiet: options.Quiet = False,
    ram: options.Ram = None,
    threads: options.Threads = None,
    ctx: options.Ctx = None,
    kv_type: options.KvType = None,
    **sampling: Unpack[SamplingOptions],
) -> int:
    """Answer a file of questions.

    Options hold for each line that does not say otherwise itself. A line that cannot be answered becomes an error in FILE,
    and the rest goes on.
    """
    form = Form.typed(schema, regex, choices, grammar, stream=False, partial=False)
    seed = sampling.pop("seed", None)
    given: Any = {"max_tokens": max_tokens, "think": think, "constraint": form.constraint, **sampling}
    with ExitStack() as stack:
        stack.enter_context(interrupt.raises_once())
        bar = stack.enter_context(console.status("reading", quiet))
        with interrupt.ends_all(bar):
            from qcli.batch.question import Defaults
            from qcli.batch.results import Results
            from qcli.batch.source import Source
            from qcli.batch.worker import Setup

            path, out = _paths(source, to)
            _check_ray(ray, pull)
            rows = Source(path, template)
            asked = rows.digests()
            results = stack.enter_context(Results(out))
            results.check(asked)
            total, before = len(asked), len(asked.keys() & results.done.keys())
            if before == total:
                if not quiet:
                    console.info(f"{out} has a result of each of {counted(total, 'line')} already")
                return int(results.errors > 0)
            held: Any = {key: value for key, value in given.items() if value is not None}
            defaults = Defaults(held, system, seed or 0)
            setup = Setup(model, threads, ctx, kv_type, ram, parallel, form.constraint is not None, pull)
            if ray is None:
                work = _here(stack, setup, defaults, results, ordered, bar)
            else:
                work = partial(_by_ray, setup, defaults, results, ordered, ray)
        progress = _Progress(before, total, bar, quiet)
        try:
            summary = work(rows, progress.tell)
        except KeyboardInterrupt:
            bar.close()
            if not quiet:
                console.info(f"stopped after {progress.done} · the same command goes on")
            return interrupt.EXIT_CODE
        bar.close()
        if not quiet:
            console.figures(_figures(summary, out))
    return int(results.errors > 0)


def _here(
    stack: ExitStack, setup: Setup, defaults: Defaults, results: Results, ordered: bool, bar: console.status
) -> Work:
    """What answers rows by a model in this process, which is loaded now."""
    from qcli.batch.job import Job
    from qcli.batch.worker import Worker

    worker = Worker(setup, defaults)
    stack.callback(worker.close)
    answers, llm = worker.start(bar.update)
    llm.thinking.manner(defaults.options.get("think"))
    job = Job(answers, llm.name, results, defaults, setup.parallel, ordered)

    def work(rows: Source, tell: Callable[[Summary], None]) -> Summary:
        tell(job.summary)
        job.run(rows, tell)
        return job.summary

    return work


def _by_ray(
    setup: Setup, defaults: Defaults, results: Results, ordered: bool, address: str, rows: Source,
    tell: Callable[[Summary], None],
) -> Summary:  # fmt: skip
    """Has rows answered by a cluster."""
    from qcli.batch import by_ray

    return by_ray.run(rows, results, setup, defaults, address, ordered, tell)


def _check_ray(address: str | None, pull: bool) -> None:
    """Raise UsageError if there is no Ray to do what is asked of it."""
    if address is None and pull:
        raise UsageError("--pull is for the machines of a cluster", "`qcli pull` downloads a model to this one")
    if address is not None and find_spec("ray") is None:
        raise UsageError("--ray needs the package ray", how_to_install("ray"))


class _Progress:
    """Tells how far a batch is: in a bar, and where nobody sees that, in a line a minute."""

    def __init__(self, before: int, total: int, bar: console.status, quiet: bool) -> None:
        self._before, self._total, self._bar = before, total, bar
        self.done = f"{before:,} of {counted(total, 'line')}"
        self._silent = quiet or console.stderr_columns() < inf
        self._began = self._told = monotonic()

    def tell(self, summary: Summary) -> None:
        """Tell it after a line."""
        new = summary.answered + summary.errors
        done = self._before + new
        self.done = f"{done:,} of {counted(self._total, 'line')}"
        self._bar.update("answering", done / self._total, self.done)
        if self._silent or monotonic() < self._told + _OFTEN or not new:
            return
        self._told = monotonic()
        left = (self._told - self._began) / new * (self._total - done)
        speed = f"{summary.new_tokens / (self._told - self._began):.1f} tok/s"
        console.figures([self.done, speed, f"about {duration(left)} left"])


def _paths(source: str | None, to: str | None) -> tuple[Path, Path]:
    """The file that is read, and the one that is written. Raises UsageError, OutputError if they cannot be."""
    if source is None:
        raise UsageError("there is no file of questions", "name one, as in: qcli batch IN.jsonl -o answers.jsonl")
    if to is None or to == "-":
        raise UsageError("there is no file for the answers", f"name one, as in: qcli batch {source} -o answers.jsonl")
    path, out = expanded(source), expanded(to)
    if path.exists() and out.exists() and path.samefile(out):
        raise OutputError(f"{out}: is read by this command", "give another name to write to")
    return path, out


def _figures(summary: Summary, to: Path) -> list[str]:
    """The figures of a run, as a line tells them."""
    read = f"{counted(summary.prompt_tokens, 'token')} read"
    if summary.cached_tokens:
        read += f", {summary.cached_tokens:,} of them cached"
    speed = f" ({summary.new_tokens / summary.seconds:.1f} tok/s)" if summary.seconds else ""
    errors = [f"{counted(summary.errors, 'error')} (see {to})"] if summary.errors else []
    return [
        f"{summary.answered:,} answered",
        *errors,
        read,
        f"{counted(summary.new_tokens, 'token')} written{speed}",
        duration(summary.seconds),
    ]
