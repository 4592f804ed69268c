"""qcli cache: what qcli keeps to save time, all of which may be lost, with its size; and how to be rid of it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.commands.tables import new_table
from qcli.errors import OutputError, UsageError
from qcli.host.file_sizes import total_size
from qcli.host.named_files import reason
from qcli.wording import counted, shortened, size

if TYPE_CHECKING:
    from rich.console import RenderableType

# Of each kind its files, below a folder for caches, where a user may have put others.
_KINDS = {
    "kernels": re.compile(r"kernels/[0-9a-f]{16}/[^/]+"),
    "states": re.compile(r"states/[0-9a-f]{32}/[^/]+"),
    "usage": re.compile(r"usage/[^/]+-[0-9a-f]{16}\.npz(-[^/]+\.part)?"),
}
_COUNTED = {"kernels": "*.o", "states": "*.state", "usage": "*.npz"}
_HINT = f"`qcli cache clear` deletes all, `qcli cache clear {'|'.join(_KINDS)}` one kind; it is made again when needed"


@dataclass(frozen=True)
class Kept:
    """What is kept of one kind."""

    name: str
    folders: list[Path]
    files: list[Path]

    @property
    def n_bytes(self) -> int:
        """Bytes of the files that are there."""
        return total_size(*self.files)

    @property
    def counted(self) -> int:
        """Kernels, states, or models whose use of experts is known."""
        return sum(path.match(_COUNTED[self.name]) for path in self.files)


@examples(
    ("qcli cache", "Shows what is kept, and how much space it takes."),
    ("qcli cache clear states", "Frees space; saved conversations stay, and take longer to open once."),
)
def cache(
    action: Annotated[
        str, typer.Argument(metavar="ACTION", show_default=False, help="show or clear (default: show).")
    ] = "show",
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND",
            help="kernels (of a fast start), states (of conversations), usage (of large models) (default: all).",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show or delete what qcli keeps to save time.

    What is deleted is made again when it is needed. Your conversations and models are not part of it.
    """
    _check(action, kinds or [])
    found = [kept(name) for name in _KINDS if name in (kinds or _KINDS)]
    if as_json:
        console.json([_as_dict(one) for one in found])
    elif action == "show":
        console.table(_drawn(found))
    if action == "clear":
        _clear(found, as_json)


def _check(action: str, kinds: list[str]) -> None:
    if action not in ("show", "clear"):
        hint = f"`qcli cache clear {action}`, or `qcli cache show {action}`" if action in _KINDS else _HINT
        raise UsageError(f'there is no "qcli cache {shortened(action)}"', hint)
    for kind in kinds:
        if kind not in _KINDS:
            raise UsageError(f'the cache has no "{shortened(kind)}"', f"there are {', '.join(_KINDS)}")


def kept(name: str) -> Kept:
    """What is kept of a kind: kernels, states, usage; in the user's folder for caches, and the one in its place."""
    from qcli.host import folders

    inside = [(place, folder) for place in folders.caches() for folder in (place / name, *_entries(place / name))]
    files = [path for place, folder in inside for path in _entries(folder) if _is_of(name, path, place)]
    return Kept(name, sorted({path.parent for path in files}), files)


def _is_of(name: str, path: Path, place: Path) -> bool:
    if not _KINDS[name].fullmatch(path.relative_to(place).as_posix()) or path.parent.is_symlink():
        return False
    return path.is_file() and not path.is_symlink()


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _as_dict(one: Kept) -> dict[str, Any]:
    from qcli.runtime import state_room

    told = {"kind": one.name, "bytes": one.n_bytes, "count": one.counted, "folders": list(map(str, one.folders))}
    return told | ({"limit": state_room.limit()} if one.name == "states" else {})


def _drawn(found: list[Kept]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    table = new_table()
    for heading in ("", "size", "", "where"):
        table.add_column(heading, justify="right" if heading == "size" else "left", overflow="fold")
    for one in found:
        where = sorted({console.clean(str(folder.parent if one.name != "usage" else folder)) for folder in one.folders})
        table.add_row(one.name, size(one.n_bytes), _about(one), Text("\n".join(where)))
    return Group(table, Text(""), Text(_HINT, style="dim"))


def _about(one: Kept) -> str:
    from qcli.runtime import state_room

    if one.name == "kernels":
        return counted(one.counted, "compiled function")
    if one.name == "usage":
        return f"experts of {counted(one.counted, 'model')}"
    models = len({path.parent for path in one.files})
    return f"{counted(one.counted, 'state')} of {counted(models, 'model')}; at most {size(state_room.limit())}"


def _clear(found: list[Kept], quiet: bool) -> None:
    """Delete files, and folders that are empty then. Raises OutputError after the others if one cannot be deleted."""
    problems = []
    for one in found:
        n_bytes = one.n_bytes
        for path in one.files:
            try:
                path.unlink(missing_ok=True)
            except OSError as problem:
                problems.append(f"{path}: cannot be deleted: {reason(problem, '', path).said}")
        for folder in one.folders:
            with suppress(OSError):
                folder.rmdir()
        if not quiet:
            console.info(f"{one.name}: {size(n_bytes - total_size(*one.files))} deleted")
    if problems:
        raise OutputError(problems[0], f"{counted(len(problems), 'file')} left; check the permissions of the folder")
