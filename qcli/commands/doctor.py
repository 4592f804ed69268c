"""qcli doctor: what is wrong with this machine, this installation or a model, and what to do about it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcli import console, interrupt
from qcli.commands import completion, options
from qcli.commands.examples import examples
from qcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.table import Table

    from qcli.doctor.finding import Finding, Sections
    from qcli.doctor.report import Found
    from qcli.progress import Progress

_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red"}
_NARROW = 70  # columns of a terminal in which a name stands above what is said


@examples(
    ("qcli doctor", "Checks this machine and qcli itself, in about ten seconds."),
    ("qcli doctor model.gguf", "Checks a model, too: reads all of it."),
    ("qcli doctor --compile", "Compiles everything beforehand: takes some minutes, once."),
    ("qcli doctor --report", "Prints what to paste when you ask for help, without names and paths of yours."),
)
def doctor(
    examined: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model to check, too: a name that `qcli models` lists, or a .gguf file (default: none).",
            autocompletion=completion.models,
        ),
    ] = None,
    all_kernels: Annotated[
        bool, options.flag("--all-kernels", help="Try the kernels of all types, not only those that were compiled.")
    ] = False,
    compile_all: Annotated[
        bool,
        options.flag("--compile", help="First compile the kernels of all types, once, so that no model waits for it."),
    ] = False,
    report: Annotated[
        bool, options.flag("--report", help="Print Markdown to paste into an issue, without names and paths of yours.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Find out what is wrong, and what to do about it.

    Every line says PASS, WARN or FAIL. The exit code is 1 if anything fails.
    """
    if report and as_json:
        raise UsageError("--report and --json cannot be used together", "leave out one of them")
    from qcli.doctor.finding import FAIL, examine
    from qcli.doctor.report import as_json as in_json
    from qcli.doctor.report import as_markdown, count

    model, private = _model(examined)
    bar = console.status("examining")
    with bar, interrupt.ends_all(bar):

        def told(stage: str, fraction: float) -> None:
            bar.update("examining", fraction, stage)

        found = list(examine(_sections(all_kernels, compile_all) | model, told))
    if as_json:
        console.json(in_json(found))
    elif report:
        console.out(as_markdown(found, private))
    else:
        console.table(_drawn(found))
    return 1 if count(found, FAIL) else 0


def _model(examined: str | None) -> tuple[Sections, list[Path]]:
    """The checks of a model, and its folder. Raises QcliError for what is no file."""
    if examined is None:
        return {}, []
    from qcli.catalog.resolve import name_of, resolve
    from qcli.doctor import model
    from qcli.gguf.file import GGUFFile

    path, entry = resolve(examined)
    if not path.is_file():
        GGUFFile.open(path)  # raises what says what it is instead: a folder, a pipe, or nothing
    return {"model": model.checks(path, name_of(path, entry), entry)}, [path.parent]


def _sections(all_kernels: bool, compile_all: bool) -> Sections:
    """What is examined without a model, in the order in which it is told."""
    from qcli.doctor import disk, memory, processor, programs, self_test
    from qcli.doctor.finding import Check

    return {
        "processor": [Check("processor", processor.processor), Check("cores", processor.cores),
                      Check("load", processor.others)],
        "memory": [Check("memory", memory.free), Check("huge pages", memory.huge), Check("memory speed", memory.speed)],
        "disk": [Check("folders", programs.all_folders), Check("disk speed", disk.own_disk)],
        "programs": [Check("versions", programs.versions), Check("settings", programs.settings),
                     Check("terminal", _terminal),
                     *([Check("compiling", programs.compiling)] if compile_all else []),
                     Check("kernel cache", programs.kernels)],
        "self-test": [Check("self-test", partial(self_test.check, all_kernels))],
    }  # fmt: skip


def _terminal(_progress: Progress) -> Iterator[Finding]:
    """What the terminal shows; nothing of a pipe."""
    from qcli.doctor.finding import PASS, WARN, Finding

    encoding, is_person = console.encoding(), console.answers_a_person()
    figures = {"terminal": is_person, "columns": console.screen_columns() if is_person else None, "encoding": encoding}
    where = f"{console.screen_columns()} columns, " if is_person else "none: the output goes into a pipe or a file, "
    if encoding.lower().replace("-", "") == "utf8":
        yield Finding("terminal", PASS, f"{where}{encoding}: all characters can be shown", "", figures)
    else:
        hint = "set the variable LANG to a UTF-8 locale, such as C.UTF-8; on Windows type `chcp 65001`"
        yield Finding("terminal", WARN, f"{where}{encoding}: other scripts are shown as ?", hint, figures)


def _drawn(found: Found) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from qcli.doctor.report import verdict

    parts: list[RenderableType] = []
    width = max(len(finding.name) for _, finding in found)
    for title in dict.fromkeys(title for title, _ in found):
        parts += [Text(title, style="bold"), _table([finding for its, finding in found if its == title], width), ""]
    told = "" if all(finding.status == "PASS" for _, finding in found) else "; → tells what to do"
    return Group(*parts, Text(f"{verdict(found)}{told}", style="bold"))


def _table(findings: list[Finding], width: int) -> Table:
    """width: of the names of all sections."""
    from rich.table import Table
    from rich.text import Text

    narrow = console.answers_a_person() and console.screen_columns() < _NARROW
    table = Table.grid(padding=(0, 2, 0, 0))
    for least in (None, *(() if narrow else (width,)), None):
        table.add_column(min_width=least, overflow="fold")
    for finding in findings:
        status, said = Text(finding.status, style=_STYLES[finding.status]), Text(console.clean(finding.said))
        if finding.hint:
            said.append(f"\n→ {console.clean(finding.hint)}", style="bold")
        name = Text(f"{finding.name}: " if narrow else finding.name, style="dim")
        table.add_row(status, *([Text.assemble(name, said)] if narrow else [name, said]))
    return table
