"""The models known by name: finds the file that a name or a path means, and sampling options that suit the model.

They are those of the models.toml that ships, and of the user's own, in the folder for settings.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Final

from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.gguf.names import stem_of
from qcli.host import folders
from qcli.host.toml_files import TomlFile
from qcli.hub.cache import cached
from qcli.local_models.search import find
from qcli.runtime.sampling import OPTIONS
from qcli.wording import shortened, size

EMBEDDED: Final = "storyteller"
_HERE: Final = Path(__file__).parent
_OWN_KEYS: Final = ("path", "alias", "repo", "file", "description", "named", "sampling")
_LIST: Final = "`qcli models` lists the names, or give the path of a .gguf file"

# https://huggingface.co/owner/name/resolve/main/file.gguf, with as much of it as was copied, and owner/name:file.gguf
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_REMOTE: Final = re.compile(
    rf"(?:(?:https?:/+)?(?:huggingface\.co|hf\.co)/|hf:/+){_REPO}(?:/(?:resolve|blob|tree)/[^/]+)?(?:/(?P<file>[^?]*))?(?:\?.*)?"
    rf"|{_REPO.replace('repo', 'named')}:(?P<quant>[\w./-]+)|[a-z]{{2,}}:/+.*"
)


@dataclass(frozen=True)
class Entry:
    """One model of models.toml: in this package (asset), on huggingface.co (repo, file), or the user's own (local, alias)."""

    name: str
    description: str = ""
    bytes: int = 0
    sha256: str = ""
    local: str = ""
    alias: str = ""  # what the model is called otherwise; nothing else is said of where it is
    asset: str = ""
    repo: str = ""
    file: str = ""
    named: str = ""  # a pattern for general.name: files that match get the same sampling options
    sampling: Mapping[str, float | int] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The file, if it is on this machine."""
        if self.alias:
            with suppress(QcliError):
                return _file_of(self)[0]
            return None
        if self.local:
            return Path(self.local) if Path(self.local).is_file() else None
        return _HERE / "assets" / self.asset if self.asset else cached(self.repo, self.file)

    @property
    def where(self) -> str:
        """Whether the file is "embedded", "cached" or "not downloaded"; of the user's own "on disk" or "missing"."""
        if self.local or self.alias:
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
        found = {name: Entry(name, **values) for name, values in tomllib.load(file).items()}
    if own is not None:
        written, names = TomlFile.read(own), {name.lower(): name for name in found}
        for given, values in written.values.items():
            name = names.get(given.lower(), given)
            found[name] = _own_entry(written, given, values, found.get(name, Entry(given)))
    return found


def _own_entry(written: TomlFile, name: str, values: Any, known: Entry) -> Entry:
    """An entry with what a table of the user's models.toml says. Raises UsageError."""

    def refused(key: str, said: str, hint: str) -> UsageError:
        return UsageError(f"{written.where(key, name)}: {shortened(key)} {said}", hint)

    if not isinstance(values, dict):
        raise UsageError(f"{written.where(name)}: {shortened(name)} is no table", "a model begins with [its name]")
    for key, value in values.items():
        if key not in _OWN_KEYS:
            raise refused(key, f"says nothing of {shortened(name)}", f"there are: {', '.join(_OWN_KEYS)}")
        if key != "sampling" and not (isinstance(value, str) and value.isprintable()):
            raise refused(key, f"cannot be {shortened(str(value))}", "give a text in quotes")
    said = {key: value for key, value in values.items() if key not in ("path", "sampling")}
    if "sampling" in values:
        said["sampling"] = _own_sampling(values["sampling"], refused)
    if "path" in values or "alias" in values or {"repo", "file"} <= values.keys():
        local = str(written.path.parent / folders.expanded(values["path"])) if "path" in values else ""
        known = replace(known, bytes=0, sha256="", asset="", repo="", file="", local=local)
    found = replace(known, **said)
    if not (found.local or found.alias or found.asset or (found.repo and found.file)):
        raise refused(name, "has no file", "give its path, or repo and file of huggingface.co")
    return found


def _own_sampling(values: Any, refused: Callable[[str, str, str], UsageError]) -> dict[str, float | int]:
    if not isinstance(values, dict):
        raise refused("sampling", "is no table", "as in: sampling = { temperature = 0.7 }")
    for name, value in values.items():
        try:
            values[name] = OPTIONS[name].check(name, value)
        except KeyError:
            raise refused("sampling", f"has no option {shortened(name)}", f"there are: {', '.join(OPTIONS)}") from None
        except UsageError as problem:
            raise refused("sampling", f"is wrong: {problem.message}", problem.hint) from None
    return values


