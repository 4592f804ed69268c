"""All entries: those of the models.toml that ships, and of the user's own, in the folder for settings, which goes before it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from qcli.catalog.entry import Entry
from qcli.catalog.own_table import checked
from qcli.errors import UsageError
from qcli.host import folders
from qcli.host.toml_files import TomlFile
from qcli.wording import shortened

_PACKAGE: Final = Path(__file__).parents[1]


def load_catalog() -> dict[str, Entry]:
    """The entries by name, in the order of the files: ours, as the user's models.toml may change them, then the user's.

    Raises UsageError for a wrong file of the user's, QcliError for one that cannot be read.
    """
    try:
        own = own_file()
    except FileNotFoundError:
        return _entries(None, ())
    try:
        status = own.stat()
        return _entries(own, (status.st_mtime_ns, status.st_size))
    except OSError:  # it is not there, or cannot be read: then an error says so
        return _entries(own, ())


def own_file() -> Path:
    """The user's models.toml. Raises FileNotFoundError if there is no home."""
    return folders.config() / "models.toml"


@cache
def _entries(own: Path | None, version: tuple[int, ...]) -> dict[str, Entry]:
    """version: of the user's file, which a command may change."""
    installed, checkout = _PACKAGE / "models.toml", _PACKAGE.parent / "models.toml"
    with open(installed if installed.exists() else checkout, "rb") as file:
        found = {name: Entry(name, **_as_fields(values)) for name, values in tomllib.load(file).items()}
    if own is not None:
        written, names = TomlFile.read(own), {name.lower(): name for name in found}
        for given, values in written.values.items():
            name = names.get(given.lower(), given)
            found[name] = _own_entry(written, given, values, found.get(name, Entry(given)))
    return found


def _own_entry(written: TomlFile, name: str, values: Any, known: Entry) -> Entry:
    """An entry with what a table of the user's models.toml says. Raises UsageError."""
    said = checked(written, name, values)
    path = said.pop("path", "")
    if path or said.keys() & {"repo", "file", "quant", "alias_of"}:  # another file
        local = str(written.path.parent / folders.expanded(path)) if path else ""
        repo = "" if local or "alias_of" in said else known.repo
        known = replace(known, bytes=0, sha256="", asset="", repo=repo, file="", quant="", shape="", local=local)
    found = replace(known, **_as_fields(said))
    if not (found.local or found.asset or found.repo or found.alias_of):
        hint = "give its path, or repo and file (or quant) of huggingface.co"
        raise UsageError(f"{written.where(name, name)}: {shortened(name)} has no file", hint)
    return found


def _as_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if key == "aliases" else value for key, value in values.items()}


def by_all_names() -> dict[str, Entry]:
    """The entries by all of their names, in lower case."""
    entries = load_catalog()
    known = {alias.lower(): entry for entry in entries.values() for alias in entry.aliases}
    return known | {key.lower(): entry for key, entry in entries.items()}
