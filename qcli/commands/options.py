"""Options that commands share, as annotated types."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache
from inspect import Parameter
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from qcli.commands import completion
from qcli.errors import UsageError
from qcli.runtime.sampling import OPTIONS, Option, SamplingOptions
from qcli.text import think_setting
from qcli.wording import shortened

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE_OR_NAME = "A .gguf file, or a name that `qcli models` lists"
_MODEL = f"{_FILE_OR_NAME} (default: the small model that comes with qcli)."


def flag(*names: str, help: str) -> Any:
    """An option without a value; Typer would have a person read <bool> beside it."""
    return typer.Option(*names, metavar="", help=help)


def _checked_think(value: str | None) -> str | int | None:
    return None if value is None else think_setting.think_setting("--think", value)


GivenModel = Annotated[str | None, typer.Argument(metavar="MODEL", help=_MODEL, autocompletion=completion.models)]
NeededModel = Annotated[
    str | None, typer.Argument(metavar="MODEL", help=f"{_FILE_OR_NAME}.", autocompletion=completion.models)
]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help=_MODEL, autocompletion=completion.models),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system", metavar="TEXT", help='What the model should be or do in every answer, as in "Answer in French."'
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        "-n",
        metavar="N",
        min=1,
        help="End the answer after N tokens, words or parts of words (default: where the model ends it).",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End the answer before this text; may be repeated."),
]
Think = Annotated[
    str | None,
    typer.Option(
        "--think",
        metavar="VALUE",
        help=think_setting.HELP,
        callback=_checked_think,
        autocompletion=completion.one_of(think_setting.WORDS),
    ),
]
StopLoops = Annotated[
    bool | None,
    typer.Option(
        "--stop-loops/--no-stop-loops",
        metavar="",
        help="End an answer that repeats itself (default), or let it go on, as --raw does.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-t",
        metavar="N",
        min=1,
        max=1024,
        help="Threads of the processor (default: one for each physical core).",
    ),
]
Ctx = Annotated[
    int | None,
    typer.Option(
        "--ctx",
        metavar="N",
        min=1,
        help="Tokens that the model can see at a time (default: what it was made for, up to 32,768).",
    ),
]
KvType = Annotated[
    str | None,
    typer.Option(
        "--kv-type", metavar="TYPE", help="How what was read is kept: f16, or q8_0 in half the memory (default: f16)."
    ),
]
Ram = Annotated[
    str | None,
    typer.Option(
        "--ram",
        metavar="SIZE",
        help="Memory to use, as in 24GB; what does not fit is read from the disk as needed (default: what is free).",
    ),
]
Json = Annotated[bool, flag("--json", help="Print the result as JSON, for programs.")]
Quiet = Annotated[bool, flag("--quiet", "-q", help="Print the result alone: no progress, no remarks.")]
Verbose = Annotated[bool, flag("--verbose", "-v", help="Tell all figures, and what was odd about the file.")]

Plain = Annotated[bool, flag("--plain", help="Show the answer as the model writes it, with the signs of Markdown.")]
Continue = Annotated[bool, flag("--continue", "-c", help="Go on with the last conversation.")]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="NAME|NUMBER",
        help="Go on with one of those that `qcli sessions` lists.",
        autocompletion=completion.conversations,
    ),
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Record the conversation under this name.")]
NO_SAVE = "Record nothing, and keep no state that a later start could go on from."
CtxFull = Annotated[
    str,
    typer.Option(
        "--ctx-full",
        metavar="stop|oldest",
        help="When the model can see no more: stop the answer, or forget the oldest turns.",
    ),
]


def check_remarks(quiet: bool, verbose: bool) -> None:
    """Raise UsageError where both no remarks and more of them are asked for."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose cannot both be meant", "leave out one of the two")


def first_names_model(model: str | None, first: str | None, second: str | None) -> tuple[str | None, str | None]:
    """The model and the prompt, where a model may be typed before a prompt. Raises UsageError for what is neither."""
    from qcli.catalog import is_model

    if second is None:
        if first is not None and is_model(first, names=False):
            hint = f'type one, as in: qcli run {first} "Why is the sky blue?" (or `qcli run {first} -` for what is piped in)'
            raise UsageError(f"{first} is a model, and there is no prompt", hint)
        if first is not None and re.fullmatch(r"\S+\.gguf", first, re.IGNORECASE):
            raise UsageError(
                f"{first}: no such file", 'give the path of one that is there, and a prompt: qcli run FILE "Hello"'
            )
        return model, first
    if first is not None and model is None and not is_model(first) and " " in second and not re.search(r"\s", first):
        hint = "`qcli models` lists the names; a prompt that is two texts needs quotes around both"
        raise UsageError(f"no model is called {shortened(first)!r}", hint)
    if first is None or model is not None or not is_model(first):
        raise UsageError(
            f"one word too many: {shortened(second)}",
            "a text of several words needs quotes around it; qcli run --help lists what can be typed",
        )
    return first, second


def named_model(model: str | None, named: str | None) -> str | None:
    """The model, typed with -m or without. Raises UsageError if it is typed twice."""
    if model is not None and named is not None:
        raise UsageError(f"two models are given: {shortened(named)}, and {shortened(model)} with -m", "leave out one")
    return named if model is None else model


def with_sampling(command: Command) -> Command:
    """Give a command the options that qcli.runtime.sampling declares; it gets their values as keywords, **sampling."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *_sampling_parameters()])  # type: ignore[attr-defined]
    return command


@cache
def _sampling_parameters() -> list[Parameter]:
    types = get_type_hints(SamplingOptions)
    return [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[types[name], _typer_option(option)])
        for name, option in OPTIONS.items()
        if option.flags
    ]


def _typer_option(option: Option) -> Any:
    """The Typer option of a sampling option: a value out of its range is refused before a model is loaded."""

    def check(value: float | None) -> float | None:
        return None if value is None else option.check(option.flags[0], value)

    panel = "Sampling (default: what suits the model)"
    return typer.Option(*option.flags, metavar="N", help=option.help, callback=check, rich_help_panel=panel)