def resolve(model: str | Path | None) -> tuple[Path, Entry | None]:
    """The file that a path or a name means, and the entry of the name; for None, of the embedded model.

    A path that exists goes before a name of models.toml, that before what other tools call a model of theirs, and that
    before an address of huggingface.co. Raises ModelNotFoundError; UsageError if an address could mean several models.
    """
    names = _by_lower_case()
    if model is None:
        return _file_of(names[EMBEDDED])
    path = folders.expanded(model)
    if isinstance(model, str) and model.lower() in names and not path.is_file():
        return _file_of(names[model.lower()])
    if isinstance(model, str) and model and not path.exists() and (found := find(model)):
        return found.path, Entry(found.name, local=str(found.path))
    if (address := _REMOTE.fullmatch(str(model))) and not path.exists():
        raise ModelNotFoundError(
            f"{model}: is not on this machine",
            _download(address["repo"] or address["named"], address["file"] or address["quant"]),
        )
    if isinstance(model, str) and not (model and path.exists()) and not _like_a_path(model):
        raise ModelNotFoundError(f"no model is called {model!r}", _closest(model))
    return path, None


def _by_lower_case() -> dict[str, Entry]:
    return {name.lower(): entry for name, entry in load_catalog().items()}


def _file_of(entry: Entry) -> tuple[Path, Entry]:
    """The file of an entry, and the entry; of an alias, with the sampling of what it stands for, unless it has its own."""
    passed, sampling = {entry.name.lower()}, entry.sampling
    meant = entry
    while meant.alias:
        known = _by_lower_case().get(meant.alias.lower())
        if known is None:
            found = find(meant.alias)
            known = Entry(found.name, local=str(found.path)) if found else None
        if known is None or known.name.lower() in passed:
            hint = f"give another alias below [{meant.name}] in your models.toml"
            raise ModelNotFoundError(f"{entry.name} stands for {meant.alias}, which is no model on this machine", hint)
        passed.add(known.name.lower())
        meant, sampling = known, sampling or known.sampling
    return _local(meant), replace(entry, sampling=sampling)


def is_model(word: str, names: bool = True) -> bool:
    """Whether a word means a model: the path of a .gguf file that is there, or (names) a name of one."""
    try:
        is_file = word.lower().endswith(".gguf") and folders.expanded(word).is_file()
    except (OSError, ValueError):  # no path: it is too long, or holds a zero byte
        is_file = False
    if is_file or not names:
        return is_file
    try:
        return word.lower() in _by_lower_case() or find(word) is not None
    except ModelNotFoundError:  # several are called so
        return True


def name_of(path: Path, entry: Entry | None) -> str:
    """The name of a model that was resolved: that of its entry, else that of its file without the ending.

    Not general.name: converters write the folder that they found the model in, "Hf" or "Snapshots", and quantizers keep it.
    """
    return entry.name if entry else stem_of(path.name) or path.name


def sampling_defaults(entry: Entry | None, file: GGUFFile) -> dict[str, float]:
    """The sampling options that suit a model, by name: as models.toml recommends, by its entry or by general.name; else
    as the file itself does.

    With a recommendation, the options that it leaves out and that would filter are off; without one, none are named.
    """
    given = (entry.sampling if entry else {}) or _by_general_name(file) or _recommended_in(file)
    off = {name: option.off for name, option in OPTIONS.items() if option.off is not None}
    return {**off, **given} if given else {}


def _by_general_name(file: GGUFFile) -> Mapping[str, float | int]:
    name = re.sub(r"[^a-z0-9.]+", "-", str(file.metadata.get("general.name", "")).lower())
    matches = (entry for entry in reversed(load_catalog().values()) if entry.named and fnmatchcase(name, entry.named))
    return next((entry.sampling for entry in matches), {})


def _recommended_in(file: GGUFFile) -> dict[str, float]:
    """What the keys general.sampling.* of a file say, as far as they make sense."""
    found: dict[str, float] = {}
    for name, option in OPTIONS.items():
        value = file.metadata.get(option.gguf_key) if option.gguf_key else None
        if isinstance(value, int | float) and option.accepts(value):
            value = int(value) if isinstance(option.default, int) else round(value, 6)  # 0.7 from a float32
            if option.accepts(value):
                found[name] = value
    return found


def _local(entry: Entry) -> Path:
    path = entry.path
    if path is None and entry.local:
        hint = f"put it there, or give another path below [{entry.name}] in your models.toml"
        raise ModelNotFoundError(f"{entry.local}: there is no such file, which {entry.name} means", hint)
    if path is None:
        hint = f"`hf download {entry.repo} {entry.file}` gets it, or give the path of a .gguf file"
        told = f" ({size(entry.bytes)})" if entry.bytes else ""
        raise ModelNotFoundError(f"{entry.name} is not on this machine{told}", hint)
    return path


def _like_a_path(model: str) -> bool:
    return model.lower().endswith(".gguf") or "/" in model or os.sep in model


def _download(repo: str | None, file: str | None) -> str:
    """What to type to have a file of an address on this machine; None for what the address does not tell."""
    if repo and file:
        wanted = file if file.endswith(".gguf") else f"--include '*{file}*'"  # Q4_K_M, as peers have it
        return f"`hf download {repo} {wanted}` gets it: give the path of the file"
    return (
        f"`hf download {repo}` gets its files: give the path of one"
        if repo
        else "download it, and give the path of the file"
    )


def _closest(model: str) -> str:
    names = {name.lower(): name for name in load_catalog()}
    close = get_close_matches(model.lower(), names, n=2, cutoff=0.4)
    return f"did you mean {' or '.join(names[name] for name in close)}? {_LIST}" if close else _LIST
