"""qcli batch: a file of questions, a file of answers."""

from __future__ import annotations

from contextlib import ExitStack
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
from qcli.runtime.sampling import SamplingOptions
from qcli.wording import counted, duration

if TYPE_CHECKING:
    from qcli.batch.job import Summary

_INPUT = 'Questions, one on each line of JSON: {"prompt": …}, {"messages": …}, or OpenAI\'s batches; or a .csv table.'
_OUTPUT = "Add the answers to FILE, each as soon as it is there. Questions that FILE has an answer to are left out."
_ORDERED = "Write the answers in the order of the questions; else each as soon as it is there."
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
            from qcli.batch.job import Job
            from qcli.batch.question import Defaults
            from qcli.batch.results import Results
            from qcli.batch.source import Source
            from qcli.llm import LLM
            from qcli.serving.several_at_a_time import SeveralAtATime

            path, out = _paths(source, to)
            rows = Source(path, template)
            ids = rows.ids()
            results = stack.enter_context(Results(out))
            total, before = len(ids), len(ids & results.done)
            if before == total:
                if not quiet:
                    console.info(f"{out} has a result of each of {counted(total, 'line')} already")
                return int(results.errors > 0)

            def load(_: str | None, progress: Any) -> LLM:
                constrained = form.constraint is not None
                more: Any = {"kv_type": kv_type, "ram": ram, "keep": "shared", "constrained": constrained}
                return LLM(model, threads, ctx, progress=progress, **more)

            answers = SeveralAtATime(load, parallel=parallel)
            llm = answers.start(progress=bar.update)
            stack.callback(answers.close)
            llm.thinking.manner(think)
        held: Any = {key: value for key, value in given.items() if value is not None}
        job = Job(answers, llm.name, results, Defaults(held, system, seed or 0), parallel, ordered)

        progress = _Progress(before, total, bar, quiet)
        progress.tell(job.summary)
        try:
            job.run(rows, progress.tell)
        except KeyboardInterrupt:
            bar.close()
            if not quiet:
                console.info(f"stopped after {progress.done} · the same command goes on")
            return interrupt.EXIT_CODE
        bar.close()
        if not quiet:
            console.figures(_figures(job.summary, out))
    return int(results.errors > 0)


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
    if to in (None, "-", ""):
        raise UsageError("there is no file for the answers", f"name one, as in: qcli batch {source} -o answers.jsonl")
    path, out = expanded(source), expanded(to or "")
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
