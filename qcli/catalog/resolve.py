"""The file that a path, a name or an address of huggingface.co means."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from qcli.catalog.entries import by_all_names, load_catalog
from qcli.catalog.entry import Entry
from qcli.catalog.names import closest, entry_of, made_for, named
from qcli.errors import ModelNotFoundError, UsageError
from qcli.gguf.names import stem_of
from qcli.host import folders
from qcli.hub.address import Address, parse
from qcli.local_models.hub import cached_labels, cached_model
from qcli.local_models.search import find
from qcli.wording import shortened, size

EMBEDDED: Final = "storyteller"
_PACKAGE: Final = Path(__file__).parents[1]
_MOST_TOLD: Final = 6  # names in a hint


def resolve(model: str | Path | None) -> tuple[Path, Entry | None]:
    """The file that a path, a name or an address of huggingface.co means, and the entry of the name.

    A file that exists goes before a name of models.toml, that before a model of other tools as these call it, and that before
    the beginning of a name. model: None for the embedded model; a Path is taken as it is. Raises ModelNotFoundError,
    UsageError.
    """
    if model is None:
        return _file_of(load_catalog()[EMBEDDED])
    if model == "":
        raise UsageError("the name of the model is empty", "give one, or none; a variable of your shell may not be set")
    path = folders.expanded(model)
    if not isinstance(model, str) or path.is_file():
        return path, None
    is_there = path.exists()
    if found := None if is_there or model.lower() in by_all_names() else find(model):
        return found.path, None if found.path.suffix.lower() == ".gguf" else made_for(found)
    entry = named(model, beginnings=not is_there and not _like_a_path(model))
    if entry:
        return _file_of(entry)
    if is_there:
        return path, None
    if address := parse(model):
        return _downloaded(address, model), None
    if _like_a_path(model):
        return path, None
    raise ModelNotFoundError(f"there is no model {model!r}", closest(model))


def path_of(entry: Entry) -> Path | None:
    """The file of an entry, if it is on this machine."""
    if entry.alias_of:
        with suppress(ModelNotFoundError, UsageError):
            return _file_of(entry)[0]
        return None
    if entry.local:
        return Path(entry.local) if Path(entry.local).is_file() else None
    if entry.asset:
        return _PACKAGE / "assets" / entry.asset
    with suppress(UsageError):  # several that it could be
        return cached_model(entry.address) if entry.address else None
    return None


def place_of(entry: Entry) -> str:
    """Whether the file is "embedded", "cached" or "not downloaded"; of the user's own "on disk" or "missing"."""
    is_here = path_of(entry) is not None
    if entry.local or entry.alias_of:
        return "on disk" if is_here else "missing"
    return "embedded" if entry.asset else "cached" if is_here else "not downloaded"


def is_model(word: str, names: bool = True) -> bool:
    """Whether a word means a model: the path of a .gguf file that is there, or (names) a name or an address of one."""
    try:
        is_file = word.lower().endswith(".gguf") and folders.expanded(word).is_file()
    except (OSError, ValueError):  # no path: it is too long, or holds a zero byte
        is_file = False
    if is_file or not names:
        return is_file
    try:
        if entry_of(word):
            return True
        address = parse(word)
        return address is not None and (word != address.repo or cached_model(address) is not None)
    except ModelNotFoundError:  # the beginning of several names
        return True
    except UsageError:
        return False


def name_of(path: Path, entry: Entry | None) -> str:
    """The name of a model that was resolved: that of its entry, else that of its file without the ending.

    Not general.name: converters write the folder that they found the model in, "Hf" or "Snapshots", and quantizers keep it.
    """
    return entry.name if entry else stem_of(path.name) or path.name


def _file_of(entry: Entry) -> tuple[Path, Entry]:
    """The file of an entry, and the entry; of an alias, with the sampling of what it stands for, unless it has its own."""
    meant, sampling, passed = entry, entry.sampling, {entry.name.lower()}
    while meant.alias_of:
        known = entry_of(meant.alias_of, beginnings=False)
        if known is None or known.name.lower() in passed:
            hint = f"give another alias_of below [{meant.name}] in your models.toml"
            said = f"{entry.name} stands for {meant.alias_of}, which is not a model on this machine"
            raise ModelNotFoundError(said, hint)
        passed.add(known.name.lower())
        meant, sampling = known, sampling or known.sampling
    return _local(meant), replace(entry, sampling=sampling)


def _local(entry: Entry) -> Path:
    path = path_of(entry)
    if path is None and entry.local:
        hint = f"put it there, or give another path below [{entry.name}] in your models.toml"
        raise ModelNotFoundError(f"{entry.local}: no such file; {entry.name} stands for it", hint)
    if path is None:
        told = f" ({size(entry.bytes)})" if entry.bytes else ""
        hint = f"`qcli pull {shlex.quote(entry.name)}` downloads it, or give the path of a .gguf file"
        raise ModelNotFoundError(f"{entry.name} is not on this machine{told}", hint)
    return path


def _downloaded(address: Address, typed: str) -> Path:
    """The file of an address in the cache of downloads. Raises ModelNotFoundError, UsageError."""
    if path := cached_model(address):
        return path
    words = typed if shlex.quote(typed) == typed else shlex.quote(str(address))
    sure = "" if typed != address.repo else ", if it is a model on huggingface.co"
    labels = cached_labels(address.repo)[:_MOST_TOLD]
    hint = f"`qcli pull {words}` downloads it{sure}" + (f"; this machine has its {', '.join(labels)}" if labels else "")
    raise ModelNotFoundError(f"{shortened(typed)} is not on this machine", hint)


def _like_a_path(model: str) -> bool:
    return model.lower().endswith(".gguf") or "/" in model or os.sep in model
