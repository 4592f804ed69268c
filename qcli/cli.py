"""The command line: it registers the commands and is the one place where errors end."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from qcli import __version__, console, interrupt
from qcli.commands import options
from qcli.commands.bench import bench
from qcli.commands.chat import chat
from qcli.commands.experts import experts
from qcli.commands.imatrix import imatrix
from qcli.commands.perplexity import perplexity
from qcli.commands.plan import plan
from qcli.commands.quantize import quantize
from qcli.commands.run import run
from qcli.errors import QcliError, UsageError
from qcli.host import bus_error

app = typer.Typer(
    name="qcli",
    help="Run quantized Mixture-of-Experts language models on the CPU.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if console.answers_a_person() else None,  # boxes are for people
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(chat)
app.command()(bench)
app.command()(plan)
app.command()(experts)
app.command()(quantize)
app.command()(imatrix)
app.command()(perplexity)


@app.command()
def show(
    model: options.GivenModel = None,
    as_json: options.Json = False,
    tensors: Annotated[bool, options.flag("--tensors", help="List every key and tensor, too.")] = False,
    architectures: Annotated[bool, options.flag("--supported", help="List the architectures instead.")] = False,
) -> None:
    """Show what is in a model file, or what qcli can run."""
    if architectures:
        from qcli.commands.supported import supported

        if model or tensors:
            raise UsageError("--supported is about no file", "leave out the model and --tensors")
        supported(as_json)
    else:
        from qcli.commands.show import show

        show(model, as_json, tensors)


@app.command()
def models(as_json: options.Json = False) -> None:
    """List the models known by name."""
    from qcli.commands.models import models

    models(as_json)


def _version(wanted: bool) -> None:
    if wanted:
        console.out(f"qcli {__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def qcli(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        console.out(context.get_help() + "\n")


def invoke(arguments: list[str]) -> int:
    """Run one command line; its exit code: 0, 1 model or machine, 2 usage, 130 interrupted."""
    try:
        result = app(arguments, prog_name="qcli", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except Exception as problem:
        if os.environ.get("QCLI_DEBUG"):
            raise
        shown = _as_error(problem)
        console.error(shown)
        return shown.exit_code
    except KeyboardInterrupt:
        return interrupt.EXIT_CODE


def main() -> NoReturn:
    """Run the command line that was typed."""
    gc.set_threshold(100_000)  # the first token comes after 0.85 s, not 1.05: importing Numba leaves no garbage
    console.setup()
    warnings.showwarning = lambda message, *_: console.info(str(message))
    bus_error.exit_on_bus_error()
    interrupt.raises()
    console.leave(invoke(sys.argv[1:]))


def _as_error(problem: Exception) -> QcliError:
    if isinstance(problem, QcliError):
        return problem
    if hasattr(problem, "format_message"):  # Typer's own errors; their base class has no stable name
        return _usage_error(problem)
    if isinstance(problem, MemoryError):
        return QcliError("there is not enough memory", "try a smaller --ctx, or a smaller model")
    if isinstance(problem, OSError):
        return _system_error(problem)
    return QcliError(
        f"qcli failed, which it should not: {type(problem).__name__}: {problem}",
        "QCLI_DEBUG=1 before the command shows where; please report it",
    )


def _system_error(problem: OSError) -> QcliError:
    try:
        console.out("")  # fails again if stdout is what cannot be written to: a help text does not come by the console
    except QcliError as again:
        return again
    where = f"{problem.filename}: " if problem.filename else ""
    return QcliError(f"{where}{problem.strerror or problem}", "see whether the disk is there")


def _usage_error(problem: Any) -> QcliError:
    context = getattr(problem, "ctx", None)
    command = context.command_path if context else "qcli"
    what = problem.format_message().splitlines()[0].rstrip(".")
    return UsageError(what, f"{command} --help lists what can be typed")
