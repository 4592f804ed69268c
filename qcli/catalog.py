"""The models known by name: finds the file that a name, an address of huggingface.co or a path means.

They are those of the models.toml that ships, and of the user's own, in the folder for settings.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final

from qcli.errors import ModelNotFoundError, UsageError
from qcli.gguf.names import stem_of
from qcli.host import folders
from qcli.host.toml_files import TomlFile
from qcli.hub.address import Address, parse
from qcli.hub.cached_models import cached_labels, cached_model
from qcli.hub.quant_names import plain, quant_of
from qcli.local_models.found import Found
from qcli.local_models.search import find, search
from qcli.own_models import checked
from qcli.wording import shortened, size

EMBEDDED: Final = "storyteller"
_HERE: Final = Path(__file__).parent
_LIST: Final = "`qcli models` lists the names, or give the path of a .gguf file"
_SHORTEST: Final = 3  # letters of a beginning that stands for a name
_MOST_TOLD: Final = 6  # names in a hint


@dataclass(frozen=True)
class Entry:
    """One model of models.toml: in this package (asset), on huggingface.co (repo), or the user's own (local, alias_of).

    Of a repository one file is meant, or one quantization, or what suits best.
    """

    name: str
    description: str = ""
    bytes: int = 0
    sha256: str = ""
    local: str = ""
    alias_of: str = ""  # the name of another one, whose file it is
    asset: str = ""
    repo: str = ""
    file: str = ""
    quant: str = ""
    shape: str = ""  # that of `qcli.bench.shapes` which it has
    aliases: tuple[str, ...] = ()  # other names that mean it
    note: str = ""  # goes on with the name: what a person has to know who talks with it
    named: str = ""  # a pattern for general.name: files that match get the same sampling options
    sampling: Mapping[str, float | int] = field(default_factory=dict)

    @property
    def address(self) -> Address | None:
        """Where it is on huggingface.co, if it is there."""
        return Address(self.repo, self.quant or None, self.file or None) if self.repo else None

    @property
    def path(self) -> Path | None:
        """The file, if it is on this machine."""
        if self.alias_of:
            with suppress(ModelNotFoundError, UsageError):
                return _file_of(self)[0]
            return None
        if self.local:
            return Path(self.local) if Path(self.local).is_file() else None
        if self.asset:
            return _HERE / "assets" / self.asset
        with suppress(UsageError):  # several that it could be
            return cached_model(self.address) if self.address else None
        return None

    @property
    def where(self) -> str:
        """Whether the file is "embedded", "cached" or "not downloaded"; of the user's own "on disk" or "missing"."""
        if self.local or self.alias_of:
            return "on disk" if self.path else "missing"
        return "embedded" if self.asset else "cached" if self.path else "not downloaded"


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
    installed, checkout = _HERE / "models.toml", _HERE.parent / "models.toml"
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


def resolve(model: str | Path | None) -> tuple[Path, Entry | None]:
    """The file that a path, a name or an address of huggingface.co means, and the entry of the name.

    A file that exists goes before a name of models.toml, that before a model of other tools as these call it, and that before
    the beginning of a name. model: None for the embedded model; a Path is taken as it is. Raises ModelNotFoundError,
    UsageError.
    """
    if model is None:
        return _file_of(load_catalog()[EMBEDDED])
    path = folders.expanded(model)
    if not isinstance(model, str) or path.is_file():
        return path, None
    is_there = path.exists()
    if found := None if is_there or model.lower() in _known() else find(model):
        return found.path, None if found.path.suffix.lower() == ".gguf" else _made_for(found)
    entry = named(model, beginnings=not is_there and not _like_a_path(model))
    if entry:
        return _file_of(entry)
    if is_there:
        return path, None
    if address := parse(model):
        return _downloaded(address, model), None
    if _like_a_path(model):
        return path, None
    raise ModelNotFoundError(f"there is no model {model!r}", _closest(model))


def entry_of(word: str, beginnings: bool = True) -> Entry | None:
    """The entry that a word means, also of a model of other tools, for which one is made. As `named` else."""
    if word.lower() not in _known() and (found := find(word)):
        return _made_for(found)
    return named(word, beginnings)


def _made_for(found: Found) -> Entry:
    """An entry for a model of another tool, whose file may have no name of its own: Ollama's are called by checksums."""
    return Entry(found.name, local=str(found.path))


def _known() -> dict[str, Entry]:
    """The entries by all of their names, in lower case."""
    entries = load_catalog()
    known = {alias.lower(): entry for entry in entries.values() for alias in entry.aliases}
    return known | {key.lower(): entry for key, entry in entries.items()}


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


def named(word: str, beginnings: bool = True) -> Entry | None:
    """The entry that a word means, in any case; None for none: its name, an alias or (beginnings) how one name alone begins.

    Each may have a quantization after it, NAME:Q8_0. Raises UsageError for one that a single file cannot have,
    ModelNotFoundError for the beginning of several names.
    """
    name, _, quant = word.lower().partition(":")
    entries, known = load_catalog(), _known()
    entry = known.get(word.lower()) or known.get(name)
    if entry is None and beginnings and len(name) >= _SHORTEST:
        begun = [one for key, one in entries.items() if key.lower().startswith(name)]
        if len(begun) > 1:
            close = [one.name for one in search().models if one.name.lower().startswith(name)]
            raise ModelNotFoundError(f"there is no model {word!r}", _did_you_mean(close + [one.name for one in begun]))
        entry = begun[0] if begun else None
    if entry is None or word.lower() in known or quant in ("", "latest"):
        return entry
    return _of_quant(entry, word.partition(":")[2])


def address_of(model: str) -> Address | None:
    """Where on huggingface.co a name or an address leads; None for what is not there, as a path. Raises as `named`."""
    return entry.address if (entry := named(model)) else parse(model)


def _of_quant(entry: Entry, quant: str) -> Entry:
    if plain(quant) == plain(entry.quant or quant_of(entry.file or entry.asset)):
        return entry
    if not entry.repo:
        hint = f"type `{entry.name}` alone"
        raise UsageError(f"{entry.name} has only one version: there is no {shortened(quant)} of it", hint)
    return replace(entry, name=f"{entry.name}:{quant}", file="", quant=quant, bytes=0, sha256="")


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


def _local(entry: Entry) -> Path:
    path = entry.path
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


def _closest(model: str) -> str:
    names = {name.lower(): name for name in (*load_catalog(), *(found.name for found in search().models))}
    close = get_close_matches(model.lower(), names, n=2, cutoff=0.4)
    return _did_you_mean([names[name] for name in close])


def _did_you_mean(names: list[str]) -> str:
    shown = names[:_MOST_TOLD]
    return f"did you mean {' or '.join(shown)}? {_LIST}" if shown else _LIST
