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
from qcli.drafts import setting as drafts
from qcli.errors import UsageError
from qcli.runtime.sampling import OPTIONS, Option, SamplingOptions
from qcli.text import think_setting
from qcli.wording import shortened

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE_OR_NAME = "A name that `qcli models` lists, or a .gguf file"
_MODEL = f"{_FILE_OR_NAME} (default: the small model that comes with qcli)."


def flag(*names: str, help: str) -> Any:
    """An option without a value; Typer would have a person read <bool> beside it."""
    return typer.Option(*names, metavar="", help=help)


def _checked_draft(value: str | None) -> str | int | None:
    return None if value is None else drafts.draft_setting("--draft", value)


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
        "--system", metavar="TEXT", help='Instructions for every answer, such as "Answer in French." (default: none).'
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        "-n",
        metavar="N",
        min=1,
        help="Stop the answer after N tokens; a token is about three quarters of a word (default: the model decides).",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", metavar="TEXT", help="Stop the answer where this text would come. Can be given several times."
    ),
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
        help="Stop an answer that repeats itself, or let it go on (default: stop it).",
    ),
]
THREADS = "Threads: how much of the processor to use (default: one for each core, or fewer beside busy programs)."
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-t",
        metavar="N",
        min=1,
        max=1024,
        help=THREADS,
    ),
]
Ctx = Annotated[
    int | None,
    typer.Option(
        "--ctx",
        metavar="N",
        min=1,
        help="Context: how much text the model can see at a time, in tokens (default: what it was made for, up to 32,768).",
    ),
]
KvType = Annotated[
    str | None,
    typer.Option(
        "--kv-type",
        metavar="TYPE",
        help="How to remember the conversation: f16; q8_0, half the memory; or f32, twice as much (default: f16).",
    ),
]
Ram = Annotated[
    str | None,
    typer.Option(
        "--ram",
        metavar="SIZE",
        help="Memory to use, such as 24GB. A larger model still runs, but slower, from the disk (default: what is free).",
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(
        "--draft",
        metavar="|".join((*drafts.WORDS, "N")),
        help=drafts.HELP,
        callback=_checked_draft,
        autocompletion=completion.one_of(drafts.WORDS),
    ),
]
DraftModel = Annotated[
    str | None,
    typer.Option(
        "--draft-model",
        metavar="FILE",
        help="Guess by the block for multi-token prediction in this file, if the model has none of its own "
        "(default: a file beside the model whose name begins with mtp-).",
    ),
]
MOST_PARALLEL = 64
Parallel = Annotated[
    int,
    typer.Option(
        "--parallel",
        metavar="N",
        min=1,
        max=MOST_PARALLEL,
        show_default=False,
        help="Answer up to N questions at a time: more in a minute, each slower; the answers are the same "
        "(default: 8 in a batch, 4 in a server, fewer where memory is short).",
    ),
]
Json = Annotated[bool, flag("--json", help="Print the result as JSON, for programs.")]
Quiet = Annotated[bool, flag("--quiet", "-q", help="Print only the result: no progress, no remarks.")]
Verbose = Annotated[
    bool,
    flag("--verbose", "-v", help="Show more: all speed and memory figures, and what is unusual about the model file."),
]

Plain = Annotated[bool, flag("--plain", help="Show the answer exactly as the model writes it, without formatting.")]
Continue = Annotated[bool, flag("--continue", "-c", help="Go on with your last conversation.")]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="NAME|NUMBER",
        help="Go on with a conversation that `qcli sessions` lists.",
        autocompletion=completion.conversations,
    ),
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Save the conversation under this name.")]
NO_SAVE = "Leave nothing of this conversation on the disk."
CtxFull = Annotated[
    str,
    typer.Option(
        "--ctx-full",
        metavar="stop|oldest",
        show_default=False,
        help="When the context is full: stop the answer, or forget the oldest messages (default: stop).",
    ),
]


def check_remarks(quiet: bool, verbose: bool) -> None:
    """Raise UsageError where both no remarks and more of them are asked for."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose cannot be used together", "leave out one of them")


def first_names_model(model: str | None, first: str | None, second: str | None) -> tuple[str | None, str | None]:
    """The model and the prompt, where a model may be typed before a prompt. Raises UsageError for what is neither."""
    from qcli.catalog.resolve import is_model

    if second is None:
        if first is not None and is_model(first, names=False):
            hint = f'type one, as in: qcli run {first} "Why is the sky blue?" (or `qcli run {first} -` for what is piped in)'
            raise UsageError(f"{first} is a model, and there is no question for it", hint)
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
            "put quotes around a text of several words; qcli run --help lists what can be typed",
        )
    return first, second


def named_model(model: str | None, named: str | None) -> str | None:
    """The model, typed with -m or without. Raises UsageError if it is typed twice."""
    if model is not None and named is not None:
        raise UsageError(
            f"two models are named: {shortened(named)}, and {shortened(model)} with -m", "leave out one of them"
        )
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

    panel = "Sampling of words (default: what suits the model)"
    return typer.Option(*option.flags, metavar="N", help=option.help, callback=check, rich_help_panel=panel)
