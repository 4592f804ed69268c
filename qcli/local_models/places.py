"""The folders in which other tools keep their models, as far as they tell where these are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qcli.host import folders
from qcli.host.named_files import resolved

# Where Ollama's installer for Linux has its service keep them, whoever asks for a model.
OLLAMA_SERVICES = (Path("/usr/share/ollama/.ollama/models"),)
_MOST = 1 << 20  # bytes of a file that says something


def home() -> Path | None:
    """The user's home, if there is one."""
    path = folders.expanded("~")
    return path if path.is_absolute() else None


def ollama() -> list[Path]:
    """Folders with `manifests` and `blobs`: OLLAMA_MODELS, else that of the user and that of the service."""
    if named := os.environ.get("OLLAMA_MODELS"):
        return [folders.expanded(named)]
    own = home()
    return [*([own / ".ollama" / "models"] if own else []), *OLLAMA_SERVICES]


def lm_studio() -> list[Path]:
    """Folders of publisher/repository/file: as LM Studio's settings name them, else `models` in its own folder."""
    if (own := home()) is None:
        return []
    pointed = read_text(own / ".lmstudio-home-pointer").strip()
    homes = [*([Path(pointed)] if pointed else []), own / ".lmstudio", own / ".cache" / "lm-studio"]
    folders_named = {resolved(path): path for path in map(_of_lm_studio, homes) if path.is_absolute()}
    return [*folders_named.values()]


def llama_cpp() -> list[Path]:
    """LLAMA_CACHE, else llama.cpp's folder of the system's folder for caches."""
    from platformdirs import user_cache_path

    if named := os.environ.get("LLAMA_CACHE"):
        return [folders.expanded(named)]
    path = user_cache_path("llama.cpp", appauthor=False, opinion=False)
    return [path] if path.is_absolute() else []


def _of_lm_studio(folder: Path) -> Path:
    said = read_json(folder / "settings.json")
    named = said.get("downloadsFolder") if isinstance(said, dict) else None
    path = Path(named) if isinstance(named, str) and named.isprintable() else Path()
    return path if path.is_absolute() else folder / "models"


def read_text(path: Path) -> str:
    """What a small file says; nothing for one that is large, is no text, no regular file, or cannot be read."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return ""
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
        return data.decode() if len(data) <= _MOST else ""
    except (OSError, ValueError):
        return ""


def read_json(path: Path) -> Any:
    """The value of a small JSON file; None for what is none."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError):
        return None
