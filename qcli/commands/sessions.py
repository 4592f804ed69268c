"""qcli sessions: the conversations that are kept, to list, look at, rename, delete and take elsewhere."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console
from qcli.commands import completion, options
from qcli.commands.actions import unknown
from qcli.commands.consent import is_agreed
from qcli.commands.examples import examples
from qcli.commands.tables import facts, new_table
from qcli.errors import UsageError
from qcli.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from qcli.sessions.library import Library, Summary
    from qcli.sessions.session import Session

_ACTIONS = {  # how many names it may have, and how it is typed
    "list": (0, 0, "list"),
    "show": (0, 1, "show [NAME]"),
    "rename": (2, 2, "rename NAME NEW"),
    "rm": (1, 1000, "rm NAME..."),
    "export": (0, 1, "export [NAME] [-o FILE]"),
}
_WITH_JSON = ("list", "show", "export")
_NAMED = 8  # conversations that a question names


@examples(
    ("qcli sessions", "Lists your saved conversations, the newest first."),
    ("qcli sessions export 1 -o talk.md", "Writes the newest one to a text file."),
)
def sessions(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION", show_default=False, help="list, show, rename, rm (delete) or export (default: list)."
        ),
    ] = "list",
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Its name, or its number in the list (default: the newest).",
            autocompletion=completion.conversations,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="With export: write to FILE (default: show it)."),
    ] = None,
    force: Annotated[bool, options.flag("--force", "-f", help="Replace FILE if it exists.")] = False,
    yes: Annotated[bool, options.flag("--yes", "-y", help="With rm: delete without asking (default: ask).")] = False,
    as_json: options.Json = False,
) -> None:
    """List, show, rename, delete or export your conversations.

    `qcli chat --resume NAME` goes on with one. export writes Markdown, or everything with --json.
    """
    given = names or []
    _check(action, given, output, as_json)
    _check_flags(action, output, force, yes)
    from qcli.sessions.library import Library

    library = Library()
    if action == "list":
        _list(library, as_json)
    elif action == "rename":
        summary = library.find(given[0])
        library.rename(summary, given[1])
        console.info(f"{summary.called} is now called {given[1].strip()}")
    elif action == "rm":
        _remove(library, [*dict.fromkeys(library.find(name) for name in given)], yes, given)
    else:
        summary = library.find(given[0]) if given else library.last()
        _read(library.read(summary), summary, action, output, force, as_json)


def _check(action: str, names: list[str], output: str | None, as_json: bool) -> None:
    """Raise UsageError if these words and options cannot be meant together."""
    if action not in _ACTIONS:
        raise unknown("sessions", action, _ACTIONS)
    least, most, line = _ACTIONS[action]
    if not least <= len(names) <= most:
        raise UsageError(f"{action} cannot have {counted(len(names), 'name')}", f"type `qcli sessions {line}`")
    if as_json and action not in _WITH_JSON:
        raise UsageError(f"--json is not for {action}", "leave it out")
    if output is not None and action != "export":
        raise UsageError(
            f"--output is not for {action}", f"leave it out, or type `qcli sessions {_ACTIONS['export'][2]}`"
        )


def _check_flags(action: str, output: str | None, force: bool, yes: bool) -> None:
    if force and output is None:
        raise UsageError("--force is only for use with export and -o FILE", "leave it out")
    if yes and action != "rm":
        raise UsageError(f"--yes is not for {action}", "leave it out")


def _remove(library: Library, summaries: list[Summary], yes: bool, typed: list[str]) -> None:
    """Delete conversations, if that is wanted. Raises what `Library.remove` does, and QcliError where nobody can be asked."""
    named = [f"{summary.called} ({counted(summary.messages, 'message')})" for summary in summaries[:_NAMED]]
    named += [f"{len(summaries) - _NAMED} more"] if len(summaries) > _NAMED else []
    which = named[0] if len(summaries) == 1 else f"{len(summaries)} conversations: {', '.join(named)}"
    line = f"qcli sessions rm {' '.join(map(shlex.quote, typed))}"
    if is_agreed(f"delete {which}? it cannot be undone", yes, line):
        for summary in summaries:
            library.remove(summary)
            console.info(f"deleted: {summary.called}")
    else:
        console.info("nothing was deleted")


def _list(library: Library, as_json: bool) -> None:
    summaries = library.list()
    if as_json:
        console.json([_as_json(summary) for summary in summaries])
    elif summaries:
        console.table(_listed(summaries))
    else:
        console.info("there is no saved conversation yet: `qcli chat` begins one")


def _as_json(summary: Summary) -> dict[str, Any]:
    return {**vars(summary), "path": str(summary.path)}


def _listed(summaries: list[Summary]) -> Table:
    """A line for each, in which texts are cut to what the terminal has room for."""
    from rich.text import Text

    from qcli.sessions.markdown import moment

    table = new_table()
    table.add_column("", justify="right", no_wrap=True)
    for heading, most in (("name", 16), ("begins", 40), ("model", 12)):
        table.add_column(heading, max_width=most)
    for heading, least in (("messages", 8), ("changed", 16)):
        table.add_column(heading, justify="right", no_wrap=True, min_width=least)
    for summary in summaries:
        shown = (summary.name, summary.title, summary.model)
        texts = (Text(console.clean(text), no_wrap=True, overflow="ellipsis") for text in shown)
        table.add_row(str(summary.number), *texts, f"{summary.messages:,}", moment(summary.changed))
    return table


def _read(session: Session, summary: Summary, action: str, output: str | None, force: bool, as_json: bool) -> None:
    if output is not None:
        _write(summary, session, output, force, as_json)
    elif as_json:
        console.json(_whole(summary, session))
    elif action == "show":
        _show(summary, session)
    else:
        from qcli.sessions.markdown import markdown

        console.out(markdown(session))


def _show(summary: Summary, session: Session) -> None:
    from rich.text import Text

    from qcli.sessions.calls import told
    from qcli.sessions.markdown import moment

    branch = session.branch()
    console.table(Text(console.clean(session.name or session.title or summary.id), style="bold"))
    others = len(session.messages) - len(branch)
    counts = f"{len(branch)}, and {others} in other branches" if others else str(len(branch))
    console.table(facts([("model", session.model), ("changed", moment(session.changed)), ("messages", counts)]))
    for message in branch:
        console.table(Text(f"\n{message.role}", style="dim"))
        console.out(told(message) + "\n")


def _write(summary: Summary, session: Session, output: str, force: bool, as_json: bool) -> None:
    import json

    from qcli.host.atomic_files import AtomicFiles
    from qcli.host.folders import expanded
    from qcli.sessions.markdown import markdown

    text = json.dumps(_whole(summary, session), indent=2) + "\n" if as_json else markdown(session)
    to = expanded(output)
    with AtomicFiles([to], force, reads=[summary.path]) as files:
        files.open(to).write(text.encode("utf-8", "replace"))
    console.info(f"{summary.called} is written to {to}")


def _whole(summary: Summary, session: Session) -> dict[str, Any]:
    from qcli.sessions.export import whole

    facts = {name: value for name, value in _as_json(summary).items() if name not in ("number", "messages")}
    return whole(session, **facts)
