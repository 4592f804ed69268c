"""The command line: it registers the commands and is the one place where errors end."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.main import get_command

from qcli import __version__, console, interrupt
from qcli.commands.examples import examples
from qcli.commands.system_errors import system_error
from qcli.commands.usage import Command, Group, usage_error
from qcli.errors import QcliError
from qcli.host import address_space, bus_error

# In the order that --help lists them: each is a function of its own name, in a module of that name in qcli/commands/.
COMMANDS = (
    "chat run batch serve sessions models pull rm plan show config cache"
    " doctor tune bench experts quantize imatrix perplexity"
).split()
_OTHER_NAMES = {"list": "models"}  # as some would type it
_BOXES: Final = "rich" if console.answers_a_person() else None  # which are for people


def _version(wanted: bool) -> None:
    if wanted:
        console.out(f"qcli {__version__}\n")
        raise typer.Exit


@examples(
    ("qcli chat", "Talks with the small model that comes with qcli."),
    ("qcli models", "Lists models that can do more, and how to get them."),
)
def qcli(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Show the help if no command was typed."""
    if context.invoked_subcommand is None:
        console.out(context.get_help() + "\n")


@cache
def program(typed: str | None = None, described: bool = True) -> Any:
    """The commands and their options, as the library reads a line with them.

    typed: the command whose options are there, by default all, which takes 60 ms; described: whether others say what they do.
    """
    app = typer.Typer(
        name="qcli",
        cls=Group,
        help="Talk with AI language models that run on your own computer: no account, no graphics card.",
        pretty_exceptions_enable=False,
        rich_markup_mode=_BOXES,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(qcli)
    for name in (*COMMANDS, *_OTHER_NAMES):
        read = typed is None or name == typed
        does = _function(name) if read else _unread(_function(name).__doc__ if described else None)
        app.command(name, cls=Command, hidden=name in _OTHER_NAMES)(does)
    return get_command(app)


def _function(name: str) -> Callable[..., Any]:
    """What a command does; only now its module is imported."""
    name = _OTHER_NAMES.get(name, name)
    function: Callable[..., Any] = getattr(import_module(f"qcli.commands.{name}"), name)
    return function


def _unread(described: str | None) -> Callable[[], None]:
    """What stands for a command that is not typed."""

    def unread() -> None:
        raise AssertionError

    unread.__doc__ = described
    return unread


def _program_for(arguments: list[str]) -> Any:
    """The program for one line, whose options are those that hints may name."""
    if "_QCLI_COMPLETE" in os.environ:  # a shell asks what could be typed
        return program()
    typed = next((word for word in arguments if word in COMMANDS or word in _OTHER_NAMES), "")
    found = program(typed, typed not in arguments[:1])
    command = found.commands.get(typed)
    console.hint_at(
        {name for option in command.params for name in (*option.opts, *option.secondary_opts)} if command else None
    )
    return found


def invoke(arguments: list[str]) -> int:
    """Run one command line; its exit code: 0, 1 model or machine, 2 usage, 130 interrupted."""
    try:
        result = _program_for(arguments)(arguments, prog_name="qcli", standalone_mode=False)
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
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here uses its threads, and they take 40 ms to start
    gc.set_threshold(100_000)  # the first token comes after 0.85 s, not 1.05: importing Numba leaves no garbage
    console.setup()
    _hear_warnings()
    bus_error.exit_on_bus_error()
    interrupt.raises()
    console.leave(invoke(sys.argv[1:]))


def _hear_warnings() -> None:
    """Have warnings be remarks to the user: PYTHONWARNINGS, with which other programs are tested, makes no errors of them."""
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):  # for programmers
        warnings.simplefilter("ignore", kind)
    warnings.showwarning = lambda message, *_: console.info(str(message))


def _as_error(problem: Exception) -> QcliError:
    if isinstance(problem, QcliError):
        return problem
    if hasattr(problem, "format_message"):  # Typer's own errors; their base class has no stable name
        return usage_error(problem)
    if isinstance(problem, MemoryError | OSError | ImportError) and (told := address_space.shortage()):
        return told
    if isinstance(problem, MemoryError):
        return QcliError(
            "there is not enough memory", ("close other programs", "try a smaller --ctx", "try a smaller model")
        )
    if isinstance(problem, OSError):
        return system_error(problem)
    if isinstance(problem, RuntimeError) and "start new thread" in str(problem):
        return QcliError("the system has no more threads for this user", "end other programs, or raise `ulimit -u`")
    return QcliError(
        f"something went wrong inside qcli: {type(problem).__name__}: {problem}",
        "please report this as a bug; QCLI_DEBUG=1 before the command shows where it happened",
    )
