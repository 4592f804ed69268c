"""qcli models: the models that are known or found, which of them are on this machine, and names of the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from qcli import console, interrupt
from qcli.commands import completion, options
from qcli.commands.actions import unknown
from qcli.commands.examples import examples
from qcli.errors import UsageError
from qcli.wording import counted, size

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from qcli.commands.model_rows import Row

_ACTIONS = {  # how many words follow it, and how it is typed
    "list": (0, "list"),
    "add": (1, "add FILE [--name NAME]"),
    "alias": (2, "alias NAME NEW"),
}
_MOST_LISTED = 400
_TOGETHER = 20  # characters of a fact whose words stay in one line
_STAYS = "\N{NO-BREAK SPACE}"
_HINT = "`qcli run -m NAME` runs one that is here; `qcli rm NAME` deletes one"


@examples(
    ("qcli models", "Lists models with their sizes, and which are on this machine."),
    ("qcli models add ~/model.gguf --name mine", "Gives a file of yours the name mine."),
)
def models(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            show_default=False,
            help="list, add (name a file of yours) or alias (add another name) (default: list).",
            autocompletion=completion.one_of(_ACTIONS),
        ),
    ] = "list",
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORD",
            help="After add: the file. After alias: a model, and its new name.",
            autocompletion=completion.models,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="With add: its name (default: that of the file)."),
    ] = None,
    updates: Annotated[
        bool, options.flag("--updates", help="See on huggingface.co whether downloaded models have newer versions.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List the models on this machine, and others to download.

    You can use the names in `qcli chat NAME`, those of models that Ollama, LM Studio, llama.cpp and others downloaded, too.
    Names of your own are kept in models.toml, in the folder that `qcli config` shows: [NAME], and below it path = "FILE".
    """
    given = words or []
    _check(action, given, name, as_json)
    if updates and action != "list":
        raise UsageError(f"--updates is not for {action}", "leave it out")
    if action == "list":
        (_list_updates if updates else _list)(as_json)
        return
    from qcli.commands import own_names

    if action == "add":
        own_names.add(given[0], name)
    else:
        own_names.alias(*given)


def _check(action: str, words: list[str], name: str | None, as_json: bool) -> None:
    """Raise UsageError if these words and options cannot be meant together."""
    if action not in _ACTIONS:
        deletes = action in ("rm", "remove", "delete")
        raise unknown("models", action, _ACTIONS, "type `qcli rm NAME`" if deletes else "")
    count, line = _ACTIONS[action]
    if len(words) != count:
        raise UsageError(f"models {action} cannot have {counted(len(words), 'word')}", f"type `qcli models {line}`")
    if name is not None and action != "add":
        raise UsageError(f"--name is not for {action}", f"leave it out, or type `qcli models {_ACTIONS['add'][1]}`")
    if as_json and action != "list":
        raise UsageError(f"--json is not for {action}", "leave it out")


def _list(as_json: bool) -> None:
    from qcli.commands.model_rows import all_rows

    with console.status("looking"):
        rows, remarks = all_rows()
    if as_json:
        console.json([row.as_json() for row in rows])
    else:
        console.table(_drawn(rows[:_MOST_LISTED]))
        remarks += [f"{len(rows) - _MOST_LISTED:,} more are listed by --json"] if len(rows) > _MOST_LISTED else []
    for remark in remarks:
        console.info(remark)


def _list_updates(as_json: bool) -> None:
    from qcli.commands.model_updates import updates
    from qcli.commands.tables import facts

    bar = console.status("asking")
    with bar, interrupt.ends_all(bar):
        found = updates(bar.update)
    if as_json:
        console.json([vars(one) for one in found])
    elif found:
        console.table(facts((one.name, one.told) for one in found))
    else:
        console.info("no model was downloaded from huggingface.co")


def _drawn(rows: list[Row]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    here, elsewhere = [row for row in rows if row.path], [row for row in rows if not row.path]
    groups = (
        _Group(("on this machine", "size", "architecture", "quant", "fit", "last used", "where"), map(_of_here, here)),
        _Group(("known", "size", "fit", "where", ""), map(_of_elsewhere, elsewhere)),
    )
    parts: list[RenderableType] = []
    for group in groups:
        parts += [group, Text("")] if group.rows else []
    return Group(*parts, Text(_HINT, style="dim"))


class _Group:
    """Models as a table; where that is too wide, the name of each above all else, which is wrapped."""

    def __init__(self, headings: Iterable[str], rows: Iterable[list[str]]) -> None:
        self.rows = [[console.clean(cell) for cell in row] for row in rows]
        self._headings = [*headings]
        self._table = _table(self._headings, self.rows)

    def __rich_measure__(self, screen: Console, options: ConsoleOptions) -> Measurement:
        return screen.measure(self._table, options=options)

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        width = screen.measure(self._table, options=options.update(width=10_000)).maximum
        yield self._table if width <= options.max_width else _blocks(self._headings, self.rows, options.max_width)


def _of_here(row: Row) -> list[str]:
    where = {"cached": "hub cache"}.get(row.where, row.where)
    n_bytes = size(row.bytes) if row.bytes else ""
    return [row.name, n_bytes, row.architecture, row.quant, row.fit, _day(row.last_used), where]


def _of_elsewhere(row: Row) -> list[str]:
    described = row.entry.description if row.entry else ""
    return [row.name, size(row.bytes) if row.bytes else "", row.fit, row.where, described]


def _table(headings: Iterable[str], rows: list[list[str]]) -> Table:
    from rich.text import Text

    from qcli.commands.tables import new_table

    table = new_table()
    for heading in headings:
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=True)
    for first, *cells in rows:
        table.add_row(Text(first, style="bold"), *map(Text, cells))
    return table


def _blocks(headings: list[str], rows: Iterable[list[str]], columns: int) -> Text:
    import textwrap

    from rich.text import Text

    drawn = []
    for first, *cells in rows:
        named = zip(headings[1:], cells, strict=True)
        told = [f"used {cell}" if heading == "last used" else cell for heading, cell in named if cell]
        joined = " · ".join(cell if len(cell) > _TOGETHER else cell.replace(" ", _STAYS) for cell in told)
        lines = textwrap.wrap(joined, max(columns, _TOGETHER), initial_indent="  ", subsequent_indent="  ")
        below = "".join(f"\n{line}" for line in lines).replace(_STAYS, " ")
        drawn.append(Text.assemble((first, "bold"), (below, "dim")))
    return Text("\n", overflow="fold").join(drawn)


def _day(seconds: float | None) -> str:
    """When that was, in days."""
    from datetime import date, datetime

    if seconds is None:
        return ""
    day = datetime.fromtimestamp(seconds).date()
    days = (date.today() - day).days
    return {0: "today", 1: "yesterday"}.get(days, f"{days} days ago" if 0 < days < 30 else str(day))
