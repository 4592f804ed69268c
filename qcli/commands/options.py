"""Options that commands share, as annotated types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from qcli.llm import Options

_MODEL = "A GGUF file, or a name that `qcli models` lists."


def flag(*names: str, help: str) -> Any:
    """An option without a value; Typer would have a person read <bool> beside it."""
    return typer.Option(*names, metavar="", help=help)


GivenModel = Annotated[str | None, typer.Argument(metavar="MODEL", help=_MODEL)]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help=_MODEL),
]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system message.")]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", "-n", metavar="N", min=1, help="Stop after so many tokens; else when the model ends."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End the answer before this text; may be repeated."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", "-t", metavar="N", min=1, max=1024, help="One a physical core, unless told."),
]
Ctx = Annotated[int | None, typer.Option("--ctx", metavar="N", min=1, help="Room for prompts and answers, in tokens.")]
KvType = Annotated[
    str | None,
    typer.Option("--kv-type", metavar="TYPE", help="Keep keys and values as f16, or as q8_0 in half the room."),
]
Ram = Annotated[
    str | None,
    typer.Option(
        "--ram", metavar="SIZE", help="Use so much memory, as in 24GB, reading experts as needed; else what is free."
    ),
]
Json = Annotated[bool, flag("--json", help="Print one JSON value.")]
Quiet = Annotated[bool, flag("--quiet", "-q", help="Print the result only: no progress, no remarks.")]


def _sampling(*names: str, help: str, min: float | None = None, max: float | None = None) -> Any:
    panel = "Sampling (default: what suits the model)"
    return typer.Option(*names, metavar="N", help=help, min=min, max=max, rich_help_panel=panel)


Temperature = Annotated[
    float | None,
    _sampling("--temperature", "--temp", min=0, help="Higher: more daring; 0: always the likeliest token."),
]
TopK = Annotated[int | None, _sampling("--top-k", min=0, help="Draw from the k likeliest; 0: from all.")]
TopP = Annotated[float | None, _sampling("--top-p", min=0, max=1, help="Draw from the likeliest that hold this share.")]
MinP = Annotated[
    float | None, _sampling("--min-p", min=0, max=1, help="Draw from those with this share of the best's.")
]
RepeatPenalty = Annotated[float | None, _sampling("--repeat-penalty", help="Above 1: fewer repeated tokens.")]
FrequencyPenalty = Annotated[
    float | None, _sampling("--frequency-penalty", help="Taken off a logit each time its token occurs.")
]
PresencePenalty = Annotated[
    float | None, _sampling("--presence-penalty", help="Taken off a logit once its token has occurred.")
]
Seed = Annotated[int | None, _sampling("--seed", min=0, help="The same seed draws the same text.")]


def of_answer(given: Mapping[str, Any]) -> Options:
    """Of all that a command was given, what LLM.generate and LLM.chat take."""
    names = (
        *("max_tokens", "stop", "temperature", "top_k", "top_p", "min_p"),
        *("repeat_penalty", "frequency_penalty", "presence_penalty", "seed"),
    )
    chosen: Any = {name: given[name] for name in names if given[name] is not None}
    return chosen  # type: ignore[no-any-return]
