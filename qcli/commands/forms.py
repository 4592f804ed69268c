"""The options that say which form an answer is to have, and what is shown of one that is not whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qcli import console
from qcli.commands import options
from qcli.errors import QcliError, UsageError
from qcli.wording import counted

if TYPE_CHECKING:
    from qcli.constraints.constraint import Constraint
    from qcli.runtime.stats import Stats

Schema = Annotated[
    str | None, typer.Option("--schema", metavar="FILE|JSON", help="Answer in JSON, as this JSON Schema describes it.")
]
Regex = Annotated[
    str | None,
    typer.Option("--regex", metavar="REGEX", help="Answer with a text that matches this regular expression."),
]
Choices = Annotated[
    list[str] | None,
    typer.Option(
        "--choice", metavar="TEXT", help="Answer with exactly one of these texts, as in --choice yes --choice no."
    ),
]
Grammar = Annotated[
    str | None,
    typer.Option(
        "--grammar", metavar="FILE", help="Answer with a text that this grammar allows (a file in Lark or GBNF)."
    ),
]
Stream = Annotated[
    bool,
    options.flag("--stream", help="Print such an answer word by word (default: in a pipe, when it is complete)."),
]
Partial = Annotated[bool, options.flag("--partial", help="Print such an answer even if it is not complete.")]
LogProbs = Annotated[
    int | None,
    typer.Option(
        "--logprobs",
        metavar="N",
        min=0,
        max=20,
        help="With --json: how likely each token (about three quarters of a word) was, and the N most likely ones in its place.",
    ),
]


@dataclass(frozen=True)
class Form:
    """What was typed of it."""

    constraint: Constraint | None = None
    stream: bool = False
    partial: bool = False

    @classmethod
    def typed(
        cls,
        schema: str | None,
        regex: str | None,
        choices: Sequence[str] | None,
        grammar: str | None,
        stream: bool,
        partial: bool,
    ) -> Form:
        """The form that is meant. Raises UsageError for one that is wrong, or too large, or not the only one."""
        if (schema, regex, choices or None, grammar) == (None,) * 4:
            if stream or partial:
                flag = "--stream" if stream else "--partial"
                raise UsageError(
                    f"{flag} needs --schema, --regex, --choice or --grammar", f"add one of them, or leave out {flag}"
                )
            return cls()
        from pathlib import Path

        from qcli.constraints.constraint import constraint

        file = None if grammar is None else Path(grammar)
        return cls(constraint(schema, regex, choices or None, file), stream, partial)

    @property
    def is_shown_whole(self) -> bool:
        """Whether an answer is shown once it is whole: into a pipe."""
        return self.constraint is not None and not self.stream and not console.answers_a_person()

    @property
    def hides_what_is_cut(self) -> bool:
        """Whether an answer is shown only if it is whole."""
        return self.constraint is not None and not self.partial

    def as_json(self, text: str, stats: Stats) -> dict[str, Any]:
        """What there is to say of an answer besides its text: whether it has the form, and what JSON it is."""
        if self.constraint is None:
            return {}
        value = {"value": json.loads(text) if stats.fits else None} if self.constraint.is_json else {}
        return {**value, "fits": bool(stats.fits)}

    def lacks(self, stats: Stats, max_tokens: int | None) -> QcliError | None:
        """What an answer lacks to have its form."""
        if self.constraint is None or stats.fits:
            return None
        return QcliError(*self._why_not_whole(stats, max_tokens))

    def _why_not_whole(self, stats: Stats, max_tokens: int | None) -> tuple[str, str]:
        message = "the answer is not complete: it"
        seen = "; --partial prints what there is of it" if self.is_shown_whole and not self.partial else ""
        if stats.finish_reason == "stop":
            return f"{message} stopped at a --stop text", "leave out --stop"
        if stats.finish_reason == "loop":
            return f"{message} repeats itself", f"try --repeat-penalty 1.1, or ask in other words{seen}"
        if max_tokens is not None and stats.new_tokens >= max_tokens:
            return f"{message} stopped after {counted(max_tokens, 'token')}", f"allow more with --max-tokens{seen}"
        return f"{message} stopped because the context is full", f"give a larger one with --ctx{seen}"


ANY: Final = Form()
