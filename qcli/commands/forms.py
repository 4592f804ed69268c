"""The options that say which form an answer is to have, and what is shown of one that is not whole."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console
from qcli.commands.answer import Screen, discard, show
from qcli.errors import QcliError, UsageError
from qcli.wording import counted

if TYPE_CHECKING:
    from qcli.constraints.constraint import Constraint
    from qcli.runtime.stats import Stats

_PANEL = "Form of the answer"


def _option(*names: str, metavar: str, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=_PANEL)


Schema = Annotated[
    str | None, _option("--schema", metavar="FILE|JSON", help="Answer with JSON that fits this JSON Schema.")
]
Regex = Annotated[
    str | None, _option("--regex", metavar="REGEX", help="Answer with a text that this regular expression describes.")
]
Choices = Annotated[
    list[str] | None, _option("--choice", metavar="TEXT", help="Answer with one of these texts; give each of them.")
]
Grammar = Annotated[
    str | None, _option("--grammar", metavar="FILE", help="Answer with a text that this grammar allows: Lark, or GBNF.")
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        metavar="",
        help="Print such an answer as it comes (default: into a pipe, once it is whole).",
        rich_help_panel=_PANEL,
    ),
]
Partial = Annotated[
    bool,
    typer.Option("--partial", metavar="", help="Print such an answer even if it was cut.", rich_help_panel=_PANEL),
]
LogProbs = Annotated[
    int | None,
    typer.Option(
        "--logprobs",
        metavar="N",
        min=0,
        max=20,
        help="With --json: how likely each token was, and the N likeliest in its place.",
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
                    f"{flag} is about answers of a form, and there is none", "give --schema, or leave it out"
                )
            return cls()
        from pathlib import Path

        from qcli.constraints.constraint import constraint

        file = None if grammar is None else Path(grammar)
        return cls(constraint(schema, regex, choices or None, file), stream, partial)

    def show(
        self,
        pieces: Generator[str, None, None],
        bar: console.status,
        plain: bool,
        aside: Callable[[str], None],
        stats: Callable[[], Stats],
        called: Callable[[], bool] = lambda: False,
    ) -> tuple[str, bool]:
        """Show an answer as `show` does, into a pipe once it is whole; the answer, and whether Ctrl-C ended it.

        called: whether it has called a tool, so that it may have no text.
        """
        screen = Screen(plain or self.constraint is not None)
        if self.constraint is None or self.stream or console.answers_a_person():
            shown, interrupted = show(pieces, bar, screen, aside)
        else:
            shown, interrupted = show(pieces, bar, discard, aside)
            if not self.prints(stats()):
                return shown, interrupted
            screen(shown)
        if shown or not called():
            screen.end_line(shown)
        return shown, interrupted

    def prints(self, stats: Stats) -> bool:
        """Whether an answer is printed of which these are told, rather than that it is not whole."""
        return self.constraint is None or self.partial or bool(stats.fits)

    def lacks(self, stats: Stats, max_tokens: int | None) -> QcliError | None:
        """What an answer lacks to have its form."""
        if self.constraint is None or stats.fits:
            return None
        if stats.finish_reason == "stop":
            return QcliError("the answer is not whole: it was cut at a --stop text", "leave out --stop")
        if max_tokens is not None and stats.new_tokens >= max_tokens:
            more, where = "--max-tokens", f"after {counted(max_tokens, 'token')}"
        else:
            more, where = "--ctx", "where the context is full"
        hint = f"give more with {more}" + ("" if self.partial else "; --partial prints what there is")
        return QcliError(f"the answer is not whole: it was cut {where}", hint)
