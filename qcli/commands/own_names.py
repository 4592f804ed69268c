"""Names of the user's own for models, in models.toml: added, and taken out again."""

from __future__ import annotations

import json
import re
from pathlib import Path

from qcli import console
from qcli.errors import OutputError, UsageError
from qcli.host.toml_files import TomlFile
from qcli.wording import shortened

_NAME = re.compile(r"\w[\w.:@+-]{0,79}")


def add(file: str, name: str | None) -> None:
    """Give a model file a name. Raises UsageError, ModelNotFoundError, ModelFileError, OutputError."""
    from qcli.gguf.file import GGUFFile
    from qcli.gguf.kinds import require_model
    from qcli.gguf.names import stem_of
    from qcli.host.folders import expanded

    path = Path.absolute(expanded(file))
    with GGUFFile.open(path) as opened:
        require_model(opened)
    chosen = stem_of(path.name) if name is None else name.strip()
    _write(chosen, "path", str(path))
    console.info(f"{chosen} is now {path}: `qcli run -m {chosen}` runs it")


def alias(name: str, new: str) -> None:
    """Give a model that has a name another one, which goes on to mean it when its file changes. Raises as `add` does."""
    from qcli.catalog.names import entry_of

    entry = entry_of(name)
    if entry is None:
        hint = "`qcli models` lists them, `qcli models add FILE` adds a file"
        raise UsageError(f"there is no model {shortened(name)}", hint)
    _write(new.strip(), "alias_of", entry.name)
    console.info(f"{new.strip()} now means {entry.name}")


def own_table(name: str) -> tuple[TomlFile, str] | None:
    """The user's models.toml, and how a name is written in it, where that is an alias or the path of a file."""
    file = _file()
    for key, values in file.values.items():
        if key.lower() == name.lower() and isinstance(values, dict) and ("path" in values or "alias_of" in values):
            return file, key
    return None


def _write(name: str, key: str, value: str) -> None:
    from qcli.catalog.entries import load_catalog

    if not _NAME.fullmatch(name) or name.lower().endswith(".gguf"):
        hint = "give one of letters, digits and -_.:@+, as in: my-model"
        raise UsageError(f"{shortened(name)!r} cannot be the name of a model", hint)
    if name.lower() in (known.lower() for known in load_catalog()):
        hint = "give another name, or `qcli rm` that one first if it is yours"
        raise UsageError(f"a model is called {name} already", hint)
    if not value.isprintable():
        raise UsageError(f"{shortened(value)!r} has a name that cannot be written down", "rename the file")
    _file().add_table(name, key, json.dumps(value, ensure_ascii=False))


def _file() -> TomlFile:
    from qcli.catalog.entries import own_file

    try:
        return TomlFile.read(own_file())
    except FileNotFoundError:
        raise OutputError("there is no home folder for names", "set the variable HOME to a folder") from None
