"""The models of models.toml: finds the file that a name or a path means, and sampling options that suit the model."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Final

from qcli.errors import ModelNotFoundError
from qcli.gguf.file import GGUFFile
from qcli.gguf.names import stem_of
from qcli.wording import size

Sampling = dict[str, Any]  # float, or int for top_k: the keywords of sampler.Sampling

EMBEDDED: Final = "storyteller"
_HERE: Final = Path(__file__).parent
_LIST: Final = "`qcli models` lists the names, or give the path of a .gguf file"

_SANE: Final[Sampling] = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
_OPEN: Final[Sampling] = {"temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0}

# general.sampling.* of a file: our name, and the least and the greatest value that make sense
_FILE_KEYS: Final = {
    "temp": ("temperature", 0.0, 100.0),
    "top_k": ("top_k", 0, 2**31 - 1),
    "top_p": ("top_p", 0.0, 1.0),
    "min_p": ("min_p", 0.0, 1.0),
    "penalty_repeat": ("repeat_penalty", 0.01, 100.0),
}


@dataclass(frozen=True)
class Entry:
    """One model of models.toml: in this package (asset), or on huggingface.co (repo, file)."""

    name: str
    description: str
    bytes: int
    sha256: str
    asset: str = ""
    repo: str = ""
    file: str = ""
    named: str = ""  # a pattern for general.name: files that match get the same sampling options
    sampling: Mapping[str, float | int] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The file, if it is on this machine."""
        return _HERE / "assets" / self.asset if self.asset else cached(self.repo, self.file)

    @property
    def where(self) -> str:
        """Whether the file is "embedded", "cached" or "not downloaded"."""
        return "embedded" if self.asset else "cached" if self.path else "not downloaded"


@cache
def load_catalog() -> dict[str, Entry]:
    """The entries of models.toml by name, in its order."""
    installed, checkout = _HERE / "models.toml", _HERE.parent / "models.toml"
    with open(installed if installed.exists() else checkout, "rb") as file:
        return {name: Entry(name, **values) for name, values in tomllib.load(file).items()}


def resolve(model: str | Path | None) -> tuple[Path, Entry | None]:
    """The file that a path or a name means, and the entry of the name; for None, of the embedded model.

    Raises ModelNotFoundError.
    """
    names = {name.lower(): entry for name, entry in load_catalog().items()}
    if model is None:
        return _local(names[EMBEDDED]), names[EMBEDDED]
    path = Path(model).expanduser()
    if isinstance(model, str) and str(model).lower() in names and not path.is_file():
        return _local(names[model.lower()]), names[model.lower()]
    if isinstance(model, str) and not (model and path.exists()) and not _like_a_path(model):
        raise ModelNotFoundError(f"no model is called {model!r}", _closest(model))
    return path, None


def name_of(path: Path, entry: Entry | None) -> str:
    """The name of a model that was resolved: that of its entry, else that of its file without the ending.

    Not general.name: converters write the folder that they found the model in, "Hf" or "Snapshots", and quantizers keep it.
    """
    return entry.name if entry else stem_of(path.name) or path.name


def sampling_defaults(entry: Entry | None, file: GGUFFile) -> Sampling:
    """temperature, top_k, top_p, min_p (and repeat_penalty if asked for) that suit a model.

    From models.toml, by its entry or by general.name; else as the file itself says; else moderate ones.
    """
    given = entry.sampling if entry else _by_general_name(file) or _said_by(file)
    return {**_OPEN, **given} if given else dict(_SANE)


def _by_general_name(file: GGUFFile) -> Mapping[str, float | int]:
    name = re.sub(r"[^a-z0-9.]+", "-", str(file.metadata.get("general.name", "")).lower())
    matches = (entry for entry in load_catalog().values() if entry.named and fnmatchcase(name, entry.named))
    return next((entry.sampling for entry in matches), {})


def _said_by(file: GGUFFile) -> Sampling:
    said: Sampling = {}
    for key, (name, least, greatest) in _FILE_KEYS.items():
        value = file.metadata.get(f"general.sampling.{key}")
        if isinstance(value, int | float) and least <= value <= greatest:
            said[name] = int(value) if isinstance(least, int) else round(value, 6)  # 0.7 from a float32
    return said


def _local(entry: Entry) -> Path:
    path = entry.path
    if path is None:
        hint = f"`hf download {entry.repo} {entry.file}` gets it, or give the path of a .gguf file"
        raise ModelNotFoundError(f"{entry.name} is not on this machine ({size(entry.bytes)})", hint)
    return path


def _like_a_path(model: str) -> bool:
    return model.endswith(".gguf") or "/" in model or os.sep in model


def _closest(model: str) -> str:
    names = {name.lower(): name for name in load_catalog()}
    close = get_close_matches(model.lower(), names, n=2, cutoff=0.4)
    return f"did you mean {' or '.join(names[name] for name in close)}? {_LIST}" if close else _LIST


def cached(repo: str, file: str) -> Path | None:
    """A file that `hf download` has put into its cache, of several revisions the newest; None if there is none."""
    revisions = hub_cache() / f"models--{repo.replace('/', '--')}" / "snapshots"
    found = [path for path in revisions.glob(f"*/{file}") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def hub_cache() -> Path:
    """The folder where huggingface_hub keeps downloads, by the environment variables that it documents."""
    if hub := os.environ.get("HF_HUB_CACHE"):
        return Path(hub).expanduser()
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache_home}/huggingface").expanduser() / "hub"
