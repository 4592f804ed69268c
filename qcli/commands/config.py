"""qcli config: the user's settings, each with its value and where that comes from; to set and to unset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console
from qcli.commands import completion, options
from qcli.commands.examples import examples
from qcli.errors import UsageError
from qcli.wording import shortened

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qcli.settings.values import Settings, Value

_WORDS = {"show": (0, 1, "show [KEY]"), "set": (2, 2, "set KEY VALUE"), "unset": (1, 1, "unset KEY")}
_HINT = "`qcli config set KEY VALUE` and `qcli config unset KEY` change the file; an option that is typed always wins"


@examples(
    ("qcli config", "Shows all settings, and where each value comes from."),
    ("qcli config set threads 4", "Uses 4 threads from now on."),
)
def config(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            show_default=False,
            help="show, set or unset (default: show).",
            autocompletion=completion.one_of(_WORDS),
        ),
    ] = "show",
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY", help="The name of the setting (default: all of them).", autocompletion=completion.settings
        ),
    ] = None,
    value: Annotated[str | None, typer.Argument(metavar="VALUE", help="With set: its new value.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show or change your settings.

    A setting is used whenever you type no such option.
    """
    given = [word for word in (key, value) if word is not None]
    _check(action, given)
    from qcli.settings.declared import SETTINGS
    from qcli.settings.values import Settings, known

    settings = Settings()
    if action == "set":
        _tell_set(settings, settings.set(given[0], _as_meant(*given)), as_json)
    elif action == "unset":
        _tell_unset(settings, given[0], settings.unset(given[0]), as_json)
    else:
        keys = [known(key).key] if key else [*SETTINGS]
        _show(settings, [settings.value(key) for key in keys], as_json, all_keys=not key)


def _check(action: str, given: list[str]) -> None:
    if action not in _WORDS:
        ways = ", ".join(f"`qcli config {how}`" for *_, how in _WORDS.values())
        raise UsageError(f'there is no "qcli config {shortened(action)}"', f"type {ways}")
    least, most, how = _WORDS[action]
    if not least <= len(given) <= most:
        few = "too few words" if len(given) < least else "too many words"
        raise UsageError(f"config {action}: {few}", f"type `qcli config {how}`")


def _as_meant(key: str, text: str) -> str:
    """A value as it can be kept: of a model that is there; a path in full, as a command may be typed anywhere."""
    from qcli.catalog.resolve import resolve
    from qcli.host.folders import expanded

    if key.lower() != "model":
        return text
    path, entry = resolve(text)
    if entry is None and not path.is_file():
        raise UsageError(
            f"{shortened(text)}: no such file", "`qcli models` lists names, or give the path of a .gguf file"
        )
    if entry:
        return entry.name
    given = expanded(text)
    return str(Path.absolute(given)) if given.is_file() else text  # an address, which another revision may have, too


def _as_dict(found: Value) -> dict[str, Any]:
    told = {"key": found.setting.key, "value": found.value, "source": found.source, "where": found.where or None}
    return told | {"variable": found.setting.variable, "otherwise": found.setting.otherwise, "help": found.setting.help}


def _show(settings: Settings, found: list[Value], as_json: bool, all_keys: bool) -> None:
    if as_json:
        listed = [_as_dict(value) for value in found]
        path = str(settings.path) if settings.path else None
        console.json({"file": path, "settings": listed, "unknown": settings.unknown()} if all_keys else listed[0])
        return
    console.table(_drawn(settings, found, all_keys))
    for problem in settings.remarks() if all_keys else ():
        console.info(problem)


def _drawn(settings: Settings, found: list[Value], all_keys: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from qcli.commands.tables import new_table

    table = new_table()
    for heading in ("", "value", "from"):
        table.add_column(heading, overflow="fold")
    for each in found:
        said = each.value is not None
        value = Text(console.clean(_words(each.value) if said else each.setting.otherwise), style="" if said else "dim")
        where = each.where.replace(str(settings.path), "config.toml") or "default"
        table.add_row(Text(each.setting.key), value, Text(console.clean(where), style="" if said else "dim"))
    if not all_keys:
        return Group(table, Text(""), Text(found[0].setting.help, style="dim"))
    is_there = settings.file is not None and bool(settings.file.text)
    place = f"file: {settings.path or 'no home folder to keep one in'}{'' if is_there else ' (nothing yet)'}"
    return Group(table, Text(""), Text(console.clean(place), style="dim"), Text(_HINT, style="dim"))


def _words(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tell_set(settings: Settings, written: Value, as_json: bool) -> None:
    setting, now = written.setting, settings.value(written.setting.key)
    if as_json:
        console.json(_as_dict(now))
        return
    console.info(f"{setting.key} is {_words(written.value)}, in {settings.path}")
    if now.source == "environment":
        console.info(f"but {now.where} is set in the environment, and wins: {_words(now.value)}")


def _tell_unset(settings: Settings, key: str, was_there: bool, as_json: bool) -> None:
    if as_json:
        console.json({"key": key, "changed": was_there})
    else:
        console.info(f"{key} {'is removed from' if was_there else 'is not in'} {settings.path}")
